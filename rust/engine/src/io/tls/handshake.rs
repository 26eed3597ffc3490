//! The handshakes of both ends.
//!
//! As server in three steps, because the caller chooses a configuration by the server name, and decides when the
//! expensive part is done: [`read_hello`] waits for the ClientHello, [`Hello::answer`] computes and waits for nothing,
//! [`Unfinished::finish`] waits for the client.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::{ClientConfig, Error, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::session::Session;
use super::{Raw, Tls};

/// Most are below 2 KiB, key shares that withstand quantum computers included.
const HELLO_SIZE: usize = 4 * 1024;

/// Why there is no connection.
#[derive(Debug)]
pub enum HandshakeError {
    /// The other end broke the rules, is not believed, or refused.
    Tls(Error),
    /// The connection ended or failed.
    Io(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        inner.cloned().map_or(Self::Io(error), Self::Tls)
    }
}

/// A ClientHello that has come whole.
#[derive(Debug)]
pub struct Hello {
    raw: Raw,
    bytes: Vec<u8>,
    /// As the client wrote it.
    pub server_name: Option<String>,
}

/// Waits for a ClientHello, of which `early` was read already.
pub async fn read_hello(mut raw: Raw, early: Vec<u8>) -> Result<Hello, HandshakeError> {
    let (mut bytes, mut acceptor, mut seen) = (early, Acceptor::default(), 0);
    loop {
        while seen < bytes.len() {
            seen += acceptor.read_tls(&mut &bytes[seen..])?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let server_name = accepted.client_hello().server_name().map(str::to_owned);
                return Ok(Hello { raw, bytes, server_name });
            }
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut text = Vec::new();
                alert.write_all(&mut text)?;
                raw.write_all(&text).await?;
                return Err(HandshakeError::Tls(error));
            }
        }
        bytes.reserve(HELLO_SIZE);
        if raw.read_buf(&mut bytes).await? == 0 {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// A handshake that the server has answered.
#[derive(Debug)]
pub struct Unfinished(Tls);

impl Hello {
    /// Computes the server's answer under `config`: the part that costs.
    pub fn answer(mut self, config: Arc<ServerConfig>) -> Result<Unfinished, HandshakeError> {
        let session = UnbufferedServerConnection::new(config).map_err(HandshakeError::Tls)?;
        let mut tls = Tls::new(Session::Server(session), self.raw);
        tls.take(&mut self.bytes, &mut [])?;
        Ok(Unfinished(tls))
    }
}

impl Unfinished {
    /// Waits for the client's side of the handshake.
    pub async fn finish(self) -> Result<Tls, HandshakeError> {
        finish(self.0).await
    }
}

/// The client's handshake with the server called `name`.
pub async fn connect(raw: Raw, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Tls, HandshakeError> {
    let session = UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
    let mut tls = Tls::new(Session::Client(session), raw);
    tls.take(&mut [], &mut [])?;
    finish(tls).await
}

async fn finish(mut tls: Tls) -> Result<Tls, HandshakeError> {
    poll_fn(|cx| {
        loop {
            let flushed = tls.poll_flush(cx)?;
            if !tls.common().is_handshaking() {
                // Tickets that the socket has no room for go out with what is sent next.
                return Poll::Ready(Ok(()));
            }
            ready!(flushed);
            if tls.ended {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            ready!(tls.poll_receive(cx, &mut [], None))?;
        }
    })
    .await?;
    Ok(tls)
}
