//! HTTP/3 to an endpoint: what a trunk of it does, and what a stream of it says.
//!
//! A task holds a connection until nobody needs it, and reads what the server says of itself. We speak no word of
//! GOAWAY: a client that goes closes the connection, when what it has sent is through.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Request, Response};
use quinn::{Connection, Endpoint, ReadError, RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::HeadError;
use super::h2::SETTINGS_PATIENCE;
use super::seats::Seat;
use crate::http::h3::code::Code;
use crate::http::h3::control::Speaker;
use crate::http::h3::head::{read_response, write_request};
use crate::http::h3::qpack::{self, BadSection};
use crate::io::h3::{self, Control, H3, Peer, Quic, Receive, Section, Send, Undelivered, Watch, varint};

/// What the head of an answer may take at most.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long what was sent last may take to get through, and how often we look.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// A connection.
pub struct Carrier {
    quic: Quic,
    peer: Rc<Peer>,
    undelivered: Undelivered,
    /// A stream that was opened and not used.
    spare: RefCell<Option<Lane>>,
    _needed: oneshot::Sender<()>,
}

/// Both directions of a stream.
pub type Lane = (SendStream, RecvStream);

impl Carrier {
    /// Begins to speak HTTP/3; `websockets`: it must be known whether the server takes them. None where the connection
    /// is lost.
    pub async fn begin(endpoint: Endpoint, connection: Connection, websockets: bool, seat: Seat) -> Option<Self> {
        let control = Control::open(&connection, HEAD_LIMIT as u64, false).await?;
        let (peer, undelivered) = (Peer::new(Speaker::Server), Undelivered::default());
        let (needed, over) = oneshot::channel();
        let driver =
            Driver { endpoint, quic: Quic::new(connection), peer, undelivered, _control: control, _seat: seat };
        let carrier = Self {
            quic: driver.quic.clone(),
            peer: driver.peer.clone(),
            undelivered: driver.undelivered.clone(),
            spare: RefCell::new(None),
            _needed: needed,
        };
        tokio::task::spawn_local(driver.run(over));
        if websockets {
            // Else it is asked what there is to know now.
            let _ = timeout(SETTINGS_PATIENCE, carrier.peer.settings()).await;
        }
        Some(carrier)
    }

    /// Whether something new may begin on it.
    pub fn is_usable(&self) -> bool {
        self.quic.connection.close_reason().is_none() && !self.peer.is_leaving()
    }

    /// Whether the server takes WebSockets (RFC 9220 §3).
    pub fn takes_websockets(&self) -> bool {
        self.peer.takes_websockets()
    }

    /// A stream, where the server lets there be one more now.
    pub fn lane(&self) -> Option<Lane> {
        let opening = pin!(self.quic.connection.open_bi());
        self.spare.take().or_else(|| match opening.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(opened) => opened.ok(),
            Poll::Pending => None,
        })
    }

    /// Takes a stream back on which nothing was said: ended without a word it would be malformed.
    pub fn give_back(&self, lane: Lane) {
        self.spare.replace(Some(lane));
    }

    /// Sends a request's head; `ended`: it has no body.
    pub fn open(&self, (send, receive): Lane, request: &Request<()>, ended: bool) -> Option<Opened> {
        let id = u64::from(receive.id());
        let receive = Receive::new(self.quic.clone(), receive, Speaker::Server, HEAD_LIMIT);
        let mut send = Send::new(send, self.undelivered.clone());
        send.send_section(&write_request(request)).ok()?;
        let ending = ended && request.method() != http::Method::CONNECT;
        let opened =
            Opened { send, receive, id, peer: self.peer.clone(), watch: Watch::default(), ending, status: None };
        Some(opened)
    }
}

/// What holds a connection.
struct Driver {
    endpoint: Endpoint,
    quic: Quic,
    peer: Rc<Peer>,
    undelivered: Undelivered,
    /// Must not end before the connection does (RFC 9114 §6.2.1).
    _control: Control,
    /// Given back when the connection has ended.
    _seat: Seat,
}

