//! A stream of HTTP/2 to an endpoint: opened by the head of a request, answered by the head of an answer.

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, Uri, Version};

use super::trunk::Place;
use super::{HeadError, Permit};
use crate::error::{Refusal, refusal};
use crate::http::write::reason_phrase;
use crate::http::{BodyLength, Fields, ResponseHead, from_map, to_map};

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
    /// What an extended CONNECT asks for (RFC 8441 §4).
    pub protocol: Option<&'q str>,
}

const TARGET: Refusal =
    Refusal::new(400, "target_character", "the request target has a byte that HTTP/2 to the upstream cannot carry");

impl Crossing {
    /// Opens the stream; `ended`: no body follows.
    ///
    /// # Errors
    /// The refusal for the client.
    pub fn open(&self, question: &Question<'_>, ended: bool) -> Result<(ResponseFuture, SendStream<Bytes>), Refusal> {
        let scheme = if self.permit.endpoint().tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let request = request(question, scheme).ok_or(TARGET)?;
        self.place.open(request, ended).map_err(|_| refusal::UPSTREAM_LOST)
    }
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

/// The head of an answer. `ended`: no body follows. To a request of `method`.
pub fn response_head<T>(response: &Response<T>, ended: bool, method: &[u8]) -> ResponseHead {
    let status = response.status().as_u16();
    let ended = ended || method == b"HEAD" || matches!(status, 100..200 | 204 | 304);
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

/// Why there is no answer. What was lost on a connection that others had used before, may have been lost before it was
/// asked.
pub fn no_answer(error: &h2::Error) -> HeadError {
    if was_untouched(error) {
        return HeadError::Untouched;
    }
    HeadError::Lost { unanswered: !error.is_reset() }
}

/// `h2` has seen to it that there is one at most, and that the body keeps to it.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get("content-length")?.to_str().ok()?.parse().ok()
}

/// Whether the peer has not begun to work on a stream that it ended so (RFC 9113 §8.7).
pub fn was_untouched(error: &h2::Error) -> bool {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => true,
        // Streams above the last one that a GOAWAY names.
        Some(_) => error.is_go_away() && error.is_remote(),
        None => false,
    }
}
