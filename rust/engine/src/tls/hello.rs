//! The server name in a ClientHello, read by somebody who is no part of the connection.
//!
//! A connection that is passed on as it is still says whom it is for: in the clear, in the first message (RFC 8446
//! §4.1.2, RFC 5246 §7.4.1.2), in the extension `server_name` (RFC 6066 §3). The message may be spread over any number
//! of records (RFC 8446 §5.1). Only what has to be understood to get there is looked at: versions, ciphers and
//! extensions that we do not know are none of our business, or a client that is newer than us would be locked out.
//!
//! A wrong byte is refused as soon as it is there, so that a client that speaks something else does not wait for a
//! timeout. The verdict does not depend on how the bytes were split.

use std::borrow::Cow;

/// The longest ClientHello taken. With key shares that withstand quantum computers they have 2 KiB.
const MESSAGE_LIMIT: usize = 16 * 1024;
/// The most that is read for one: nobody has a reason to cut it into records of a few bytes.
pub const LIMIT: usize = MESSAGE_LIMIT + 8 * 1024;

const RECORD_HEADER: usize = 5;
const RECORD_LIMIT: usize = 1 << 14;
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The outcome of reading a ClientHello that may not be there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedHello {
    /// More bytes are needed.
    Partial,
    /// It is there. The name is in lower case; none where the client names nobody.
    Complete { server_name: Option<String> },
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHello {
    /// The bytes are not the beginning of a TLS connection.
    NotTls,
    /// It is longer than [`LIMIT`] allows.
    TooLong,
    /// A length does not fit, or the name is none.
    Malformed,
}

/// Looks for the server name at the beginning of a connection.
///
/// # Errors
/// Where no ClientHello can come of these bytes.
pub fn parse_hello(bytes: &[u8]) -> Result<ParsedHello, BadHello> {
    match gather(&bytes[..bytes.len().min(LIMIT)])? {
        Some(message) => Ok(ParsedHello::Complete { server_name: server_name(&message)? }),
        None if bytes.len() >= LIMIT => Err(BadHello::TooLong),
        None => Ok(ParsedHello::Partial),
    }
}

/// The message without the headers of its records, and without its own; none while a part of it is missing.
fn gather(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, BadHello> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(length) = record(rest)? else { break };
        let end = rest.len().min(RECORD_HEADER + length);
        let fragment = &rest[RECORD_HEADER..end];
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        match size(&message)? {
            Some(size) if message.len() >= size => return Ok(Some(body(message, size))),
            _ => rest = &rest[end..],
        }
    }
    Ok(None)
}

/// The length of a record of the handshake; none while its header is not whole.
fn record(bytes: &[u8]) -> Result<Option<usize>, BadHello> {
    // SSL 3.0 to TLS 1.3 all have the 3; what follows it says nothing (RFC 8446 §5.1).
    if bytes[0] != HANDSHAKE || bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(BadHello::NotTls);
    }
    let Some(header) = bytes.get(..RECORD_HEADER) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    match length {
        0 => Err(BadHello::Malformed),
        1..=RECORD_LIMIT => Ok(Some(length)),
        _ => Err(BadHello::TooLong),
    }
}

/// The size of the message with its header; none while that is not whole.
fn size(message: &[u8]) -> Result<Option<usize>, BadHello> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(BadHello::NotTls);
    }
    let Some(header) = message.get(..MESSAGE_HEADER) else { return Ok(None) };
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    if length > MESSAGE_LIMIT { Err(BadHello::TooLong) } else { Ok(Some(MESSAGE_HEADER + length)) }
}

fn body(message: Cow<'_, [u8]>, size: usize) -> Cow<'_, [u8]> {
    match message {
        Cow::Borrowed(message) => Cow::Borrowed(&message[MESSAGE_HEADER..size]),
        Cow::Owned(message) => Cow::Owned(message[MESSAGE_HEADER..size].to_vec()),
    }
}

/// The name in the body of a ClientHello.
fn server_name(body: &[u8]) -> Result<Option<String>, BadHello> {
    let mut body = Reader(body);
    body.take(2 + 32)?; // version and random
    body.short_vector()?; // session id
    body.vector()?; // cipher suites
    body.short_vector()?; // compression methods
    if body.is_empty() {
        // Before TLS 1.3 a hello may have no extensions at all.
        return Ok(None);
    }
    let mut extensions = Reader(body.vector()?);
    let mut found = None;
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.vector()?;
        // Two of a kind could be read in two ways, by us and by the server (RFC 8446 §4.2).
        if kind == SERVER_NAME && found.replace(host_name(content)?).is_some() {
            return Err(BadHello::Malformed);
        }
    }
    if body.is_empty() { Ok(found) } else { Err(BadHello::Malformed) }
}

fn host_name(content: &[u8]) -> Result<String, BadHello> {
    let mut content = Reader(content);
    let mut names = Reader(content.vector()?);
    let (kind, name) = (names.take(1)?[0], names.vector()?);
    // Other kinds were never defined, and of this one there is at most one.
    if kind != HOST_NAME || !names.is_empty() || !content.is_empty() || !is_host_name(name) {
        return Err(BadHello::Malformed);
    }
    Ok(String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// A name of the DNS in ASCII. What else could be written into it would only be there to confuse logs and tables.
fn is_host_name(name: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=255).contains(&name.len()) && name.iter().all(is_letter)
}

/// Takes vectors from the front, as RFC 8446 §3.4 writes them.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, BadHello> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector(&mut self) -> Result<&'b [u8], BadHello> {
        let length = self.number()?;
        self.take(length.into())
    }

    fn short_vector(&mut self) -> Result<&'b [u8], BadHello> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }
}
