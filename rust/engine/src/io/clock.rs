//! A coarse clock: milliseconds since the engine's start, good to a few of them, for a handful of nanoseconds a look.
//!
//! The relay looks at it for every read; `Instant::now` would cost as much as checking the frame.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds on the monotonic clock.
pub type Millis = u64;

/// Now, on the coarse monotonic clock.
pub fn now() -> Millis {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Now, in milliseconds since 1970, for logs.
pub fn wall() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
