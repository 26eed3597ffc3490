//! What opens a WebSocket and what opens a tunnel have in common: an upstream is asked, in its time, while the client
//! waits.

use std::future::poll_fn;
use std::pin::pin;

use super::client::Client;
use super::exchange::Exchange;
use super::presence;
use super::tries;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::upstream::Tries;

/// Has `ask` go from endpoint to endpoint, for as long as the route lets that take. An answer that is worth another try
/// it leaves in its last argument: that is the client's, if nothing better comes. None where the client has gone.
pub async fn answer<T>(
    worker: &Worker,
    client: &mut Client<'_>,
    exchange: &mut Exchange,
    ask: impl AsyncFnOnce(&mut Exchange, &mut Tries, &mut Option<T>) -> Result<T, Refusal>,
) -> Option<Result<T, Refusal>> {
    let patience = exchange.forward().handshake_timeout;
    let (mut tries, mut held) = (tries::begin(client, exchange), None);
    let mut alarm = std::mem::take(client.alarm());
    let answered = {
        let asking = pin!(ask(exchange, &mut tries, &mut held));
        tokio::select! {
            biased;
            answered = alarm.within(patience, asking) => Some(answered),
            () = left(client) => None,
        }
    };
    *client.alarm() = alarm;
    let late = |_| Err(tries.late(refusal::HANDSHAKE_TIMEOUT, &worker.shared.events));
    let answered = answered.map(|answered| answered.unwrap_or_else(late));
    tries::end(worker, exchange, &tries);
    answered.map(|answered| answered.or_else(|refusal| held.ok_or(refusal)))
}

/// Returns when the client has gone. Over HTTP/2 and HTTP/3 the windows hold back what it sends ahead.
async fn left(client: &mut Client<'_>) {
    match client {
        Client::H1(session) => presence::ended(&mut session.stream, &mut session.buffer).await,
        Client::H2(request) => poll_fn(|cx| request.poll_gone(cx)).await,
        Client::H3(request) => poll_fn(|cx| request.poll_gone(cx)).await,
    }
}
