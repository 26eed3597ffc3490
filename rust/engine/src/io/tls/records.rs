//! Records on their way out.

use rustls::Error;

/// A buffer that rustls writes records to. Its room, once there, is not cleared for the next ones: that would cost more
/// than a short message.
#[derive(Debug, Default)]
pub struct Records {
    /// The room; what stands there from `sent` to `filled` is still to be sent.
    room: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl Records {
    pub fn with_room(size: usize) -> Self {
        Self { room: vec![0; size], ..Self::default() }
    }

    /// What is still to be sent.
    pub fn rest(&self) -> &[u8] {
        &self.room[self.sent..self.filled]
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    /// The first `count` bytes of the rest are gone.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Forgets everything, and keeps the room.
    pub fn clear(&mut self) {
        (self.filled, self.sent) = (0, 0);
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.room.truncate(self.filled);
        self.room.extend_from_slice(bytes);
        self.filled = self.room.len();
    }

    /// Lets `encode` write behind what is there: it says how many bytes it wrote, or how many it needs if it ever can.
    pub fn append(&mut self, mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> Result<(), Error> {
        let written = encode(&mut self.room[self.filled..]).or_else(|needed| {
            let needed = needed.ok_or_else(exhausted)?;
            self.room.resize(self.filled + needed, 0);
            encode(&mut self.room[self.filled..]).map_err(|_| exhausted())
        })?;
        self.filled += written;
        Ok(())
    }
}

/// The keys have encrypted as much as they may (RFC 8446 §5.5).
fn exhausted() -> Error {
    Error::EncryptError
}
