//! `respond: echo`: a server inside the gateway, for trying things out and for tests.
//!
//! A WebSocket gets a relay like any other, so that limits, pings and counters are the real ones; its upstream is a
//! socket pair with an echo at the other end.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::client::{Client, Gone};
use super::connection::Step;
use super::exchange::Exchange;
use super::lifecycle::Grant;
use super::plan::Answer;
use super::websocket::tell_open;
use super::whole::{self, Unread};
use super::worker::Worker;
use crate::error::refusal;
use crate::http::Fields;
use crate::io::{Raw, Stream, room};
use crate::ws::frame::{Header, Opcode, mask_in_place, write_header};
use crate::ws::handshake::{self, Accepted};

/// The most that an echoed body may have: it is held, because its length goes first.
const BODY_LIMIT: u64 = 1024 * 1024;

/// Sends a request's body back.
pub async fn request(worker: &Rc<Worker>, client: &mut Client<'_>, exchange: &Exchange) -> Step {
    match whole::read(client, exchange, BODY_LIMIT).await {
        Ok(body) => {
            let content_type = exchange.head.fields.first("content-type").unwrap_or(b"application/octet-stream");
            let content_type = String::from_utf8_lossy(content_type).into_owned();
            let received = body.len() as u64;
            let answer = Answer { status: 200, fields: Fields::new(), content_type, body, received };
            exchange.answer(worker, client, &answer).await
        }
        Err(Unread::Gone) => exchange.abandoned(worker),
        Err(Unread::Refused(refusal)) => exchange.refuse(worker, client, &refusal).await,
    }
}

/// Accepts a WebSocket and sends its messages back.
pub async fn websocket(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    exchange: Box<Exchange>,
    offer: &handshake::Offer,
) -> Step {
    let Ok((near, far)) = UnixStream::pair().and_then(|(near, far)| Ok((near, room::claim(far)?))) else {
        return exchange.refuse(worker, client, &refusal::OVERLOAD).await;
    };
    let accepted = Accepted { subprotocol: exchange.first_subprotocol(), deflate: None };
    let fields = handshake::answer_fields(&Fields::new(), offer.accept().as_ref(), &accepted);
    if let Err(Gone) = tell_open(client, None, &fields).await {
        return exchange.abandoned(worker);
    }
    tokio::task::spawn_local(echo(far));
    let upstream = Stream::Raw(Raw::Unix(near));
    Step::Relay(Box::new(Grant { exchange, accepted, upstream, upstream_early: Vec::new(), endpoint: None }))
}

/// The server's end of the pair. What arrives has passed the relay's checks.
async fn echo(mut stream: UnixStream) {
    let mut input = Vec::new();
    let mut output = Vec::new();
    let mut under_way: Option<Payload> = None;
    while !matches!(stream.read_buf(&mut input).await, Ok(0) | Err(_)) {
        let closed = answer(&mut input, &mut output, &mut under_way);
        if stream.write_all(&output).await.is_err() || closed {
            return;
        }
        output.clear();
    }
}

/// The payload of a data frame that has not come whole yet.
struct Payload {
    left: u64,
    key: [u8; 4],
    offset: usize,
}

/// Answers everything that is in `input`; true after a Close.
fn answer(input: &mut Vec<u8>, output: &mut Vec<u8>, under_way: &mut Option<Payload>) -> bool {
    loop {
        if let Some(payload) = under_way {
            let taken = payload.left.min(input.len() as u64) as usize;
            let start = output.len();
            output.extend(input.drain(..taken));
            mask_in_place(&mut output[start..], payload.key, payload.offset);
            payload.left -= taken as u64;
            payload.offset += taken;
            if payload.left > 0 {
                return false;
            }
            *under_way = None;
        }
        let Ok(Some(header)) = Header::decode(input) else { return false };
        if header.opcode.is_control() && input.len() < header.size() + header.length as usize {
            return false;
        }
        input.drain(..header.size());
        let opcode = if header.opcode == Opcode::Ping { Opcode::Pong } else { header.opcode };
        let key = header.mask.unwrap_or_default();
        if header.opcode == Opcode::Pong {
            input.drain(..header.length as usize);
            continue;
        }
        write_header(output, &Header { opcode, mask: None, ..header });
        *under_way = Some(Payload { left: header.length, key, offset: 0 });
        if header.opcode == Opcode::Close {
            answer(input, output, under_way);
            return true;
        }
    }
}
