//! A non-blocking connection and the bytes its socket did not take yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::wire::Wire;

pub struct Link {
    wire: Wire,
    pending: Vec<u8>,
}

/// What one read gave.
pub enum Received {
    Bytes(usize),
    Nothing,
    End,
}

impl Link {
    /// The stream must be non-blocking already.
    pub fn new(wire: impl Into<Wire>) -> Self {
        Self { wire: wire.into(), pending: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        self.wire.stream()
    }

    /// Whether a read of `count` bytes into a buffer of `length` has emptied the socket.
    pub fn is_drained(&self, count: usize, length: usize) -> bool {
        self.wire.is_drained(count, length)
    }

    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self.wire.read(buffer) {
            Ok(0) => Ok(Received::End),
            Ok(count) => Ok(Received::Bytes(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Writes at once; only what the socket refuses is copied and kept.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.pending.is_empty() {
            let taken = self.write(bytes)?;
            self.pending.extend_from_slice(&bytes[taken..]);
        } else {
            self.pending.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Tries again what was kept. Call when the socket is ready for output.
    pub fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let taken = self.write(&pending)?;
        self.pending.extend_from_slice(&pending[taken..]);
        match self.wire.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    pub fn is_flushed(&self) -> bool {
        self.pending.is_empty() && self.wire.is_flushed()
    }

    /// Ends our side. The peer may have gone already, and then there is nothing left to end.
    pub fn finish(&mut self) {
        let _ = self.wire.finish();
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.wire.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}
