//! Two readings of one connection: ours, and that of hyper's server. An upstream may be built on the latter, and what
//! it reads must be what we meant: each request that we take has the same method, target, fields, body and trailers
//! there, and the next one begins at the same byte, or else neither sees a next one.
//!
//! The differences that are allowed:
//!
//! - We refuse what hyper takes. Then we close, and what hyper would have read behind it does not matter.
//! - Where Connection lists both `close` and `keep-alive`, or has bytes beyond ASCII, either may end the connection
//!   while the other goes on: we let `close` win, hyper the later field, and it looks into ASCII only.
//! - hyper refuses a target that `http::Uri` does not take (`<`, `>`, `` ` `` and others that RFC 3986 has not, which
//!   browsers send; an odd port in an absolute target); we pass the bytes on.
//! - An absolute target of `OPTIONS` without a path is `*` to us (RFC 9112 §3.2.4), and `/` to hyper.
//! - Content-Length goes on without leading zeros.
//! - Trailers that may not come so late (RFC 9110 §6.5.1) are dropped by us.

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::http::{HeaderMap, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use tidegate_engine::http::{BodyReader, BodyStep, Fields, Method, Parsed, RequestHead, parse_request};

const LIMIT: usize = 16 * 1024;

/// hyper is asked to go on this often before we call it stuck: its input is all there from the beginning.
const PATIENCE: usize = 100_000;

fuzz_target!(|input: &[u8]| {
    let (ours, end) = read_ours(input);
    if ours.is_empty() && end == End::Refused {
        return;
    }
    let theirs = read_theirs(input);
    for (at, mine) in ours.iter().enumerate() {
        match theirs.get(at) {
            Some(other) => compare(mine, other),
            None => {
                let has_ended = at > 0 && has_odd_connection(&ours[at - 1]);
                return assert!(has_ended || hyper_refuses(mine), "only we take {mine:?}");
            }
        }
    }
    if end == End::Waiting {
        assert_eq!(theirs.len(), ours.len(), "we wait for more, and hyper reads {:?}", theirs.last());
    }
    if end == End::Closed && theirs.len() > ours.len() {
        assert!(ours.last().is_some_and(has_odd_connection), "we end, and hyper reads {:?}", theirs.last());
    }
});

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// One request, as either side reads it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: Vec<u8>,
    /// As received.
    target: Vec<u8>,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    minor: u8,
    fields: Pairs,
    body: Vec<u8>,
    trailers: Pairs,
}

/// Why there are no more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    Closed,
    /// More bytes must come, or none is left.
    Waiting,
}

fn compare(mine: &Seen, other: &Seen) {
    assert_eq!((&mine.method, mine.minor), (&other.method, other.minor));
    assert_eq!(mine.authority, other.authority);
    if !(mine.path == b"*" && mine.authority.is_some()) {
        assert_eq!((&mine.path, &mine.query), (&other.path, &other.query));
    }
    assert_eq!(mine.fields, other.fields);
    assert_eq!(mine.body, other.body);
    let kept: Pairs = other.trailers.iter().filter(|(name, _)| has(&mine.trailers, name)).cloned().collect();
    assert_eq!(mine.trailers, kept);
}

fn has(fields: &Pairs, name: &[u8]) -> bool {
    fields.iter().any(|(each, _)| each == name)
}

fn hyper_refuses(mine: &Seen) -> bool {
    Uri::try_from(&mine.target[..]).is_err()
}

fn has_odd_connection(seen: &Seen) -> bool {
    let values: Vec<&Vec<u8>> = seen.fields.iter().filter(|(name, _)| name == b"connection").map(|(_, v)| v).collect();
    let lists = |option: &str| {
        let mut options = values.iter().flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        options.any(|each| each.eq_ignore_ascii_case(option.as_bytes()))
    };
    !values.iter().all(|value| value.is_ascii()) || (lists("close") && lists("keep-alive"))
}

