//! What concerns a connection as a whole: our settings and GOAWAY, and what its client says of its own.

use std::cell::RefCell;
use std::rc::Rc;

use quinn::{Connection, RecvStream, SendStream};

use crate::http::h3::code::Code;
use crate::http::h3::control::{StreamKind, StreamReader};
use crate::http::h3::frame::{write_goaway, write_settings};
use crate::http::h3::varint;
use crate::io::h3 as io;

/// Our control stream.
#[derive(Debug)]
pub struct Control(SendStream);

impl Control {
    /// Opens it with our settings. None where the connection is lost.
    pub async fn open(connection: &Connection, field_section: u64, takes_websockets: bool) -> Option<Self> {
        let mut stream = connection.open_uni().await.ok()?;
        let mut bytes = Vec::new();
        varint::write(&mut bytes, 0);
        write_settings(&mut bytes, field_section, takes_websockets);
        stream.write_all(&bytes).await.ok()?;
        Some(Self(stream))
    }

    /// Serves no request from stream `id` on.
    pub async fn go_away(&mut self, id: u64) {
        let mut bytes = Vec::new();
        write_goaway(&mut bytes, id);
        // Where it is lost there is nobody to tell.
        let _ = self.0.write_all(&bytes).await;
    }
}

/// Streams of the client's of which there must be one only.
pub type Seen = Rc<RefCell<Vec<StreamKind>>>;

/// Reads a stream of the client's until its end, which must be the connection's.
pub async fn read(connection: Connection, mut stream: RecvStream, seen: Seen) {
    if let Err(code) = follow(&mut stream, &seen).await {
        connection.close(io::varint(code), b"");
    }
}

async fn follow(stream: &mut RecvStream, seen: &Seen) -> Result<(), Code> {
    let mut buffer = [0; 1024];
    let mut begun = Vec::new();
    let kind = loop {
        if let Some((kind, _)) = varint::read(&begun) {
            break StreamKind::new(kind)?;
        }
        // One byte after the other: what is behind the kind is not for us to keep. A stream may end before it has said
        // its kind (RFC 9114 §6.2).
        match stream.read(&mut buffer[..1]).await {
            Ok(Some(1)) => begun.push(buffer[0]),
            _ => return Ok(()),
        }
    };
    let Some(mut reader) = StreamReader::new(kind) else {
        let _ = stream.stop(io::varint(Code::STREAM_CREATION_ERROR));
        return Ok(());
    };
    if seen.borrow().contains(&kind) {
        return Err(Code::STREAM_CREATION_ERROR);
    }
    seen.borrow_mut().push(kind);
    while let Ok(Some(read)) = stream.read(&mut buffer).await {
        reader.take(&buffer[..read])?;
    }
    Err(Code::CLOSED_CRITICAL_STREAM)
}
