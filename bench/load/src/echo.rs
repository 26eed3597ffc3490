//! `echo`: one binary message at a time on each WebSocket, checked byte for byte when it comes back.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Plan, Report, Version, drive};
use crate::frame;
use crate::upgrade::Upgrade;
use crate::{h2, h3};

/// One key for all: the cost of a mask does not depend on it, and making one up would be the load's own work.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let mut plan = Plan::take(&mut arguments, 64)?;
    let size = arguments.take("size", 128)?;
    let version = plan.take_version(&mut arguments)?;
    arguments.finish()?;
    match version {
        Version::H1 => run(&plan, size)?.say(),
        Version::H2 { streams } => run_streams(&plan, streams, size)?.say(),
        Version::H3 { streams } => h3::run_echo(&plan, streams, size)?.say(),
    }
}

pub fn run(plan: &Plan, size: usize) -> Outcome<Report> {
    drive(plan, |dialler| {
        let mut wire = dialler.connect()?;
        Upgrade::new().perform(&plan.place, &mut wire)?;
        Ok((wire, Echo::new(size)))
    })
}

/// Over HTTP/2, so many on each connection.
pub fn run_streams(plan: &Plan, streams: usize, size: usize) -> Outcome<Report> {
    drive(plan, |dialler| {
        let mut wire = dialler.connect()?;
        let sockets = h2::WebSockets::open(&mut wire, &plan.place, streams, size)?;
        Ok((wire, sockets))
    })
}

/// A message that differs from the one before it (by a counter in its first bytes) and the frame it must come back as.
pub struct Echo {
    sent: Vec<u8>,
    expected: Vec<u8>,
    payload: usize,
    matched: usize,
    number: u64,
}

impl Echo {
    pub fn new(payload: usize) -> Self {
        let text: Vec<u8> = (0..payload).map(|index| index as u8).collect();
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        frame::write_whole(&mut sent, frame::BINARY, Some(MASK), &text);
        frame::write_whole(&mut expected, frame::BINARY, None, &text);
        Self { sent, expected, payload, matched: 0, number: 0 }
    }

    fn renumber(&mut self) {
        self.number += 1;
        let mut counter = self.number.to_le_bytes();
        let length = counter.len().min(self.payload);
        let (sent, expected) = (self.sent.len() - self.payload, self.expected.len() - self.payload);
        self.expected[expected..][..length].copy_from_slice(&counter[..length]);
        frame::apply_mask(&mut counter, MASK);
        self.sent[sent..][..length].copy_from_slice(&counter[..length]);
    }
}

impl Conversation for Echo {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.renumber();
        self.matched = 0;
        out.extend_from_slice(&self.sent);
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>) -> Outcome<bool> {
        let expected = &self.expected[self.matched..];
        if !expected.starts_with(input) {
            return Err(format!("an echo differs after {} bytes of its frame", self.matched).into());
        }
        self.matched += input.len();
        Ok(self.matched == self.expected.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::Responder;

    #[test]
    fn the_upstream_returns_what_is_expected_in_any_pieces() {
        for size in [0, 1, 7, 128, 70000] {
            let (mut echo, mut responder) = (Echo::new(size), Responder::upgraded());
            for _ in 0..3 {
                let (mut sent, mut answer) = (Vec::new(), Vec::new());
                echo.begin(&mut sent);
                responder.receive(&mut sent, &mut answer).unwrap();
                let (last, rest) = answer.split_last().unwrap();
                assert!(!echo.receive(rest, &mut sent).unwrap());
                assert!(echo.receive(&[*last], &mut sent).unwrap());
            }
        }
    }

    #[test]
    fn a_stale_or_longer_echo_is_refused() {
        let mut echo = Echo::new(16);
        echo.begin(&mut Vec::new());
        let stale = echo.expected.clone();
        echo.begin(&mut Vec::new());
        assert!(echo.receive(&stale, &mut Vec::new()).is_err());
        let longer = [echo.expected.as_slice(), b"x"].concat();
        assert!(echo.receive(&longer, &mut Vec::new()).is_err());
    }
}
