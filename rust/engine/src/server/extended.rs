//! A WebSocket to an endpoint over HTTP/2: an extended CONNECT (RFC 8441).

use super::exchange::Exchange;
use crate::error::{Refusal, refusal};
use crate::http::ResponseHead;
use crate::io::Stream;
use crate::io::h2::H2;
use crate::snapshot::Deflate;
use crate::upstream::{Crossing, Link, Permit, Question, response_head, was_untouched};
use crate::ws::handshake::{self, Offered};

/// What an endpoint has said.
pub enum Asked {
    Answered {
        link: Link,
        head: Box<ResponseHead>,
        offered: Offered,
    },
    /// It takes no WebSockets over HTTP/2 after all, and HTTP/1.1 will do.
    NotOverH2(Permit),
}

/// Sends an extended CONNECT and waits for its answer.
///
/// # Errors
/// The refusal for the client.
pub async fn ask(exchange: &Exchange, is_tls: bool, crossing: Crossing) -> Result<Asked, Refusal> {
    let settings = exchange.websocket();
    let (subprotocols, deflate) = (settings.subprotocols.as_deref(), settings.deflate == Deflate::Pass);
    let rules = handshake::OfferRules { key: None, subprotocols, deflate };
    let (fields, offered) = handshake::offer_fields(&exchange.head.fields, &rules);
    let fields = exchange.request_fields(fields, is_tls, &crossing.permit.endpoint().host);
    let protocol = Some("websocket");
    let question = Question { method: b"CONNECT", target: &exchange.target, fields: &fields, protocol };
    let (response, send) = crossing.open(&question, false)?;
    let response = response.await;
    crossing.place.answered();
    let Crossing { place, permit, or_h1 } = crossing;
    match response {
        Ok(response) if or_h1 && is_refusal(response.status().as_u16()) => Ok(Asked::NotOverH2(permit)),
        Ok(response) => {
            let head = Box::new(response_head(&response, response.body().is_end_stream(), b"CONNECT"));
            let stream = H2::new(send, response.into_body()).with(place);
            let link = Link { stream: Stream::H2(Box::new(stream)), permit, tls: None, reused: false };
            Ok(Asked::Answered { link, head, offered })
        }
        Err(error) if or_h1 && error.is_reset() && !was_untouched(&error) => Ok(Asked::NotOverH2(permit)),
        Err(_) => Err(refusal::UPSTREAM_LOST),
    }
}

/// Answers of servers that advertise extended CONNECT and do not mean it. 401, 403 and 404 are the application's.
fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 405 | 501)
}
