//! Sockets that listen, and what their connections share.

use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use socket2::Socket;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::io;
use crate::policy::Meter;
use crate::snapshot::{Bind, Liveness};

/// What makes a socket the same one in the next configuration: its address. Two sockets on port 0 are never the same
/// one, so there the listener's name and the position belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindKey {
    bind: Bind,
    place: Option<(String, usize)>,
}

impl BindKey {
    pub fn new(bind: &Bind, listener: &str, position: usize) -> Self {
        let is_any_port = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        Self { bind: bind.clone(), place: is_any_port.then(|| (listener.to_owned(), position)) }
    }
}

/// Tells everybody who waits that something is over. Opens never again.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    notify: Arc<Notify>,
}

impl Gate {
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.notify.notify_waiters();
    }

    /// Returns once the gate is closed.
    pub async fn closed(&self) {
        let mut notified = std::pin::pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.is_closed() {
            notified.await;
        }
    }
}

/// Waits for a gate from one task again and again, and is entered among those who wait only once.
#[derive(Debug, Default)]
pub struct GateWatch(Option<Pin<Box<OwnedNotified>>>);

impl GateWatch {
    /// Ready once the gate is closed. Always the same gate, and the same task.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>, gate: &Gate) -> Poll<()> {
        if self.0.is_none() {
            let mut notified = Box::pin(gate.notify.clone().notified_owned());
            // Enters the task; whether the gate is closed is looked at behind that.
            let _ = notified.as_mut().poll(cx);
            self.0 = Some(notified);
        }
        if gate.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A bound address, for as long as a connection that came through it lives.
#[derive(Debug)]
pub struct Listening {
    pub key: BindKey,
    /// The address really bound, as text.
    pub address: String,
    /// None for a unix socket.
    pub port: Option<u16>,
    /// Closed when the listener goes or the gateway drains: connections end at the next opportunity.
    pub gate: Gate,
    /// Connections that are open.
    pub open: AtomicU64,
}

/// The connections of a listener, over all of its addresses.
#[derive(Debug, Default)]
pub struct Occupancy {
    pub open: AtomicU64,
    /// How fast new ones come.
    pub meter: Meter,
    /// There may be room again.
    pub freed: Notify,
}

/// The socket itself.
#[derive(Debug)]
pub struct ListenSocket {
    socket: Socket,
    pub listening: Arc<Listening>,
    /// The file to remove with the socket.
    path: Option<PathBuf>,
}

impl ListenSocket {
    /// Binds and listens. `leaving` sockets may be in the way: they go when this one serves.
    pub fn bind(bind: &Bind, key: BindKey, liveness: &Liveness, leaving: &[Arc<Self>]) -> Result<Self, io::BindError> {
        let socket = io::bind(bind, liveness, &leaving.iter().map(|one| &one.socket).collect::<Vec<_>>())?;
        let bound = socket.local_addr().ok().and_then(|address| address.as_socket());
        let (address, path) = match bind {
            Bind::Tcp(address) => (bound.unwrap_or(*address).to_string(), None),
            Bind::Unix(path) => (format!("unix:{}", path.display()), Some(path.clone())),
        };
        let port = bound.map(|bound| bound.port());
        let listening = Listening { key, address, port, gate: Gate::default(), open: AtomicU64::new(0) };
        Ok(Self { socket, listening: Arc::new(listening), path })
    }

    /// Says anew how the kernel finds out that a client has gone, for connections that come.
    pub fn set_liveness(&self, liveness: &Liveness) {
        if self.path.is_none() {
            // What was in force stays in force where the system does not want it.
            let _ = io::set_liveness(&self.socket, liveness);
        }
    }

    /// The address that it has.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Stops listening at once, and tells who accepts. The worker's handle stays open until it comes to that, but is in
    /// nobody's way: clients are refused, and the address can be bound again.
    pub fn close(&self) {
        self.listening.gate.close();
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// A handle for accepting on the runtime of the caller.
    pub fn listener(&self) -> std::io::Result<io::Listener> {
        io::Listener::new(self.socket.try_clone()?, self.path.is_some())
    }
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
