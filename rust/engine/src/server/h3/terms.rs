//! What a connection of QUIC may take.

use std::sync::Arc;

use quinn::VarInt;
use quinn::crypto::rustls::QuicServerConfig;

use crate::io::h3::transport;
use crate::snapshot::Listener;

/// Connections that wait to be looked at, and the bytes that they may have sent meanwhile.
const WAITING: usize = 1024;
const WAITING_BYTES: u64 = 8 << 20;

/// The settings of a listener as QUIC has them.
///
/// # Errors
/// When the TLS cannot serve QUIC.
pub fn quic_config(settings: &Listener, tls: Arc<rustls::ServerConfig>) -> Result<Arc<quinn::ServerConfig>, String> {
    let tls = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    // Who may connect is decided once, by the address at the beginning.
    let is_open = settings.access.allow.is_none() && settings.access.deny.is_empty();
    config
        .transport_config(Arc::new(transport(&settings.http2, settings.http2.streams)))
        .max_incoming(WAITING)
        .incoming_buffer_size_total(WAITING_BYTES)
        .migration(is_open);
    Ok(Arc::new(config))
}

/// A stream that will never be: the first GOAWAY names it, so that requests on their way are still served.
pub const LAST_STREAM: u64 = VarInt::MAX.into_inner() - 3;
