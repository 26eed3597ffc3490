//! IPv4 sockets: listening, accepting, connecting from many loopback addresses.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ClientConfig;

use crate::Outcome;
use crate::wire::Wire;

/// How long a blocking step of opening a connection may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 4096;

/// A non-blocking listener. Accepted sockets inherit TCP_NODELAY from it, which saves a call for each.
pub fn listen(address: SocketAddrV4) -> Outcome<OwnedFd> {
    let listener = stream_socket(SocketFlags::NONBLOCK)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    net::bind(&listener, &address).map_err(|error| format!("cannot bind {address}: {error}"))?;
    net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

pub fn local_address(socket: &OwnedFd) -> Outcome<SocketAddr> {
    Ok(net::getsockname(socket)?.try_into()?)
}

/// The next waiting connection, non-blocking, if there is one.
pub fn accept(listener: &OwnedFd) -> Outcome<Option<TcpStream>> {
    match net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(stream) => Ok(Some(stream.into())),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(error) => Err(format!("cannot accept: {error}").into()),
    }
}

/// Begins a connection and does not wait for it: until it stands, writes are refused and kept.
pub fn dial(target: SocketAddrV4) -> Outcome<TcpStream> {
    let stream = stream_socket(SocketFlags::NONBLOCK)?;
    match net::connect(&stream, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(stream.into()),
        Err(error) => Err(cannot_connect(target, error)),
    }
}

fn stream_socket(flags: SocketFlags) -> Outcome<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

fn cannot_connect(target: SocketAddrV4, error: Errno) -> Box<dyn std::error::Error> {
    format!("cannot connect to {target}: {error}").into()
}

/// Connects from 250 loopback addresses in turn: one address has 28,000 ports, and ports of closed connections stay
/// taken for a minute.
pub struct Dialler {
    target: SocketAddrV4,
    tls: Option<Arc<ClientConfig>>,
    turn: u8,
}

impl Dialler {
    pub fn new(target: SocketAddrV4, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { target, tls, turn: 0 }
    }

    /// A blocking connection with time limits.
    pub fn connect(&mut self) -> Outcome<Wire> {
        let stream = self.connect_plain()?;
        match &self.tls {
            Some(config) => Wire::secured(stream, config),
            None => Ok(stream.into()),
        }
    }

    fn connect_plain(&mut self) -> Outcome<TcpStream> {
        let socket = stream_socket(SocketFlags::empty())?;
        if self.target.ip().is_loopback() {
            net::bind(&socket, &SocketAddrV4::new(self.next_source(), 0))?;
        }
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?; // bounds connect too
        net::connect(&stream, &self.target).map_err(|error| cannot_connect(self.target, error))?;
        Ok(stream)
    }

    fn next_source(&mut self) -> Ipv4Addr {
        self.turn = (self.turn + 1) % 250;
        Ipv4Addr::new(127, 77, 0, self.turn + 1)
    }
}
