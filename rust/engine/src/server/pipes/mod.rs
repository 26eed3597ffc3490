//! Live pipes: what carries bytes that nobody here looks at, whether a TCP listener took them in or a request opened a
//! tunnel. From the moment both ends are there to the record of the end.

mod drain;
mod leases;
mod lifecycle;
mod tally;

pub use self::drain::{Pace, drain, reconcile};
pub use self::leases::{About, Lease, Pipes, Tunnel};
pub use self::lifecycle::begin;
pub use self::tally::{TCP, TUNNEL};
