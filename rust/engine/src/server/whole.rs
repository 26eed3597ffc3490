//! A request's body, read whole before anything is done with it.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::client::{Client, Gone};
use super::exchange::Exchange;
use super::h2::Request;
use super::h3;
use super::session::Session;
use crate::error::{Refusal, refusal};
use crate::http::{BodyReader, BodyStep, Fields};

/// Why there is no body.
pub enum Unread {
    /// The client has gone.
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads a body of at most `limit` bytes, or fewer where its route takes fewer. A client that waits for leave gets it.
pub async fn read(client: &mut Client<'_>, exchange: &Exchange, limit: u64) -> Result<Vec<u8>, Unread> {
    if exchange.head.body.is_empty() {
        return Ok(Vec::new());
    }
    let is_waiting = !matches!(client, Client::H1(session) if !session.buffer.is_empty());
    if exchange.head.expect_continue && is_waiting {
        client.send_interim(100, None, &Fields::new()).await.map_err(|Gone| Unread::Gone)?;
    }
    let limit = exchange.body_limit().map_or(limit, |least| least.min(limit));
    let read = match client {
        Client::H1(session) => read_stream(session, exchange, limit).await,
        Client::H2(request) => read_frames(request, exchange.body_timeout(), limit).await,
        Client::H3(request) => read_content(request, exchange.body_timeout(), limit).await,
    };
    Ok(read?)
}

async fn read_stream(session: &mut Session, exchange: &Exchange, limit: u64) -> Result<Vec<u8>, Refusal> {
    let mut reader = BodyReader::new(exchange.head.body);
    let mut body = Vec::new();
    loop {
        match reader.next(&session.buffer).map_err(|_| refusal::BODY_CUT)? {
            BodyStep::Data(range) => {
                body.extend_from_slice(&session.buffer[range.clone()]);
                session.consume(range.end);
            }
            BodyStep::Done { consumed } => {
                session.consume(consumed);
                return Ok(body);
            }
            BodyStep::More => {
                session.buffer.clear();
                let reading = session.stream.read_more(&mut session.buffer);
                let read = within(exchange.body_timeout(), reading).await?;
                read.ok().filter(|read| *read > 0).ok_or(refusal::BODY_CUT)?;
            }
        }
        if body.len() as u64 > limit {
            return Err(refusal::BODY_TOO_LARGE);
        }
    }
}

async fn read_frames(request: &mut Request, patience: Option<u64>, limit: u64) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    while let Some(frame) = within(patience, request.receive.data()).await? {
        let frame = frame.map_err(|_| refusal::BODY_CUT)?;
        let _ = request.receive.flow_control().release_capacity(frame.len());
        body.extend_from_slice(&frame);
        if body.len() as u64 > limit {
            return Err(refusal::BODY_TOO_LARGE);
        }
    }
    Ok(body)
}

async fn read_content(request: &mut h3::Request, patience: Option<u64>, limit: u64) -> Result<Vec<u8>, Refusal> {
    let (mut body, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let reading = poll_fn(|cx| request.receive.poll_read(cx, &mut piece));
        match within(patience, reading).await?.map_err(|_| refusal::BODY_CUT)? {
            0 => return Ok(body),
            read => body.extend_from_slice(&piece[..read]),
        }
        if body.len() as u64 > limit {
            return Err(refusal::BODY_TOO_LARGE);
        }
    }
}

async fn within<T>(patience: Option<u64>, reading: impl Future<Output = T>) -> Result<T, Refusal> {
    match patience {
        None => Ok(reading.await),
        Some(patience) => timeout(Duration::from_millis(patience), reading).await.map_err(|_| refusal::BODY_TIMEOUT),
    }
}
