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
