//! The UDP socket of a listener that speaks HTTP/3.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use socket2::{Domain, Socket, Type};

use crate::server::listening::{BindKey, Gate, Listening};
use crate::snapshot::{HttpVersion, Listener};

/// A bound UDP socket. Its gate closes alone when the listener goes on without HTTP/3.
#[derive(Debug)]
pub struct QuicSocket {
    socket: UdpSocket,
    pub listening: Arc<Listening>,
}

/// Whether a listener has an endpoint of QUIC.
pub fn speaks_h3(listener: &Listener) -> bool {
    listener.tcp.is_none() && listener.tls.is_some() && listener.http.contains(&HttpVersion::H3)
}

impl QuicSocket {
    /// Binds. The error is for the user.
    pub fn bind(address: SocketAddr, key: BindKey) -> Result<Self, String> {
        let socket = bind_udp(address).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "cannot bind {address} for HTTP/3: something has the UDP port; it may be connections of a listener that \
                 went, and are ending"
            ),
            _ => format!("cannot bind {address} for HTTP/3: {error}"),
        })?;
        let (address, port) = (format!("udp:{address}"), Some(address.port()));
        let listening = Listening { key, address, port, gate: Gate::default(), open: AtomicU64::new(0) };
        Ok(Self { socket, listening: Arc::new(listening) })
    }

    /// Tells who accepts, and all connections, to come to an end.
    pub fn close(&self) {
        self.listening.gate.close();
    }

    /// A handle for the endpoint.
    pub fn socket(&self) -> std::io::Result<UdpSocket> {
        self.socket.try_clone()
    }
}

/// Whether nobody has this address of UDP.
pub fn is_free(address: SocketAddr) -> bool {
    bind_udp(address).is_ok()
}

fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
