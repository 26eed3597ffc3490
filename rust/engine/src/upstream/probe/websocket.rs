//! A WebSocket that is opened, asked whether it lives, and closed: handshake, Ping and Pong, Close 1000 and its answer.
//!
//! What a server says meanwhile is its own affair: its messages are passed over, its Pings answered. But it is held to
//! RFC 6455 as the relay holds it.

use super::http::ask_link;
use super::{Failure, Probe, explain, leave, no_answer};
use crate::error::refusal;
use crate::http::write::write_request;
use crate::http::{Fields, ResponseHead};
use crate::io::{Stream, random};
use crate::snapshot::{HttpVersion, WebSocketCheck};
use crate::upstream::{Crossing, HeadError, Link, Permit, Question, Reached, Wish, refuses_extended};
use crate::ws::close;
use crate::ws::frame::{write_close, write_ping, write_pong};
use crate::ws::handshake::{self, OfferRules};
use crate::ws::observer::{Control, ControlOpcode, Event, From, Observer, Rules, Stop};

/// What came of an extended CONNECT.
enum Crossed {
    Open(Stream),
    /// HTTP/1.1 will do.
    OnlyOverH1(Permit),
}

impl Probe<'_> {
    pub(super) async fn ask_websocket(&self, check: &WebSocketCheck) -> Result<(), Failure> {
        let (stream, early) = self.open(check).await?;
        let mut talk = Talk::new(stream, early);
        self.awaited.set("pong");
        talk.ping().await?;
        self.awaited.set("Close");
        talk.close().await?;
        leave(talk.stream);
        Ok(())
    }

    /// An open WebSocket, and the bytes that came with the answer.
    async fn open(&self, check: &WebSocketCheck) -> Result<(Stream, Vec<u8>), Failure> {
        let crossing = match self.reach(Wish::WebSocket { over: None }).await? {
            Reached::Link(link) => return self.open_h1(check, link).await,
            Reached::Crossing(crossing) => crossing,
        };
        let version = crossing.version();
        match self.open_extended(check, crossing).await? {
            Crossed::Open(stream) => Ok((stream, Vec::new())),
            Crossed::OnlyOverH1(permit) => self.fall_back(check, permit, version).await,
        }
    }

    async fn fall_back(
        &self,
        check: &WebSocketCheck,
        permit: Permit,
        version: HttpVersion,
    ) -> Result<(Stream, Vec<u8>), Failure> {
        let link = self.twin.fall_back(permit, version, &self.trip()).await.map_err(|refusal| explain(&refusal))?;
        self.open_h1(check, link).await
    }

    async fn open_h1(&self, check: &WebSocketCheck, mut link: Link) -> Result<(Stream, Vec<u8>), Failure> {
        let key = handshake::fresh_key(random::bytes());
        let rules = OfferRules { key: Some(&key), subprotocols: None, deflate: false };
        let (fields, offered) = handshake::offer_fields(&self.offer(check), &rules);
        let mut bytes = Vec::with_capacity(512);
        write_request(&mut bytes, b"GET", check.path.as_bytes(), &fields);
        let (head, early) = ask_link(&mut link, &bytes, false).await?;
        if head.status != 101 {
            leave(link.stream);
            return Err(format!("HTTP {}", head.status));
        }
        let checked = handshake::check_answer(head.status, &head.fields, &handshake::accept_key(&key), &offered);
        checked.map_err(handshake::Fake::text)?;
        Ok((link.stream, early))
    }

    /// By an extended CONNECT (RFC 8441, RFC 9220).
    async fn open_extended(&self, check: &WebSocketCheck, crossing: Crossing) -> Result<Crossed, Failure> {
        let rules = OfferRules { key: None, subprotocols: None, deflate: false };
        let (fields, offered) = handshake::offer_fields(&self.offer(check), &rules);
        let protocol = Some("websocket");
        let question = Question { method: b"CONNECT", target: check.path.as_bytes(), fields: &fields, protocol };
        let mut awaited = crossing.open(&question, false).map_err(|refusal| refusal.text)?;
        let or_h1 = awaited.crossing.or_h1;
        let head: ResponseHead = match awaited.final_head().await {
            Ok(head) if or_h1 && refuses_extended(head.status) => {
                return Ok(Crossed::OnlyOverH1(awaited.crossing.permit));
            }
            Err(HeadError::Lost { unanswered: false }) if or_h1 => {
                return Ok(Crossed::OnlyOverH1(awaited.crossing.permit));
            }
            answer => answer.map_err(|error| no_answer(&error))?,
        };
        if !(200..300).contains(&head.status) {
            return Err(format!("HTTP {}", head.status));
        }
        handshake::check_choices(&head.fields, &offered).map_err(handshake::Fake::text)?;
        let link = awaited.into_link().ok_or(refusal::UPSTREAM_LOST.text)?;
        Ok(Crossed::Open(link.stream))
    }

    fn offer(&self, check: &WebSocketCheck) -> Fields {
        let mut fields = self.fields(check.host.as_deref(), &check.headers);
        if !check.subprotocols.is_empty() {
            fields.push(b"Sec-WebSocket-Protocol", check.subprotocols.join(", ").as_bytes());
        }
        fields
    }
}

/// An open WebSocket.
struct Talk {
    stream: Stream,
    /// Received and not looked at.
    read: Vec<u8>,
    observer: Observer,
}

impl Talk {
    fn new(stream: Stream, read: Vec<u8>) -> Self {
        let observer = Observer::new(Rules { from: From::Server, deflate: false, max_message: None });
        Self { stream, read, observer }
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        let payload: [u8; 8] = random::bytes();
        self.say(|out, mask| write_ping(out, mask, &payload)).await?;
        loop {
            let control = self.control("pong").await?;
            match control.opcode {
                ControlOpcode::Pong if control.payload() == payload => return Ok(()),
                // One that nobody asked for (RFC 6455 §5.5.3).
                ControlOpcode::Pong => {}
                ControlOpcode::Ping => self.answer(&control).await?,
                ControlOpcode::Close => return Err(closed_early(control.code)),
            }
        }
    }

    async fn close(&mut self) -> Result<(), Failure> {
        self.say(|out, mask| write_close(out, mask, close::NORMAL, "")).await?;
        while self.control("Close").await?.opcode != ControlOpcode::Close {}
        Ok(())
    }

    async fn answer(&mut self, ping: &Control) -> Result<(), Failure> {
        self.say(|out, mask| write_pong(out, mask, ping.payload())).await
    }

    async fn say(&mut self, write: impl FnOnce(&mut Vec<u8>, Option<[u8; 4]>)) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(64);
        write(&mut out, Some(random::bytes()));
        self.stream.write_all(&out).await.map_err(|_| "the connection was lost".to_owned())
    }

    /// The next control frame.
    async fn control(&mut self, awaited: &str) -> Result<Control, Failure> {
        loop {
            let seen = self.observer.observe(&self.read, Stop::Never);
            match seen.event {
                Event::Control(control) => {
                    self.read.drain(..seen.forward + control.size);
                    return Ok(control);
                }
                Event::Violation(violation) => return Err(violation.text().to_owned()),
                _ => drop(self.read.drain(..seen.forward)),
            }
            if !matches!(self.stream.read_more(&mut self.read).await, Ok(1..)) {
                return Err(format!("the connection was lost before its {awaited}"));
            }
        }
    }
}

fn closed_early(code: Option<u16>) -> Failure {
    match code {
        Some(code) => format!("closed with {code} before its pong"),
        None => "closed before its pong".to_owned(),
    }
}