impl Driver {
    async fn run(self, mut over: oneshot::Receiver<()>) {
        let connection = &self.quic.connection;
        loop {
            tokio::select! {
                biased;
                _ = &mut over => break,
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        tokio::task::spawn_local(h3::read(self.quic.clone(), stream, self.peer.clone()));
                    }
                    Err(_) => break,
                },
            }
        }
        let since = Instant::now();
        while !self.undelivered.is_empty() && connection.close_reason().is_none() && since.elapsed() < LAST_WORDS {
            sleep(LOOK).await;
        }
        connection.close(varint(Code::NO_ERROR), b"");
        let _ = timeout(LAST_WORDS, self.endpoint.wait_idle()).await;
    }
}

/// A stream, from the head of its request to the head of its answer.
pub struct Opened {
    pub send: Send,
    receive: Receive,
    id: u64,
    peer: Rc<Peer>,
    watch: Watch,
    /// Our direction is to be ended.
    ending: bool,
    /// Of the answer, once it has come.
    status: Option<u16>,
}

impl Opened {
    /// The next head, and whether nothing follows.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Response<()>, bool), HeadError>> {
        if self.status.is_some() {
            return Poll::Pending;
        }
        if self.ending {
            // Where it fails, reading tells why.
            self.ending = self.send.poll_finish(cx).is_pending();
        } else {
            let _ = self.send.poll_flush(cx);
        }
        match self.receive.poll_head(cx) {
            Poll::Ready(section) => Poll::Ready(self.take(section, cx)),
            Poll::Pending => {
                ready!(self.watch.poll_passed_over(cx, &self.peer, self.id));
                Poll::Ready(Err(HeadError::Untouched))
            }
        }
    }

    fn take(
        &mut self,
        section: std::io::Result<Section>,
        cx: &mut Context<'_>,
    ) -> Result<(Response<()>, bool), HeadError> {
        let section = match section {
            Ok(Section::Fields(section)) => section,
            Ok(Section::TooLarge) => return Err(TOO_LARGE),
            Err(error) => return Err(self.no_answer(&error)),
        };
        let fields = qpack::decode(&section, HEAD_LIMIT).map_err(|bad| match bad {
            BadSection::TooLarge => TOO_LARGE,
            BadSection::Malformed => {
                self.receive.end_connection(Code::DECOMPRESSION_FAILED);
                MALFORMED
            }
        })?;
        let Some(response) = read_response(&fields) else {
            self.receive.dismiss(Code::MESSAGE_ERROR);
            return Err(MALFORMED);
        };
        if response.status().is_informational() {
            self.receive.expect_head();
            return Ok((response, true));
        }
        self.status = Some(response.status().as_u16());
        let ended = self.receive.poll_ended(cx);
        Ok((response, ended))
    }

    /// The content that must come.
    pub fn expect(&mut self, length: Option<u64>) {
        self.receive.expect(length);
    }

    /// The stream behind the head of its answer; none before that. `connected`: it has answered a CONNECT.
    pub fn into_stream(self, connected: bool) -> Option<H3> {
        let opens = connected && (200..300).contains(&self.status?);
        Some(if opens { H3::tunnel(self.send, self.receive) } else { H3::new(self.send, self.receive) })
    }

    fn no_answer(&self, error: &std::io::Error) -> HeadError {
        let inner = error.get_ref();
        if let Some(reason) = inner.and_then(|inner| inner.downcast_ref::<ReadError>()) {
            return match reason {
                // It has not begun to work on it (RFC 9114 §4.1.1).
                ReadError::Reset(code) if *code == varint(Code::REQUEST_REJECTED) => HeadError::Untouched,
                _ if self.peer.passes_over(self.id) => HeadError::Untouched,
                ReadError::Reset(_) => HeadError::Lost { unanswered: false },
                _ => HeadError::Lost { unanswered: true },
            };
        }
        MALFORMED
    }
}

const TOO_LARGE: HeadError = HeadError::Malformed("the head of the upstream's answer is too large");
const MALFORMED: HeadError = HeadError::Malformed("the upstream's answer breaks the rules of HTTP/3");
