//! The client's side of one exchange, over whatever version of HTTP it came.
//!
//! Over HTTP/1.1 the exchange borrows the whole connection; over HTTP/2 and HTTP/3 it has a stream of its own, which
//! ends with it.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::alarm::Alarm;
use super::answer::Reply;
use super::connection::Step;
use super::downstream::Downstream;
use super::h2::Request;
use super::h3;
use super::presence::Moment;
use super::pump::{Sink, Source};
use super::session::Session;
use crate::http::write::write_response;
use crate::http::{Fields, Method};
use crate::snapshot::HttpVersion;

/// The client is gone: nobody to tell.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

/// The client's side of an exchange.
#[derive(Debug)]
pub enum Client<'c> {
    H1(&'c mut Session),
    H2(&'c mut Request),
    H3(&'c mut h3::Request),
}

impl Client<'_> {
    /// What its connection knows.
    pub fn downstream(&self) -> &Downstream {
        match self {
            Self::H1(session) => &session.downstream,
            Self::H2(request) => &request.downstream,
            Self::H3(request) => &request.downstream,
        }
    }

    /// What it connected to.
    pub fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::H1(session) => session.connected_to(),
            Self::H2(_) | Self::H3(_) => self.downstream().destination,
        }
    }

    /// What is spoken with it.
    pub fn protocol(&self) -> HttpVersion {
        match self {
            Self::H1(_) => HttpVersion::H1,
            Self::H2(_) => HttpVersion::H2,
            Self::H3(_) => HttpVersion::H3,
        }
    }

    /// Where the request's body comes from.
    pub fn source(&mut self) -> Source<'_> {
        match self {
            Self::H1(session) => Source::Stream(&mut session.stream),
            Self::H2(request) => Source::H2(&mut request.receive),
            Self::H3(request) => Source::H3(&mut request.receive),
        }
    }

    /// Where the answer's body goes, once its head has gone there.
    pub fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::H1(session) => Sink::Stream(&mut session.stream),
            Self::H2(request) => request.sink(),
            Self::H3(request) => Sink::H3(&mut request.send),
        }
    }

    /// The timer of its task.
    pub fn alarm(&mut self) -> &mut Alarm {
        match self {
            Self::H1(session) => &mut session.alarm,
            Self::H2(request) => &mut request.alarm,
            Self::H3(request) => &mut request.alarm,
        }
    }

    /// What was read ahead of a body: the part of it that has come already.
    pub fn take_early(&mut self) -> Vec<u8> {
        match self {
            Self::H1(session) => std::mem::take(&mut session.buffer),
            Self::H2(_) | Self::H3(_) => Vec::new(),
        }
    }

    /// Gives back what was read behind a body: it belongs to the next request.
    pub fn give_back(&mut self, rest: &mut Vec<u8>) {
        if let Self::H1(session) = self {
            session.buffer.append(rest);
        }
    }

    /// Whether only asking tells that the client is gone, also while its body is read.
    pub fn can_reset(&self) -> bool {
        matches!(self, Self::H2(_) | Self::H3(_))
    }

    /// Ready when the client has gone, or wants no answer any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, moment: Moment) -> Poll<()> {
        match self {
            Self::H1(session) => session.poll_gone(cx, moment),
            Self::H2(request) => request.poll_gone(cx),
            Self::H3(request) => request.poll_gone(cx),
        }
    }

    /// Returns when the client has gone, or wants no answer any more.
    pub async fn gone(&mut self, moment: Moment) {
        std::future::poll_fn(|cx| self.poll_gone(cx, moment)).await;
    }

    /// Sends an interim answer.
    pub async fn send_interim(&mut self, status: u16, reason: Option<&[u8]>, fields: &Fields) -> Result<(), Gone> {
        match self {
            Self::H1(session) => {
                let mut bytes = Vec::new();
                write_response(&mut bytes, status, reason, fields);
                session.stream.write_all(&bytes).await.map_err(|_| Gone)
            }
            Self::H2(request) => request.send_interim(status, fields),
            Self::H3(request) => request.send_interim(status, fields),
        }
    }

    /// Sends an answer of our own, whole. `go_on`: the connection may carry another exchange.
    pub async fn send(&mut self, reply: &Reply<'_>, method: &Method, go_on: bool) -> Step {
        let is_head = *method == Method::Head;
        match self {
            Self::H1(session) => match session.stream.write_all(&reply.write(!go_on, is_head)).await {
                Ok(()) if go_on => Step::Next,
                Ok(()) => Step::Close,
                Err(_) => Step::Drop,
            },
            Self::H2(request) => request.send(reply, is_head).await,
            Self::H3(request) => request.send(reply, is_head).await,
        }
    }
}
