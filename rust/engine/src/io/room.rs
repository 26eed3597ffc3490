//! Room for descriptors. The last ones are the control plane's: when clients have taken the rest, a scrape must still
//! be answered and a reload must still find a descriptor to read its file with.
//!
//! The kernel gives out the lowest free number (POSIX, "File Descriptor Allocation"), so a fresh descriptor with a high
//! number tells that nearly all below it are taken. Nothing has to be counted.
//!
//! The kernel's table of descriptors is made large at the start. Otherwise it doubles each time it is full, and in a
//! process of several threads whoever was given the next descriptor waits meanwhile until all cores have been elsewhere
//! once: 14 ms were seen in `accept4`, in which nothing else on that worker moved.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::LazyLock;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};

/// The most that is kept back.
const RESERVE: u64 = 64;
/// Where there are few, the part of them that is kept back.
const SHARE: u64 = 8;
/// The most descriptors that the table is made for: half a MiB of the kernel's memory.
const PREPARED: u64 = 65_536;

/// The first number that is kept back. The process raises its limit before the engine starts, and not later.
static RESERVED: LazyLock<u64> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit - RESERVE.min(limit / SHARE)
});

/// Makes the kernel's table of descriptors large. Where it cannot be, it grows as it is needed.
pub fn prepare() {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(PREPARED).min(PREPARED);
    if let (Ok(any), Ok(last)) = (eventfd(0, EventfdFlags::CLOEXEC), i32::try_from(most.saturating_sub(1))) {
        // Closed at once; the table stays.
        let _ = fcntl_dupfd_cloexec(any, last);
    }
}

/// Whether this descriptor, just made, is one of the last.
pub fn is_last(fresh: &impl AsFd) -> bool {
    fresh.as_fd().as_raw_fd() as u64 >= *RESERVED
}

/// Gives a descriptor back that is one of the last, as if there had been none.
///
/// # Errors
/// What the system says when there is none.
pub fn claim<T: AsFd>(fresh: T) -> io::Result<T> {
    if is_last(&fresh) { Err(rustix::io::Errno::MFILE.into()) } else { Ok(fresh) }
}

/// Whether there is room for more beside `other`.
pub fn is_left(other: &impl AsFd) -> bool {
    rustix::io::dup(other).is_ok_and(|fresh| !is_last(&fresh))
}
