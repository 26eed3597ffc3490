//! What a connection of QUIC may take.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::snapshot::Listener;

/// Streams of one direction that a client may have open: three have a meaning, others are stopped at once.
const ONE_WAY: u32 = 8;

/// A client that is silent for so long is gone. We ask more often than that, as TCP keepalive does, so that quiet
/// WebSockets stay and the mappings of routers on the way do too.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);

/// Sent and not acknowledged, over all streams of a connection.
const SEND_WINDOW: u64 = 8 << 20;

/// Connections that wait to be looked at, and the bytes that they may have sent meanwhile.
const WAITING: usize = 1024;
const WAITING_BYTES: u64 = 8 << 20;

/// The settings of a listener as QUIC has them.
///
/// # Errors
/// When the TLS cannot serve QUIC.
pub fn quic_config(settings: &Listener, tls: Arc<rustls::ServerConfig>) -> Result<Arc<quinn::ServerConfig>, String> {
    let tls = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut transport = TransportConfig::default();
    let http2 = &settings.http2;
    transport
        .max_concurrent_bidi_streams(http2.streams.into())
        .max_concurrent_uni_streams(ONE_WAY.into())
        .stream_receive_window(http2.window.into())
        .receive_window(http2.connection_window.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .keep_alive_interval(Some(PROBE))
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    // Who may connect is decided once, by the address at the beginning.
    let is_open = settings.access.allow.is_none() && settings.access.deny.is_empty();
    config
        .transport_config(Arc::new(transport))
        .max_incoming(WAITING)
        .incoming_buffer_size_total(WAITING_BYTES)
        .migration(is_open);
    Ok(Arc::new(config))
}

/// A stream that will never be: the first GOAWAY names it, so that requests on their way are still served.
pub const LAST_STREAM: u64 = VarInt::MAX.into_inner() - 3;
