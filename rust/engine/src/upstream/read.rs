//! Reading response heads off a connection to an endpoint.

use std::task::{Context, Poll, ready};

use crate::http::{Parsed, ResponseHead, Scan, resume_response};
use crate::io::{Stream, with_scratch};

/// What an answer's head may take at most.
const HEAD_LIMIT: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum HeadError {
    /// The connection ended or failed; `true` if not a byte of an answer had come.
    Lost { unanswered: bool },
    /// The endpoint has said that it did nothing with the request (RFC 9113 §8.7).
    Untouched,
    /// It is no HTTP, or breaks its rules; the text says how.
    Malformed(&'static str),
}

/// Collects bytes until a head is whole. What came behind it stays in `rest`.
#[derive(Debug, Default)]
pub struct ResponseReader {
    pub rest: Vec<u8>,
    scan: Scan,
}

impl ResponseReader {
    /// The next head: interim ones (1xx) come one by one like any other.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        request_was_head: bool,
    ) -> Poll<Result<ResponseHead, HeadError>> {
        loop {
            if let Some(head) = self.parse(request_was_head).map_err(HeadError::Malformed)? {
                return Poll::Ready(Ok(head));
            }
            let read = with_scratch(|scratch| {
                stream.poll_read(cx, scratch).map_ok(|read| {
                    self.rest.extend_from_slice(&scratch[..read]);
                    read
                })
            });
            if !matches!(ready!(read), Ok(1..)) {
                return Poll::Ready(Err(HeadError::Lost { unanswered: self.rest.is_empty() }));
            }
        }
    }

    fn parse(&mut self, request_was_head: bool) -> Result<Option<ResponseHead>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let parsed = resume_response(&mut self.scan, &self.rest, HEAD_LIMIT, request_was_head);
        match parsed.map_err(|bad| bad.text)? {
            Parsed::Partial => Ok(None),
            Parsed::Complete { head, consumed } => {
                self.rest.drain(..consumed);
                self.scan = Scan::new();
                Ok(Some(head))
            }
        }
    }
}
