//! The read buffer of a worker: one for all of its connections, so that an idle connection holds none.

use std::cell::RefCell;

/// What one read takes at most, and so the most that a relay keeps for a slow reader.
pub const SCRATCH_SIZE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_SIZE].into_boxed_slice());
}

/// Lends this worker's scratch buffer to `work`, which must not ask for it again meanwhile.
pub fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| work(scratch))
}
