//! Room for descriptors. The last ones are the control plane's: when clients have taken the rest, a scrape must still be
//! answered and a reload must still find a descriptor to read its file with.
//!
//! The kernel gives out the lowest free number (POSIX, "File Descriptor Allocation"), so a fresh descriptor with a high
//! number tells that nearly all below it are taken. Nothing has to be counted.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::LazyLock;

use rustix::process::{Resource, getrlimit};

/// The most that is kept back.
const RESERVE: u64 = 64;
/// Where there are few, the part of them that is kept back.
const SHARE: u64 = 8;

/// The first number that is kept back. The process raises its limit before the engine starts, and not later.
static RESERVED: LazyLock<u64> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit - RESERVE.min(limit / SHARE)
});

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
