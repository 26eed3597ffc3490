//! What concerns a connection as a whole: our settings and GOAWAY, and what the other side says of its own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

use super::{Quic, varint};
use crate::http::h3::code::Code;
use crate::http::h3::control::{Settings, Speaker, StreamKind, StreamReader};
use crate::http::h3::frame::{write_goaway, write_settings};
use crate::http::h3::varint as number;

/// How long the few bytes on our control stream may wait for a window: RFC 9114 §6.2 wants it open from the beginning.
const PATIENCE: Duration = Duration::from_secs(5);

/// Our control stream.
#[derive(Debug)]
pub struct Control(SendStream);

impl Control {
    /// Opens it with our settings. None where the connection is lost, or has no window for it.
    pub async fn open(connection: &Connection, field_section: u64, takes_websockets: bool) -> Option<Self> {
        let mut stream = timeout(PATIENCE, connection.open_uni()).await.ok()?.ok()?;
        let mut bytes = Vec::new();
        number::write(&mut bytes, 0);
        write_settings(&mut bytes, field_section, takes_websockets);
        timeout(PATIENCE, stream.write_all(&bytes)).await.ok()?.ok()?;
        Some(Self(stream))
    }

    /// Serves no request from stream `id` on.
    pub async fn go_away(&mut self, id: u64) {
        let mut bytes = Vec::new();
        write_goaway(&mut bytes, id);
        // Where it is lost, or its window closed, there is nobody to tell.
        let _ = timeout(PATIENCE, self.0.write_all(&bytes)).await;
    }
}

/// What the other side has said of itself.
#[derive(Debug)]
pub struct Peer {
    speaker: Speaker,
    /// Streams of which there must be one only.
    seen: RefCell<Vec<StreamKind>>,
    settings: Cell<Option<Settings>>,
    goaway: Cell<Option<u64>>,
    changed: Arc<Notify>,
}

impl Peer {
    /// Nothing yet.
    pub fn new(speaker: Speaker) -> Rc<Self> {
        let (seen, settings, goaway, changed) = (RefCell::default(), Cell::new(None), Cell::new(None), Arc::default());
        Rc::new(Self { speaker, seen, settings, goaway, changed })
    }

    /// What it takes, once it has said so.
    pub async fn settings(&self) -> Settings {
        loop {
            let changed = self.changed.notified();
            if let Some(settings) = self.settings.get() {
                return settings;
            }
            changed.await;
        }
    }

    /// Whether it takes extended CONNECT, as far as it has said.
    pub fn takes_websockets(&self) -> bool {
        self.settings.get().is_some_and(|settings| settings.connect_protocol)
    }

    /// Whether it has said that it goes.
    pub fn is_leaving(&self) -> bool {
        self.goaway.get().is_some()
    }

    /// Whether it has said that it does nothing with what comes on stream `id`.
    pub fn passes_over(&self, id: u64) -> bool {
        self.goaway.get().is_some_and(|first| id >= first)
    }

    fn note(&self, reader: &StreamReader) {
        let StreamReader::Control(reader) = reader else { return };
        let now = (reader.settings(), reader.goaway());
        if (self.settings.replace(now.0), self.goaway.replace(now.1)) != now {
            self.changed.notify_waiters();
        }
    }
}

/// Waits, from one task, until the other side passes over a stream.
#[derive(Debug, Default)]
pub struct Watch(Option<Pin<Box<OwnedNotified>>>);

impl Watch {
    /// Ready when it does. Always the same one, and the same stream.
    pub fn poll_passed_over(&mut self, cx: &mut Context<'_>, peer: &Peer, id: u64) -> Poll<()> {
        loop {
            let changed = self.0.get_or_insert_with(|| Box::pin(peer.changed.clone().notified_owned()));
            let has_changed = changed.as_mut().poll(cx).is_ready();
            if peer.passes_over(id) {
                return Poll::Ready(());
            }
            if !has_changed {
                return Poll::Pending;
            }
            self.0 = None;
        }
    }
}

/// Reads a stream of the other side's until its end, which must be the connection's.
pub async fn read(quic: Quic, mut stream: RecvStream, peer: Rc<Peer>) {
    if let Err(code) = follow(&mut stream, &peer).await {
        quic.end_for(code);
    }
}

async fn follow(stream: &mut RecvStream, peer: &Peer) -> Result<(), Code> {
    let mut buffer = [0; 1024];
    let mut begun = Vec::new();
    let kind = loop {
        if let Some((kind, _)) = number::read(&begun) {
            break StreamKind::new(kind, peer.speaker)?;
        }
        // One byte after the other: what is behind the kind is not for us to keep. A stream may end before it has said
        // its kind (RFC 9114 §6.2).
        match stream.read(&mut buffer[..1]).await {
            Ok(Some(1)) => begun.push(buffer[0]),
            _ => return Ok(()),
        }
    };
    let Some(mut reader) = StreamReader::new(kind, peer.speaker) else {
        let _ = stream.stop(varint(Code::STREAM_CREATION_ERROR));
        return Ok(());
    };
    if peer.seen.borrow().contains(&kind) {
        return Err(Code::STREAM_CREATION_ERROR);
    }
    peer.seen.borrow_mut().push(kind);
    while let Ok(Some(read)) = stream.read(&mut buffer).await {
        reader.take(&buffer[..read])?;
        peer.note(&reader);
    }
    Err(Code::CLOSED_CRITICAL_STREAM)
}
