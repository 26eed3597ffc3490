//! The connections of one worker that are kept, by endpoint: idle ones of HTTP/1.1, and trunks. The last idle one put
//! in is the first one out, so that the rest can grow old and go. Those made with one TLS configuration are nothing for
//! another, which may trust others.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::trunks::Trunks;
use super::{Endpoint, Link};
use crate::io::clock::{self, Millis};
use crate::io::{Stream, with_scratch};
use crate::snapshot::Pool;
use crate::tls::ClientTls;

/// The pools of a worker.
#[derive(Debug, Default)]
pub struct Pools {
    /// By the addresses in memory of the endpoint and of its TLS; the entry refers to both, so that no other can come to
    /// stand there.
    idle: RefCell<HashMap<Key, Idle>>,
    pub trunks: Trunks,
}

type Key = (usize, usize);

#[derive(Debug)]
struct Idle {
    /// Weak, because an endpoint that no configuration and no connection has any more is not worth a connection.
    endpoint: Weak<Endpoint>,
    _tls: Option<Arc<ClientTls>>,
    streams: Vec<(Stream, Millis)>,
}

impl Pools {
    /// An idle connection to `endpoint` that its peer has not closed.
    pub fn take(&self, endpoint: &Arc<Endpoint>, tls: Option<&Arc<ClientTls>>) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let streams = &mut idle.get_mut(&key(endpoint, tls))?.streams;
        while let Some((mut stream, until)) = streams.pop() {
            if until > clock::now() && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose last exchange is complete.
    pub fn put(&self, link: Link, pool: &Pool) {
        let endpoint = link.permit.endpoint();
        let mut idle = self.idle.borrow_mut();
        let fresh = || Idle { endpoint: Arc::downgrade(endpoint), _tls: link.tls.clone(), streams: Vec::new() };
        let entry = idle.entry(key(endpoint, link.tls.as_ref())).or_insert_with(fresh);
        if entry.streams.len() < pool.idle as usize {
            entry.streams.push((link.stream, clock::now() + pool.idle_timeout));
        }
    }

    /// Closes what is too old or was closed by its peer, so that nothing stays half-closed for long, and what leads to
    /// endpoints that are gone.
    pub fn sweep(&self) {
        let now = clock::now();
        self.idle.borrow_mut().retain(|_, idle| {
            let is_wanted = idle.endpoint.strong_count() > 0;
            idle.streams.retain_mut(|(stream, until)| is_wanted && *until > now && is_quiet(stream));
            !idle.streams.is_empty()
        });
        self.trunks.sweep();
    }

    /// Closes everything.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.trunks.clear();
    }
}

fn key(endpoint: &Arc<Endpoint>, tls: Option<&Arc<ClientTls>>) -> Key {
    (Arc::as_ptr(endpoint) as usize, tls.map_or(0, |tls| Arc::as_ptr(tls) as usize))
}

/// Whether nothing has come: neither the end of the stream nor a byte that nobody asked for.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    with_scratch(|scratch| matches!(stream.poll_read(&mut cx, &mut scratch[..1]), Poll::Pending))
}
