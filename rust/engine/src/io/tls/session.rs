//! A TLS session without a socket: records in, plaintext and records out.

use std::fmt;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::records::Records;

/// Either end's session.
pub enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What came of some records.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes at the front that are done with; the others must be there again, at the front, the next time.
    pub used: usize,
    /// The peer has said that it will send nothing more (`close_notify`, RFC 8446 §6.1).
    pub ended: bool,
}

impl Session {
    /// What both ends have in common: certificates, versions, whether the handshake is over.
    pub fn common(&self) -> &CommonState {
        match self {
            Self::Server(server) => server,
            Self::Client(client) => client,
        }
    }

    /// Takes whole records off the front of `incoming`, gives `plain` their content, and appends to `outgoing` what the
    /// peer must be told.
    ///
    /// # Errors
    /// The peer broke the rules, or is not believed; `outgoing` has the alert that tells it. Nothing may be asked of
    /// the session then any more.
    pub fn receive(
        &mut self,
        incoming: &mut [u8],
        plain: impl FnMut(&[u8]),
        outgoing: &mut Records,
    ) -> Result<Progress, Error> {
        match self {
            Self::Server(server) => receive(server, incoming, plain, outgoing),
            Self::Client(client) => receive(client, incoming, plain, outgoing),
        }
    }

    /// Appends `bytes` to `outgoing` as records, one for each 16 KiB. `held` are the bytes that `receive` left.
    pub fn send(&mut self, held: &mut [u8], bytes: &[u8], outgoing: &mut Records) -> Result<(), Error> {
        self.write(held, outgoing, &mut |traffic, room| match traffic {
            Traffic::Server(traffic) => traffic.encrypt(bytes, room),
            Traffic::Client(traffic) => traffic.encrypt(bytes, room),
        })
    }

    /// Appends a `close_notify` to `outgoing`.
    pub fn close(&mut self, held: &mut [u8], outgoing: &mut Records) -> Result<(), Error> {
        self.write(held, outgoing, &mut |traffic, room| match traffic {
            Traffic::Server(traffic) => traffic.queue_close_notify(room),
            Traffic::Client(traffic) => traffic.queue_close_notify(room),
        })
    }

    fn write(&mut self, held: &mut [u8], outgoing: &mut Records, work: &mut Work<'_>) -> Result<(), Error> {
        match self {
            Self::Server(server) => write(server, held, outgoing, |traffic, room| work(Traffic::Server(traffic), room)),
            Self::Client(client) => write(client, held, outgoing, |traffic, room| work(Traffic::Client(traffic), room)),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Server(_)) { "Server" } else { "Client" })
    }
}

type Work<'w> = dyn FnMut(Traffic<'_, '_>, &mut [u8]) -> Result<usize, EncryptError> + 'w;

/// A session that takes plaintext.
enum Traffic<'t, 'c> {
    Server(&'t mut WriteTraffic<'c, ServerConnectionData>),
    Client(&'t mut WriteTraffic<'c, ClientConnectionData>),
}

/// What rustls has twice, once for each end.
trait End {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

fn receive<E: End>(
    end: &mut E,
    incoming: &mut [u8],
    mut plain: impl FnMut(&[u8]),
    outgoing: &mut Records,
) -> Result<Progress, Error> {
    let mut progress = Progress::default();
    loop {
        let UnbufferedStatus { discard, state } = end.process(&mut incoming[progress.used..]);
        let mut more = true;
        let mut records = 0;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    plain(record.payload);
                    records += record.discard;
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                outgoing.append(|room| message.encode(room).map_err(too_small))?
            }
            Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
            Ok(ConnectionState::PeerClosed) => progress.ended = true,
            Ok(_) => more = false,
            Err(error) => {
                progress.used += discard;
                tell(end, &mut incoming[progress.used..], outgoing);
                return Err(error);
            }
        }
        progress.used += discard + records;
        if !more {
            return Ok(progress);
        }
    }
}

/// After an error: what rustls has for the peer, up to the alert. Beyond that it may not be asked: it would read the
/// bytes behind the error, and a second error after its alert it takes for a defect of its own.
fn tell<E: End>(end: &mut E, held: &mut [u8], outgoing: &mut Records) {
    let mut told = false;
    while !told && let Ok(ConnectionState::EncodeTlsData(mut message)) = end.process(held).state {
        let appended = outgoing.append(|room| {
            let written = message.encode(room).map_err(too_small)?;
            told = is_alert(&room[..written]);
            Ok(written)
        });
        told |= appended.is_err();
    }
}

/// Whether a record is an alert. Encrypted by TLS 1.3 it looks like any other, but nothing else in a handshake is as
/// short: two bytes, the content type, and a tag of 16 (RFC 8446 §5.2).
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const ENCRYPTED: u8 = 23;
    record[0] == ALERT || (record[0] == ENCRYPTED && record.len() == 5 + 2 + 1 + 16)
}

fn write<E: End>(
    end: &mut E,
    held: &mut [u8],
    outgoing: &mut Records,
    mut work: impl FnMut(&mut WriteTraffic<'_, E::Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    loop {
        match end.process(held).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return outgoing.append(|room| {
                    work(&mut traffic, room).map_err(|error| match error {
                        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
                        EncryptError::EncryptExhausted => None,
                    })
                });
            }
            ConnectionState::EncodeTlsData(mut message) => {
                outgoing.append(|room| message.encode(room).map_err(too_small))?;
            }
            ConnectionState::TransmitTlsData(message) => message.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

fn too_small(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}
