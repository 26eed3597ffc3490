//! A connection as bytes, in clear text or over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Outcome;

/// The name that the gateway's certificate must have.
pub const SERVER_NAME: &str = "localhost";

pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How TLS is spoken: 1.3 with X25519 and AES-128-GCM, so that every gateway does the same work, and never resumed, so
/// that every connection is a stranger's.
pub fn client_config(authority: &Path) -> Outcome<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let versions =
        ClientConfig::builder_with_provider(provider.into()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config.into())
}

/// The same, for a server that agrees to speak this protocol (RFC 7301).
pub fn speaking(config: Arc<ClientConfig>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.into()
}

impl Wire {
    /// TLS on a connection; the handshake happens with the first bytes.
    pub fn secured(stream: TcpStream, config: &Arc<ClientConfig>) -> Outcome<Self> {
        let name = ServerName::try_from(SERVER_NAME)?;
        let session = ClientConnection::new(config.clone(), name)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    pub fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        }
    }

    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether a read of `count` bytes into a buffer of `length` has emptied the socket. TLS takes a record at a time.
    pub fn is_drained(&self, count: usize, length: usize) -> bool {
        matches!(self, Self::Plain(_)) && count < length
    }

    /// Ends our side, over TLS with a `close_notify` before the end.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        self.stream().shutdown(Shutdown::Write)
    }

    /// Whether the session holds bytes that the socket did not take.
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.conn.wants_write(),
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => match tls.read(buffer) {
                // Some servers end without a close_notify; what was to come before the end is checked elsewhere.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
