//! A stream of HTTP/2 or HTTP/3 to an endpoint: opened by the head of a request, answered by the head of an answer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, Uri, Version};

use super::trunk::{Opened, Place};
use super::{HeadError, Link, Permit};
use crate::error::{Refusal, refusal};
use crate::http::write::reason_phrase;
use crate::http::{BodyLength, Fields, ResponseHead, from_map, to_map};
use crate::io::Stream;
use crate::snapshot::HttpVersion;

/// A stream that is still to be opened, and its place in the endpoint's load.
#[derive(Debug)]
pub struct Crossing {
    pub place: Place,
    pub permit: Permit,
    /// Whether HTTP/1.1 will do where a WebSocket is refused.
    pub or_h1: bool,
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    pub method: &'q [u8],
    /// Path and query.
    pub target: &'q [u8],
    /// With the host among them.
    pub fields: &'q Fields,
    /// What an extended CONNECT asks for (RFC 8441 §4, RFC 9220 §3).
    pub protocol: Option<&'q str>,
}

/// A stream whose request is on its way.
pub struct Awaited {
    pub crossing: Crossing,
    pub opened: Opened,
    is_connect: bool,
    is_head: bool,
}

const TARGET: Refusal = Refusal::new(
    400,
    "target_character",
    "the request target has a byte that HTTP/2 and HTTP/3 to the upstream cannot carry",
);

impl Crossing {
    /// Opens the stream; `ended`: no body follows.
    ///
    /// # Errors
    /// The refusal for the client.
    pub fn open(self, question: &Question<'_>, ended: bool) -> Result<Awaited, Refusal> {
        let scheme = if self.permit.endpoint().tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let request = request(question, scheme).ok_or(TARGET)?;
        let opened = self.place.open(request, ended).ok_or(refusal::UPSTREAM_LOST)?;
        let (is_connect, is_head) = (question.method == b"CONNECT", question.method == b"HEAD");
        Ok(Awaited { crossing: self, opened, is_connect, is_head })
    }

    /// What is spoken there.
    pub fn version(&self) -> HttpVersion {
        self.place.version()
    }
}

impl Awaited {
    /// The next head: interim ones (1xx) come one by one like any other.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, HeadError>> {
        let head = match &mut self.opened {
            Opened::H2(opened) => ready!(opened.poll_head(cx)),
            Opened::H3(opened) => ready!(opened.poll_head(cx)),
        };
        let is_interim = matches!(&head, Ok((response, _)) if response.status().is_informational());
        if !is_interim {
            self.crossing.place.answered();
        }
        let (response, ended) = head?;
        let head = response_head(&response, ended || self.is_head);
        if let (Opened::H3(opened), BodyLength::Length(length)) = (&mut self.opened, head.body) {
            opened.expect(Some(length));
        }
        Poll::Ready(Ok(head))
    }

    /// The head of the answer, for who has no use for interim ones.
    pub async fn final_head(&mut self) -> Result<ResponseHead, HeadError> {
        loop {
            let head = poll_fn(|cx| self.poll_head(cx)).await?;
            if !(100..200).contains(&head.status) {
                return Ok(head);
            }
        }
    }

    /// What the answer comes over, once its head has come.
    pub fn into_link(self) -> Option<Link> {
        let Crossing { place, permit, .. } = self.crossing;
        let reused = place.is_reused;
        let stream = match self.opened {
            Opened::H2(opened) => Stream::H2(Box::new(opened.into_stream()?.with(place))),
            Opened::H3(opened) => Stream::H3(Box::new(opened.into_stream(self.is_connect)?.with(place))),
        };
        Some(Link { stream, permit, tls: None, owner: None, reused })
    }
}

/// Whether an answer to an extended CONNECT is that of a server that advertises it and does not mean it. 401, 403 and
/// 404 are the application's.
pub fn refuses_extended(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}

fn request(question: &Question<'_>, scheme: Scheme) -> Option<Request<()>> {
    let authority = question.fields.first("host")?;
    let method = Method::from_bytes(question.method).ok()?;
    let uri = if method == Method::CONNECT && question.protocol.is_none() {
        // RFC 9113 §8.5: neither scheme nor path.
        Uri::builder().authority(authority).build().ok()?
    } else {
        Uri::builder().scheme(scheme).authority(authority).path_and_query(question.target).build().ok()?
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut fields = to_map(question.fields);
    fields.remove("host");
    *request.headers_mut() = fields;
    if let Some(protocol) = question.protocol {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Some(request)
}

/// The head of an answer. `ended`: no body follows.
fn response_head(response: &Response<()>, ended: bool) -> ResponseHead {
    let status = response.status().as_u16();
    let ended = ended || matches!(status, 100..200 | 204 | 304);
    let length = length(response.headers());
    ResponseHead {
        status,
        reason: reason_phrase(status).as_bytes().into(),
        minor: 1,
        fields: from_map(response.headers()),
        body: match length {
            _ if ended => BodyLength::None,
            Some(length) => BodyLength::Length(length),
            None => BodyLength::UntilClose,
        },
        keep_alive: false,
    }
}

/// There is one at most, and what reads the body sees to it that it keeps to it.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get("content-length")?.to_str().ok()?.parse().ok()
}
