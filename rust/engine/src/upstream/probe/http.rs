//! A request, and the status of its answer.

use std::future::poll_fn;

use super::{Failure, Probe, leave, no_answer};
use crate::http::ResponseHead;
use crate::http::write::write_request;
use crate::snapshot::HttpCheck;
use crate::upstream::{Link, Question, Reached, ResponseReader, Wish};

impl Probe<'_> {
    pub(super) async fn ask_http(&self, check: &HttpCheck) -> Result<(), Failure> {
        let mut fields = self.fields(check.host.as_deref(), &check.headers);
        let (method, target) = (check.method.as_bytes(), check.path.as_bytes());
        let head = match self.reach(Wish::Request { kept: false }).await? {
            Reached::Link(mut link) => {
                fields.push(b"Connection", b"close");
                let mut bytes = Vec::with_capacity(256);
                write_request(&mut bytes, method, target, &fields);
                let head = ask_link(&mut link, &bytes, method == b"HEAD").await?.0;
                leave(link.stream);
                head
            }
            Reached::Crossing(crossing) => {
                let question = Question { method, target, fields: &fields, protocol: None };
                let mut awaited = crossing.open(&question, true).map_err(|refusal| refusal.text)?;
                awaited.final_head().await.map_err(|error| no_answer(&error))?
            }
        };
        let is_good = check.statuses.iter().any(|(first, last)| (*first..=*last).contains(&head.status));
        if is_good { Ok(()) } else { Err(format!("HTTP {}", head.status)) }
    }
}

/// Sends a request over HTTP/1.1 and waits for the head of its answer; returns what came behind it, too. A 101 is
/// final.
pub(super) async fn ask_link(
    link: &mut Link,
    request: &[u8],
    is_head: bool,
) -> Result<(ResponseHead, Vec<u8>), Failure> {
    link.stream.write_all(request).await.map_err(|_| "the connection was lost before the answer")?;
    let mut reader = ResponseReader::default();
    loop {
        let head = poll_fn(|cx| reader.poll_head(cx, &mut link.stream, is_head)).await;
        let head = head.map_err(|error| no_answer(&error))?;
        if head.status == 101 || !(100..200).contains(&head.status) {
            return Ok((head, reader.rest));
        }
    }
}
