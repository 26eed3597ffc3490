//! `tcp` and `tcp-life`: bytes without a protocol, to an upstream that returns them (`serve --raw`).

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Plan, Report, drive};

const MESSAGE: usize = 128;

/// One message at a time on each connection, checked byte for byte when it comes back.
pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let plan = Plan::take(&mut arguments, 64)?;
    let size = arguments.take("size", MESSAGE)?;
    arguments.finish()?;
    run(&plan, size)?.say()
}

/// Short lives: connect, one echo, our end, the peer's.
pub fn command_life(mut arguments: Arguments) -> Outcome<()> {
    let plan = Plan::take(&mut arguments, 32)?;
    arguments.finish()?;
    run_lives(&plan)?.say()
}

pub fn run(plan: &Plan, size: usize) -> Outcome<Report> {
    drive(plan, |dialler| Ok((dialler.connect()?, Bytes::new(size))))
}

pub fn run_lives(plan: &Plan) -> Outcome<Report> {
    drive(plan, |dialler| Ok((dialler.connect()?, Life { bytes: Bytes::new(MESSAGE), echoed: false })))
}

/// A message that differs from the one before it by a counter in its first bytes.
struct Bytes {
    message: Vec<u8>,
    matched: usize,
    number: u64,
}

impl Bytes {
    fn new(size: usize) -> Self {
        Self { message: (0..size.max(1)).map(|index| index as u8).collect(), matched: 0, number: 0 }
    }
}

impl Conversation for Bytes {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.number += 1;
        self.matched = 0;
        let counter = self.number.to_le_bytes();
        let length = counter.len().min(self.message.len());
        self.message[..length].copy_from_slice(&counter[..length]);
        out.extend_from_slice(&self.message);
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Outcome<bool> {
        if !self.message[self.matched..].starts_with(input) {
            return Err(format!("an echo differs after {} bytes", self.matched).into());
        }
        self.matched += input.len();
        Ok(self.matched == self.message.len())
    }
}

struct Life {
    bytes: Bytes,
    echoed: bool,
}

impl Conversation for Life {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.bytes.begin(out);
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Outcome<bool> {
        self.echoed = self.bytes.receive(input, out)?;
        Ok(false)
    }

    fn end(&mut self) -> Outcome<()> {
        match self.echoed {
            true => Ok(()),
            false => Err("the peer closed a connection before the echo was complete".into()),
        }
    }

    fn is_finished(&self) -> bool {
        self.echoed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_complete() {
        let (mut bytes, mut sent) = (Bytes::new(16), Vec::new());
        bytes.begin(&mut sent);
        assert!(!bytes.receive(&sent[..15], &mut Vec::new()).unwrap());
        assert!(bytes.receive(&sent[15..], &mut Vec::new()).unwrap());
        assert!(bytes.receive(b"x", &mut Vec::new()).is_err());
        bytes.begin(&mut Vec::new());
        assert!(bytes.receive(&sent, &mut Vec::new()).is_err(), "a stale echo");
    }

    #[test]
    fn a_life_that_ends_early_is_an_error() {
        let mut life = Life { bytes: Bytes::new(4), echoed: false };
        let mut sent = Vec::new();
        life.begin(&mut sent);
        assert!(life.end().is_err() && !life.is_finished());
        life.receive(&sent, &mut Vec::new()).unwrap();
        assert!(life.end().is_ok() && life.is_finished());
    }
}
