//! A new connection to an endpoint: the socket, and TLS over it where the endpoint wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Endpoint;
use crate::error::{Refusal, refusal};
use crate::io::tls::{self, HandshakeError};
use crate::io::{Raw, Stream, connect};
use crate::snapshot::PeerName;
use crate::tls::{ClientTls, Mistrust};

/// Connects to `endpoint`; what fails is counted there.
///
/// # Errors
/// The refusal for the client, if no other endpoint can be tried.
pub async fn dial(endpoint: &Endpoint, tls: Option<&Arc<ClientTls>>, patience: Duration) -> Result<Stream, Refusal> {
    let dialled = timeout(patience, establish(endpoint, tls)).await.unwrap_or(Err(refusal::CONNECT_TIMEOUT));
    dialled.inspect_err(|_| endpoint.count_failure())
}

async fn establish(endpoint: &Endpoint, tls: Option<&Arc<ClientTls>>) -> Result<Stream, Refusal> {
    let raw = connect(&endpoint.target).await.map_err(|error| explain(&error))?;
    let Some(host) = &endpoint.tls else { return Ok(Stream::Raw(raw)) };
    // Never in clear text what was to be secret; the snapshot has TLS for every upstream that has such endpoints.
    let tls = tls.ok_or(refusal::UPSTREAM_TLS)?;
    // In a box, because it is some KiB, which every exchange would otherwise have room for.
    Box::pin(secure(raw, tls, host)).await.map_err(|mistrust| {
        endpoint.count_mistrust(mistrust);
        Refusal { text: mistrust.text(), ..refusal::UPSTREAM_TLS }
    })
}

async fn secure(raw: Raw, tls: &ClientTls, host: &PeerName) -> Result<Stream, Mistrust> {
    let name = tls.server_name(host).clone();
    let connected = tls::connect(raw, tls.config.clone(), name).await;
    connected.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| match error {
        HandshakeError::Tls(error) => Mistrust::of(Some(&error)),
        HandshakeError::Io(_) => Mistrust::of(None),
    })
}

fn explain(error: &io::Error) -> Refusal {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => refusal::OVERLOAD,
        _ if error.kind() == io::ErrorKind::TimedOut => refusal::CONNECT_TIMEOUT,
        _ => refusal::CONNECT_FAILED,
    }
}
