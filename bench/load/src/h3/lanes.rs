//! What one stream, or one request after the other, does.

use std::sync::Arc;
use std::time::Instant;

use quinn::{RecvStream, SendStream};

use super::message::{DATA, HEADERS, connect, framed, get, is_ok, read_header};
use super::session::Session;
use super::{Fault, Tally};
use crate::drive::Conversation;
use crate::echo::Echo;
use crate::responder::body;
use crate::upgrade::Place;

pub enum Lane {
    WebSocket { send: SendStream, answers: Answers, echo: Echo },
    Requests { connection: quinn::Connection, request: Vec<u8>, body: Vec<u8> },
}

impl Lane {
    /// Opens a WebSocket.
    pub async fn websocket(session: &Session, place: &Place, size: usize) -> Result<Self, Fault> {
        if !session.extended_connect {
            return Err("the peer takes no WebSockets over HTTP/3".into());
        }
        let (mut send, receive) = session.connection.open_bi().await?;
        send.write_all(&connect(place)).await?;
        let mut answers = Answers { receive, kept: Vec::new(), used: 0 };
        answers.head().await?;
        Ok(Self::WebSocket { send, answers, echo: Echo::new(size) })
    }

    pub fn requests(session: &Session, place: &Place, size: usize) -> Self {
        let path = if size == 0 { place.path.clone() } else { format!("/bytes/{size}") };
        let request = get(&Place { host: place.host.clone(), path });
        Self::Requests { connection: session.connection.clone(), request, body: body(size) }
    }

    /// One operation after the other, until one fails.
    pub async fn run(mut self, tally: Arc<Tally>) -> Result<(), Fault> {
        loop {
            let began = Instant::now();
            match &mut self {
                Self::WebSocket { send, answers, echo } => converse(send, answers, echo).await?,
                Self::Requests { connection, request, body } => ask(connection, request, body).await?,
            }
            tally.count(began);
        }
    }
}

async fn converse(send: &mut SendStream, answers: &mut Answers, echo: &mut Echo) -> Result<(), Fault> {
    let mut message = Vec::new();
    echo.begin(&mut message);
    send.write_all(&framed(DATA, &message)).await?;
    loop {
        let bytes = answers.data().await?.ok_or("a WebSocket was ended")?;
        let complete = echo.receive(&bytes, &mut message).map_err(|error| error.to_string())?;
        if complete {
            return Ok(());
        }
    }
}

async fn ask(connection: &quinn::Connection, request: &[u8], body: &[u8]) -> Result<(), Fault> {
    let (mut send, receive) = connection.open_bi().await?;
    send.write_all(request).await?;
    send.finish()?;
    let mut answers = Answers { receive, kept: Vec::new(), used: 0 };
    answers.head().await?;
    let mut rest = body;
    while let Some(bytes) = answers.data().await? {
        rest = rest.strip_prefix(&bytes[..]).ok_or("an answer with another body than the upstream's")?;
    }
    if rest.is_empty() { Ok(()) } else { Err("an answer that ends before its body does".into()) }
}

/// The frames that come on a stream.
pub struct Answers {
    receive: RecvStream,
    kept: Vec<u8>,
    used: usize,
}

impl Answers {
    /// The head of an answer, which must be a 200.
    async fn head(&mut self) -> Result<(), Fault> {
        match self.frame().await? {
            Some((HEADERS, block)) if is_ok(&block) => Ok(()),
            Some((HEADERS, _)) => Err("not the answer expected: another status than 200".into()),
            other => Err(format!("not the answer expected: {other:?}").into()),
        }
    }

    /// The content of the next DATA frame; None at the end.
    async fn data(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        match self.frame().await? {
            Some((DATA, content)) => Ok(Some(content)),
            Some((kind, _)) => Err(format!("a frame of type {kind}").into()),
            None => Ok(None),
        }
    }

    async fn frame(&mut self) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        loop {
            let bytes = &self.kept[self.used..];
            if let Some((kind, header, length)) = read_header(bytes)
                && bytes.len() >= header + length
            {
                let payload = bytes[header..header + length].to_vec();
                self.used += header + length;
                return Ok(Some((kind, payload)));
            }
            match self.receive.read_chunk(64 << 10, true).await? {
                Some(chunk) => {
                    self.kept.drain(..self.used);
                    self.used = 0;
                    self.kept.extend_from_slice(&chunk.bytes);
                }
                None if bytes.is_empty() => return Ok(None),
                None => return Err("a stream that ends within a frame".into()),
            }
        }
    }
}
