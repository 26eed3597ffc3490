//! The data plane of Tidegate.
//!
//! Python decides what should be true and says it in a [`snapshot`]; this crate makes it true for each byte. It reads
//! no configuration files, resolves no names and calls nobody back. Layers, top first, each using only those below it:
//!
//! `door` → `server` → `upstream` → `relay` → `route`, `policy`, `balance`, `tls` → `ws` → `io`, `http`, `log` →
//! `snapshot`, `metrics`, `error`.
//!
//! Read `server/connection.rs` first: it is the life of one connection on one screen.

pub mod balance;
pub mod door;
pub mod error;
pub mod http;
pub mod io;
pub mod log;
pub mod metrics;
pub mod policy;
pub mod relay;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod ws;
