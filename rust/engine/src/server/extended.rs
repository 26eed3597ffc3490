//! A WebSocket to an endpoint over HTTP/2 or HTTP/3: an extended CONNECT (RFC 8441, RFC 9220).

use super::exchange::Exchange;
use crate::error::{Refusal, refusal};
use crate::http::ResponseHead;
use crate::snapshot::Deflate;
use crate::upstream::{Crossing, HeadError, Link, Permit, Question, refuses_extended};
use crate::ws::handshake::{self, Offered};

/// What an endpoint has said.
pub enum Asked {
    Answered {
        link: Link,
        head: Box<ResponseHead>,
        offered: Offered,
    },
    /// It takes no WebSockets in this way after all, and HTTP/1.1 will do.
    OnlyOverH1(Permit),
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
    let mut awaited = crossing.open(&question, false)?;
    let or_h1 = awaited.crossing.or_h1;
    match awaited.final_head().await {
        Ok(head) if or_h1 && refuses_extended(head.status) => Ok(Asked::OnlyOverH1(awaited.crossing.permit)),
        Ok(head) => {
            let link = awaited.into_link().ok_or(refusal::UPSTREAM_LOST)?;
            Ok(Asked::Answered { link, head: Box::new(head), offered })
        }
        // Reset, and not because it goes.
        Err(HeadError::Lost { unanswered: false }) if or_h1 => Ok(Asked::OnlyOverH1(awaited.crossing.permit)),
        Err(HeadError::Malformed(text)) => Err(Refusal { text, ..refusal::BAD_RESPONSE }),
        Err(HeadError::Lost { .. } | HeadError::Untouched) => Err(refusal::UPSTREAM_LOST),
    }
}
