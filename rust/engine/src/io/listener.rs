//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};

use super::raw::Raw;

/// A listening socket on the runtime of this thread.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Over a socket that listens and does not block.
    pub fn new(socket: Socket, is_unix: bool) -> io::Result<Self> {
        if is_unix {
            UnixListener::from_std(socket.into()).map(Self::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Self::Tcp)
        }
    }

    /// The next connection, with the client's address where there is one.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Raw, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d; rules and logs want a.b.c.d.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Poll::Ready(Ok((Raw::Tcp(stream), Some(peer))))
            }
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| (Raw::Unix(stream), None)),
        }
    }
}
