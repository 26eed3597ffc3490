//! Byte streams, and the few things every reader and writer of them shares.

pub mod clock;
pub mod h2;
pub mod h3;
mod listener;
pub mod proxy_protocol;
pub mod random;
mod raw;
pub mod room;
mod scratch;
mod socket;
mod stream;
pub mod tls;
pub mod turns;

pub use listener::Listener;
pub use raw::{Loose, Raw, Watch};
pub use scratch::{SCRATCH_SIZE, with_scratch};
pub use socket::{BindError, bind, connect, set_liveness};
pub use stream::{Linger, Stream};

/// For tests: runs `work` as a worker's runtime would, for 20 s at most.
#[cfg(test)]
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    let limit = std::time::Duration::from_secs(20);
    runtime.block_on(async { tokio::time::timeout(limit, work).await.expect("it hangs") })
}
