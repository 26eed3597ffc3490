//! A new connection of QUIC to an endpoint, on a socket of its own: connected, it hears from the system at once when
//! nobody is there, which a socket that many share would not. That is believed until somebody has answered. Later it
//! could come from anyone who guesses our port (ICMP carries no proof), and must not end a connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint as Socket, EndpointConfig, TokioRuntime};
use rustls::AlertDescription;
use socket2::{Domain, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Endpoint;
use crate::error::{Refusal, refusal};
use crate::http::h3::code::Code;
use crate::io::h3::{transport, varint};
use crate::io::room;
use crate::snapshot::{Http2, Target};
use crate::tls::{Alpn, ClientTls, Mistrust};

/// Connects to `endpoint`; what fails is counted there.
///
/// # Errors
/// The refusal for the client, if no other endpoint can be tried. [`refusal::UPSTREAM_PROTOCOL`] where the endpoint
/// does not speak HTTP/3.
pub async fn dial(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    http2: &Http2,
    patience: Duration,
) -> Result<(Socket, Connection), Refusal> {
    let dialled = timeout(patience, establish(endpoint, tls, http2)).await.unwrap_or(Err(refusal::CONNECT_TIMEOUT));
    dialled.inspect_err(|_| endpoint.count_failure())
}

async fn establish(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientTls>>,
    http2: &Http2,
) -> Result<(Socket, Connection), Refusal> {
    // Neither in clear text nor over anything but UDP.
    let (Some(tls), Some(host), Target::Tcp(ip, port)) = (tls, &endpoint.tls, &endpoint.target) else {
        return Err(refusal::UPSTREAM_PROTOCOL);
    };
    let crypto = QuicClientConfig::try_from(tls.config(Alpn::H3)).map_err(|_| refusal::UPSTREAM_TLS)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(http2, 0)));
    let address = SocketAddr::new(*ip, *port);
    let (socket, watch) = open(address).map_err(|error| explain_socket(&error))?;
    let name = tls.server_name(host).to_str();
    let connecting = socket.connect_with(config, address, &name).map_err(|_| refusal::CONNECT_FAILED)?;
    let connection = tokio::select! {
        connection = connecting => connection.map_err(|error| explain(endpoint, &error))?,
        error = refused(&watch) => return Err(explain_socket(&error)),
    };
    Ok((socket, connection))
}

/// Returns when the system says that nobody has the port.
async fn refused(socket: &UdpSocket) -> io::Error {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return error;
        }
        match socket.take_error() {
            Ok(Some(error)) | Err(error) => return error,
            // It is not ready after all.
            Ok(None) => {
                let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            }
        }
    }
}

/// A socket, and a second handle to watch it by.
fn open(address: SocketAddr) -> io::Result<(Socket, UdpSocket)> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), None);
    let socket = room::claim(socket?)?;
    socket.bind(&any.into())?;
    // Elsewhere a connected socket takes no address with what it sends.
    if cfg!(target_os = "linux") {
        socket.connect(&address.into())?;
    }
    let watch = UdpSocket::from_std(socket.try_clone()?.into())?;
    let socket = Socket::new(EndpointConfig::default(), None, socket.into(), Arc::new(TokioRuntime))?;
    Ok((socket, watch))
}

fn explain_socket(error: &io::Error) -> Refusal {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => refusal::OVERLOAD,
        _ => refusal::CONNECT_FAILED,
    }
}

/// Why a handshake failed. Where the socket has failed, the error is an internal one of ours.
fn explain(endpoint: &Endpoint, error: &ConnectionError) -> Refusal {
    let mistrust = match error {
        ConnectionError::TransportError(error) => alert(error.code.into()).map(|alert| of_ours(alert, &error.reason)),
        ConnectionError::ConnectionClosed(close) => alert(close.error_code.into()).map(|alert| match alert {
            AlertDescription::NoApplicationProtocol => None,
            _ => Some(Mistrust::Refused),
        }),
        ConnectionError::VersionMismatch => return refusal::UPSTREAM_PROTOCOL,
        ConnectionError::ApplicationClosed(close) if close.error_code == varint(Code::VERSION_FALLBACK) => {
            return refusal::UPSTREAM_PROTOCOL;
        }
        ConnectionError::TimedOut => return refusal::CONNECT_TIMEOUT,
        _ => None,
    };
    match mistrust {
        None => refusal::CONNECT_FAILED,
        Some(None) => refusal::UPSTREAM_PROTOCOL,
        Some(Some(mistrust)) => {
            endpoint.count_mistrust(mistrust);
            Refusal { text: mistrust.text(), ..refusal::UPSTREAM_TLS }
        }
    }
}

/// The alert of TLS that an error of QUIC is (RFC 9001 §4.8).
fn alert(code: u64) -> Option<AlertDescription> {
    (0x100..0x200).contains(&code).then(|| AlertDescription::from(code as u8))
}

/// What we hold against a server whom we have sent this alert. QUIC keeps no more of why we did than its text.
fn of_ours(alert: AlertDescription, why: &str) -> Option<Mistrust> {
    Some(match alert {
        AlertDescription::NoApplicationProtocol => return None,
        AlertDescription::BadCertificate if why.contains("not valid for") => Mistrust::Name,
        AlertDescription::CertificateExpired => Mistrust::Time,
        AlertDescription::UnknownCA => Mistrust::Authority,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::DecryptError => Mistrust::Certificate,
        _ => Mistrust::Protocol,
    })
}
