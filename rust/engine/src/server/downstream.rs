//! What a connection knows of its client. All of its exchanges share it, one after the other or at once.

use std::net::SocketAddr;
use std::rc::Rc;

use super::permit::Permit;
use crate::tls::RuleId;

/// What TLS told about a connection.
#[derive(Debug)]
pub struct TlsFacts {
    pub server_name: Option<String>,
    /// The rule that the server name fell under.
    pub rule: RuleId,
}

/// A client's end of a connection.
#[derive(Debug)]
pub struct Downstream {
    /// The client, as the PROXY header or the socket says.
    pub peer: Option<SocketAddr>,
    /// What it connected to, where a PROXY header says it, or only this does.
    pub destination: Option<SocketAddr>,
    pub tls: Option<TlsFacts>,
    /// Given back when the last WebSocket on the connection has gone as well.
    pub permit: Rc<Permit>,
    pub id: u64,
}

impl Downstream {
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the connection should end as soon as it can: its listener goes, or the gateway drains.
    pub fn is_closing(&self) -> bool {
        self.permit.listening.gate.is_closed()
    }
}
