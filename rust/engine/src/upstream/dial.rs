//! A new connection to an endpoint: the socket, and TLS over it where the endpoint wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, Error};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Endpoint;
use crate::error::{Refusal, refusal};
use crate::io::tls::{self, HandshakeError};
use crate::io::{Raw, Stream, connect};
use crate::snapshot::{Liveness, PeerName};
use crate::tls::{Alpn, ClientTls, H2, Mistrust};

/// What holds for all connections to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long one may take to be made.
    pub patience: Duration,
    /// None where whoever gets the connection sees to it.
    pub liveness: Option<Liveness>,
}

/// Connects to `endpoint`, offering `alpn` where it wants TLS, and saying `preamble` before that; what fails is counted
/// there.
///
/// # Errors
/// The refusal for the client, if no other endpoint can be tried. [`refusal::UPSTREAM_PROTOCOL`] where the endpoint
/// has said that it speaks nothing of what was offered.
pub async fn dial(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    alpn: Alpn,
    preamble: &[u8],
    terms: &Terms,
) -> Result<Stream, Refusal> {
    let dialled = timeout(terms.patience, establish(endpoint, tls, alpn, preamble, terms.liveness.as_ref()))
        .await
        .unwrap_or(Err(refusal::CONNECT_TIMEOUT));
    dialled.inspect_err(|_| endpoint.count_failure())
}

/// Makes what [`dial`] would have made of a connection that was dialled ahead and could not say who comes: says
/// `preamble`, and then TLS where the endpoint wants it.
///
/// # Errors
/// The refusal for the client, if no other connection can be had.
pub async fn introduce(
    stream: Stream,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    alpn: Alpn,
    preamble: &[u8],
    terms: &Terms,
) -> Result<Stream, Refusal> {
    let Stream::Raw(raw) = stream else { return Err(refusal::CONNECT_FAILED) };
    let introduced = timeout(terms.patience, begin(raw, endpoint, tls, alpn, preamble)).await;
    introduced.unwrap_or(Err(refusal::CONNECT_TIMEOUT))
}

/// Connects to `endpoint` and says nothing.
///
/// # Errors
/// As [`dial`].
pub async fn connect_only(endpoint: &Endpoint, terms: &Terms) -> Result<Stream, Refusal> {
    let connected = timeout(terms.patience, connect(&endpoint.target, terms.liveness.as_ref())).await;
    let connected = connected.map_or(Err(refusal::CONNECT_TIMEOUT), |raw| raw.map_err(|error| explain(&error)));
    connected.map(Stream::Raw).inspect_err(|_| endpoint.count_failure())
}

/// Whether TLS has agreed on HTTP/2.
pub fn has_agreed_on_h2(stream: &Stream) -> bool {
    matches!(stream, Stream::Tls(tls) if tls.common().alpn_protocol() == Some(H2))
}

async fn establish(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    alpn: Alpn,
    preamble: &[u8],
    liveness: Option<&Liveness>,
) -> Result<Stream, Refusal> {
    let raw = connect(&endpoint.target, liveness).await.map_err(|error| explain(&error))?;
    begin(raw, endpoint, tls, alpn, preamble).await
}

async fn begin(
    mut raw: Raw,
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    alpn: Alpn,
    preamble: &[u8],
) -> Result<Stream, Refusal> {
    if !preamble.is_empty() {
        raw.write_all(preamble).await.map_err(|error| explain(&error))?;
    }
    let Some(host) = &endpoint.tls else { return Ok(Stream::Raw(raw)) };
    // Never in clear text what was to be secret; the snapshot has TLS for every upstream that has such endpoints.
    let tls = tls.ok_or(refusal::UPSTREAM_TLS)?;
    // In a box: it is large, and who dials in clear text would move the room for it about as well.
    Box::pin(secure(raw, tls, host, alpn)).await.map_err(|error| distrust(endpoint, error))
}

async fn secure(raw: Raw, tls: &ClientTls, host: &PeerName, alpn: Alpn) -> Result<Stream, HandshakeError> {
    let name = tls.server_name(host).clone();
    tls::connect(raw, tls.config(alpn), name).await.map(|stream| Stream::Tls(Box::new(stream)))
}

fn distrust(endpoint: &Endpoint, error: HandshakeError) -> Refusal {
    let mistrust = match error {
        HandshakeError::Tls(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            return refusal::UPSTREAM_PROTOCOL;
        }
        HandshakeError::Tls(error) => Mistrust::of(Some(&error)),
        HandshakeError::Io(_) => Mistrust::of(None),
    };
    endpoint.count_mistrust(mistrust);
    Refusal { text: mistrust.text(), ..refusal::UPSTREAM_TLS }
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
