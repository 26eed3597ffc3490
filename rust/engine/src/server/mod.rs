//! Listeners, workers, and the story of a connection: begin with [`connection`].

mod accept;
mod access;
mod alarm;
mod answer;
mod answering;
mod asking;
mod connection;
mod drain;
mod echo;
mod engine;
mod exchange;
mod extended;
mod forwarded;
mod handshakes;
mod leases;
mod lifecycle;
mod listening;
mod permit;
mod plan;
mod presence;
mod proxy;
mod pump;
mod reply;
mod session;
mod shared;
mod state;
mod tally;
mod tcp;
mod timers;
mod tries;
mod websocket;
mod worker;

pub use self::engine::{Engine, Prepared};
pub use self::state::{Secrets, State};
