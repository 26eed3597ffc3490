//! A connection of QUIC, and for what it was ended.

use std::cell::Cell;
use std::rc::Rc;

use quinn::Connection;

use super::varint;
use crate::http::h3::code::Code;

/// A connection. All who read from it may have to end it.
#[derive(Clone, Debug)]
pub struct Quic {
    pub connection: Connection,
    fault: Rc<Cell<Option<Code>>>,
}

impl Quic {
    pub fn new(connection: Connection) -> Self {
        Self { connection, fault: Rc::default() }
    }

    /// Ends it because of what the other side has sent.
    pub fn end_for(&self, code: Code) {
        // Closed once more, it would forget why it was.
        if self.connection.close_reason().is_none() {
            self.fault.set(Some(code));
            self.connection.close(varint(code), b"");
        }
    }

    /// What it was ended for, where that was the other side's fault.
    pub fn fault(&self) -> Option<Code> {
        self.fault.get()
    }
}
