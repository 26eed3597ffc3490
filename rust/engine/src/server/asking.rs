//! From the first byte of a plain request to the head of its answer.
//!
//! The body goes up while we wait for the answer, because an upstream may answer before it has read everything. Who is
//! late is whoever everybody waits for: the client, when all it sent has been passed on and its body goes on
//! (`timeouts.body` of the listener, 408); else the upstream (`timeouts.request` of the route, 504). Each part of the
//! body that moves on begins both anew. A request without a body has one limit over all tries, which is the caller's.
//!
//! `Expect: 100-continue` is the upstream's to answer (RFC 9110 §10.1.1). One that says nothing, because it is old or
//! waits for the body itself, must not keep the client waiting: after [`CONTINUE_AFTER`] we let it go on.

use std::task::{Context, Poll, ready};

use super::client::Client;
use super::exchange::Exchange;
use super::origin::Origin;
use super::presence::Moment;
use super::proxy::{Asked, Failed};
use super::pump::{Pump, Stuck};
use crate::error::{Refusal, refusal};
use crate::http::write::strip_connection_fields;
use crate::http::{Fields, ResponseHead};
use crate::io::clock::{self, Millis};
use crate::upstream::HeadError;

/// How long a client that asked for a `100 Continue` waits for the upstream's word.
const CONTINUE_AFTER: Millis = 1_000;

/// A request on its way.
pub struct Asking<'a, 'c> {
    pub client: &'a mut Client<'c>,
    pub exchange: &'a Exchange,
    pub origin: Origin,
    pub upload: Pump,
    /// The upstream may take more of the body.
    is_uploading: bool,
    /// The client has been told to go on, by the upstream or by us.
    may_continue: bool,
    waiting: Waiting,
}

/// For whom, since when.
struct Waiting {
    whom: Whom,
    since: Millis,
    /// Bytes that had moved by then.
    moved: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// The upstream: to take the body, or to answer.
    Upstream,
    /// The client, for more of its body.
    Client,
    /// The upstream, while the client waits for its leave to send the body.
    Leave,
}

enum Event {
    Head(ResponseHead),
    Late(Whom),
}

impl<'a, 'c> Asking<'a, 'c> {
    pub fn new(client: &'a mut Client<'c>, exchange: &'a Exchange, origin: Origin, upload: Pump) -> Self {
        let waiting = Waiting { whom: Whom::Upstream, since: clock::now(), moved: 0 };
        Self { client, exchange, origin, upload, is_uploading: true, may_continue: false, waiting }
    }

    /// Waits for the final answer; interim ones go to the client as they come.
    pub async fn answer(mut self) -> Result<Box<Asked>, Failed> {
        loop {
            match std::future::poll_fn(|cx| self.poll(cx)).await? {
                Event::Head(head) if head.status == 101 => return Err(Failed::Refused(refusal::BAD_RESPONSE)),
                Event::Head(head) if head.status < 200 => self.pass_interim(&head).await?,
                Event::Head(head) => {
                    let Self { origin, upload, .. } = self;
                    let (link, reader) = origin.answered().map_err(Failed::Refused)?;
                    return Ok(Box::new(Asked { link, reader, head, upload }));
                }
                Event::Late(Whom::Leave) => self.let_go_on().await?,
                Event::Late(Whom::Client) => return Err(Failed::Refused(refusal::BODY_TIMEOUT)),
                Event::Late(Whom::Upstream) => return Err(Failed::Refused(refusal::REQUEST_TIMEOUT)),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failed>> {
        if self.is_uploading {
            self.poll_upload(cx)?;
        }
        // Also right behind the end of the body: what the client does meanwhile would else wake nobody.
        if (!self.is_uploading || self.client.can_reset()) && self.client.poll_gone(cx, self.moment()).is_ready() {
            return Poll::Ready(Err(Failed::Client));
        }
        match self.origin.poll_head(cx, &self.exchange.head.method) {
            Poll::Ready(Ok(head)) => Poll::Ready(Ok(Event::Head(head))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.explain(error))),
            Poll::Pending => self.poll_late(cx).map(|whom| Ok(Event::Late(whom))),
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        match self.upload.poll(cx, self.client.source(), self.origin.sink()) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.client.give_back(&mut self.upload.input),
            // The upstream wants no more of it; perhaps it has said why.
            Poll::Ready(Err(Stuck::Sink)) => {}
            Poll::Ready(Err(Stuck::Source)) => return Err(Failed::Client),
            Poll::Ready(Err(Stuck::Malformed)) => return Err(Failed::Refused(refusal::BODY_CUT)),
            Poll::Ready(Err(Stuck::TooLarge)) => return Err(Failed::Refused(refusal::BODY_TOO_LARGE)),
        }
        self.is_uploading = false;
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment::Unanswered { interim: self.exchange.head.minor == 1 }
    }

    fn explain(&self, error: HeadError) -> Failed {
        match error {
            HeadError::Lost { unanswered: true } if self.origin.is_reused() && self.exchange.may_repeat() => {
                Failed::Stale
            }
            // Nothing was done, whatever was asked; but a body that has gone on its way is not there any more.
            HeadError::Untouched if self.exchange.head.body.is_empty() => Failed::Stale,
            HeadError::Lost { .. } | HeadError::Untouched => Failed::Refused(refusal::UPSTREAM_LOST),
            HeadError::Malformed(text) => Failed::Refused(Refusal { text, ..refusal::BAD_RESPONSE }),
        }
    }

    /// Ready when somebody has been waited for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Whom> {
        if self.exchange.head.body.is_empty() {
            return Poll::Pending;
        }
        let (whom, moved) = (self.whom(), self.upload.moved());
        if whom != self.waiting.whom || moved != self.waiting.moved {
            self.waiting = Waiting { whom, since: clock::now(), moved };
        }
        let Some(limit) = self.patience(whom) else { return Poll::Pending };
        ready!(self.client.alarm().poll(cx, self.waiting.since + limit));
        self.waiting.since = clock::now();
        Poll::Ready(whom)
    }

    fn whom(&self) -> Whom {
        match () {
            () if !self.is_uploading || !self.upload.wants_more() => Whom::Upstream,
            () if self.exchange.head.expect_continue && !self.may_continue && !self.upload.has_begun() => Whom::Leave,
            () => Whom::Client,
        }
    }

    fn patience(&self, whom: Whom) -> Option<Millis> {
        match whom {
            Whom::Upstream => self.exchange.forward().request_timeout,
            Whom::Client => self.exchange.body_timeout(),
            Whom::Leave => Some(CONTINUE_AFTER),
        }
    }

    /// 100, 102 and 103 go through as they come, to clients that know them.
    async fn pass_interim(&mut self, head: &ResponseHead) -> Result<(), Failed> {
        // Where we have let the client go on, the upstream's leave comes too late to mean anything.
        let is_known = head.status == 100 && self.may_continue;
        self.may_continue |= head.status == 100;
        if self.exchange.head.minor == 0 || is_known {
            return Ok(());
        }
        let mut fields = head.fields.clone();
        strip_connection_fields(&mut fields);
        self.send_interim(head.status, Some(&head.reason), &fields).await
    }

    async fn let_go_on(&mut self) -> Result<(), Failed> {
        self.may_continue = true;
        self.send_interim(100, None, &Fields::new()).await
    }

    async fn send_interim(&mut self, status: u16, reason: Option<&[u8]>, fields: &Fields) -> Result<(), Failed> {
        self.client.send_interim(status, reason, fields).await.map_err(|_| Failed::Client)
    }
}