/// Sorted by name, each name's values in their order; a length as a number.
fn pairs<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Pairs {
    let mut pairs: Pairs = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    for (name, value) in &mut pairs {
        if name == b"content-length" {
            let zeros = value.iter().take_while(|digit| **digit == b'0').count();
            value.drain(..zeros.min(value.len().saturating_sub(1)));
        }
    }
    pairs.sort_by(|one, two| one.0.cmp(&two.0));
    pairs
}

// ---- ours ----------------------------------------------------------------------------------------------------------

fn read_ours(input: &[u8]) -> (Vec<Seen>, End) {
    let (mut seen, mut rest) = (Vec::new(), input);
    loop {
        match parse_request(rest, LIMIT) {
            Err(_) => return (seen, End::Refused),
            Ok(Parsed::Partial) => return (seen, End::Waiting),
            Ok(Parsed::Complete { head, consumed }) => match read_body(&head, &rest[consumed..]) {
                Err(end) => return (seen, end),
                Ok((body, trailers, taken)) => {
                    let goes_on = head.keep_alive;
                    // An empty line may stand first.
                    let line = rest.strip_prefix(b"\r\n").unwrap_or(rest);
                    seen.push(our_view(&head, line, body, &trailers));
                    if !goes_on {
                        return (seen, End::Closed);
                    }
                    rest = &rest[consumed + taken..];
                }
            },
        }
    }
}

fn our_view(head: &RequestHead, line: &[u8], body: Vec<u8>, trailers: &Fields) -> Seen {
    Seen {
        method: head.method.as_bytes().to_vec(),
        target: line.split(|byte| *byte == b' ').nth(1).unwrap_or_default().to_vec(),
        path: head.target.path().to_vec(),
        query: head.target.query().map(<[u8]>::to_vec),
        authority: head.target.authority().map(<[u8]>::to_vec),
        minor: head.minor,
        fields: pairs(head.fields.iter()),
        body,
        trailers: pairs(trailers.iter()),
    }
}

fn read_body(head: &RequestHead, input: &[u8]) -> Result<(Vec<u8>, Fields, usize), End> {
    assert_ne!(head.method, Method::Connect);
    let mut reader = BodyReader::new(head.body);
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        match reader.next(&input[at..]).map_err(|_| End::Refused)? {
            BodyStep::Data(range) => {
                content.extend_from_slice(&input[at..][range.clone()]);
                at += range.end;
            }
            BodyStep::More => return Err(End::Waiting),
            BodyStep::Done { consumed } => return Ok((content, reader.trailers().clone(), at + consumed)),
        }
    }
}

// ---- hyper's -------------------------------------------------------------------------------------------------------

fn read_theirs(input: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            if let Some(request) = their_view(request).await {
                seen.borrow_mut().push(request);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let memory = Memory { input: input.to_vec(), at: 0 };
    // Without `half_close` hyper drops what it is at when the input ends.
    let mut connection = pin!(http1::Builder::new().half_close(true).serve_connection(memory, service));
    let mut cx = Context::from_waker(Waker::noop());
    let is_over = (0..PATIENCE).any(|_| connection.as_mut().poll(&mut cx).is_ready());
    assert!(is_over, "hyper is stuck");
    seen.take()
}

/// None when the body is malformed or cut short.
async fn their_view(request: Request<Incoming>) -> Option<Seen> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().map(of_map).unwrap_or_default();
    Some(Seen {
        method: head.method.as_str().as_bytes().to_vec(),
        target: Vec::new(),
        path: head.uri.path().as_bytes().to_vec(),
        query: head.uri.query().map(|query| query.as_bytes().to_vec()),
        authority: head.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec()),
        minor: u8::from(head.version == hyper::Version::HTTP_11),
        fields: of_map(&head.headers),
        body: body.to_bytes().to_vec(),
        trailers,
    })
}

fn of_map(map: &HeaderMap) -> Pairs {
    pairs(map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
}

/// A connection whose peer has said everything at once, and takes everything.
struct Memory {
    input: Vec<u8>,
    at: usize,
}

impl Read for Memory {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let count = into.remaining().min(self.input.len() - self.at);
        into.put_slice(&self.input[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
