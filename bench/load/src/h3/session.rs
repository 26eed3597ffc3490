//! One connection of HTTP/3.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::time::timeout;

use super::Fault;
use super::message::{CONTROL, ENABLE_CONNECT_PROTOCOL, SETTINGS, framed, read_header, read_number};
use crate::drive::Plan;
use crate::wire::{self, SERVER_NAME};

/// What we give a peer room for: what the load over HTTP/2 gives.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Session {
    pub connection: Connection,
    /// The peer takes WebSockets.
    pub extended_connect: bool,
    _endpoint: Endpoint,
    /// Ending it would end the connection (RFC 9114 §6.2.1).
    _control: (SendStream, RecvStream),
}

impl Session {
    pub async fn open(plan: &Plan) -> Result<Self, Fault> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let connecting = endpoint.connect_with(config(plan)?, SocketAddr::V4(plan.target), SERVER_NAME)?;
        let connection = timeout(PATIENCE, connecting).await.map_err(|_| "no QUIC handshake")??;
        let mut control = connection.open_uni().await?;
        control.write_all(&[&[CONTROL][..], &framed(SETTINGS, &[])].concat()).await?;
        let (theirs, extended_connect) =
            timeout(PATIENCE, read_settings(&connection)).await.map_err(|_| "no settings")??;
        Ok(Self { connection, extended_connect, _endpoint: endpoint, _control: (control, theirs) })
    }
}

fn config(plan: &Plan) -> Result<ClientConfig, Fault> {
    let tls = plan.tls.clone().ok_or("HTTP/3 needs --ca")?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(wire::speaking(tls, b"h3"))?));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(STREAM_WINDOW.into()).receive_window(CONNECTION_WINDOW.into());
    transport.max_concurrent_uni_streams(VarInt::from_u32(8));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The peer's control stream, and whether its settings say that it takes WebSockets. Others of its streams wait.
async fn read_settings(connection: &Connection) -> Result<(RecvStream, bool), Fault> {
    loop {
        let mut stream = connection.accept_uni().await?;
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        if first != [CONTROL] {
            continue;
        }
        let mut bytes = Vec::new();
        loop {
            if let Some((kind, header, length)) = read_header(&bytes)
                && bytes.len() >= header + length
            {
                let settings = &bytes[header..header + length];
                return match kind {
                    SETTINGS => Ok((stream, takes_websockets(settings))),
                    _ => Err("a control stream that does not begin with settings".into()),
                };
            }
            bytes.extend_from_slice(&stream.read_chunk(4096, true).await?.ok_or("no settings")?.bytes);
        }
    }
}

fn takes_websockets(mut settings: &[u8]) -> bool {
    while let Some((name, first)) = read_number(settings)
        && let Some((value, second)) = read_number(&settings[first..])
    {
        if name == ENABLE_CONNECT_PROTOCOL {
            return value == 1;
        }
        settings = &settings[first + second..];
    }
    false
}
