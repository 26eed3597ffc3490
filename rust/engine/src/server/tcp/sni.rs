//! TLS that is passed on as it is: read up to the server name, and told where nobody is called so.

use std::time::Duration;

use tokio::time::timeout;

use super::super::session::Session;
use crate::error::Refusal;
use crate::tls::{BadHello, ParsedHello, parse_hello};

/// The alert of RFC 6066 §3 for a server name that means nothing here: fatal, `unrecognized_name` (112). The version is
/// the one that every TLS reads (RFC 8446 §5.1).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

pub const NO_HELLO: Refusal = Refusal::new(400, "no_client_hello", "the connection does not begin with a ClientHello");
pub const SLOW_HELLO: Refusal = Refusal::new(408, "slow_client_hello", "the ClientHello took too long");
pub const UNKNOWN_NAME: Refusal =
    Refusal::new(421, "unknown_server_name", "the ClientHello names a server that nobody here is, or none");

/// Waits for the ClientHello, which stays in the session's buffer. None where the client names nobody.
///
/// # Errors
/// Where what comes is none, or does not come in time.
pub async fn read_name(session: &mut Session, patience: Duration) -> Result<Option<String>, Refusal> {
    let reading = async {
        loop {
            match parse_hello(&session.buffer) {
                Ok(ParsedHello::Complete { server_name }) => return Ok(server_name),
                Ok(ParsedHello::Partial) => {}
                Err(BadHello::NotTls | BadHello::TooLong | BadHello::Malformed) => return Err(NO_HELLO),
            }
            if !matches!(session.stream.read_more(&mut session.buffer).await, Ok(1..)) {
                return Err(NO_HELLO);
            }
        }
    };
    timeout(patience, reading).await.unwrap_or(Err(SLOW_HELLO))
}

/// Tells the client that nobody is called so, and sees to it that it hears.
pub async fn alert(mut session: Session) {
    if session.stream.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
        session.close().await;
    }
}
