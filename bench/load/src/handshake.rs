//! `handshake`: a whole short life of a WebSocket: connect, upgrade, one echo, Close both ways, end of stream.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::drive::{Conversation, Plan, Report, drive};
use crate::echo::{Echo, MASK};
use crate::frame;
use crate::upgrade::{Place, Upgrade, head_length, head_text};

const MESSAGE: usize = 128;
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

pub fn command(mut arguments: Arguments) -> Outcome<()> {
    let plan = Plan::take(&mut arguments, 32)?;
    arguments.finish()?;
    run(&plan)?.say()
}

pub fn run(plan: &Plan) -> Outcome<Report> {
    drive(plan, |dialler| Ok((dialler.connect()?, Life::new(plan.place.clone()))))
}

enum Awaiting {
    Head,
    Echo,
    Close,
    End,
}

struct Life {
    place: Place,
    upgrade: Upgrade,
    echo: Echo,
    awaiting: Awaiting,
    kept: Vec<u8>,
}

impl Life {
    fn new(place: Place) -> Self {
        let (upgrade, echo) = (Upgrade::new(), Echo::new(MESSAGE));
        Self { place, upgrade, echo, awaiting: Awaiting::Head, kept: Vec::new() }
    }

    fn receive_head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
        self.kept.extend_from_slice(input);
        let Some(length) = head_length(&self.kept)? else { return Ok(()) };
        if length != self.kept.len() {
            return Err("bytes nobody asked for came after the handshake answer".into());
        }
        self.upgrade.check(head_text(&self.kept)?)?;
        self.kept.clear();
        self.echo.begin(out);
        self.awaiting = Awaiting::Echo;
        Ok(())
    }

    fn receive_echo(&mut self, input: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
        if self.echo.receive(input, out)? {
            frame::write_whole(out, frame::CLOSE, Some(MASK), &NORMAL);
            self.awaiting = Awaiting::Close;
        }
        Ok(())
    }

    fn receive_close(&mut self, input: &[u8]) -> Outcome<()> {
        let mut expected = Vec::new();
        frame::write_whole(&mut expected, frame::CLOSE, None, &NORMAL);
        self.kept.extend_from_slice(input);
        if !expected.starts_with(&self.kept) {
            return Err(format!("not the Close expected: {:02x?}", self.kept).into());
        }
        if self.kept == expected {
            self.awaiting = Awaiting::End;
        }
        Ok(())
    }
}

impl Conversation for Life {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.upgrade.write_request(&self.place, out);
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Outcome<bool> {
        match self.awaiting {
            Awaiting::Head => self.receive_head(input, out)?,
            Awaiting::Echo => self.receive_echo(input, out)?,
            Awaiting::Close => self.receive_close(input)?,
            Awaiting::End => return Err("bytes came after the Close".into()),
        }
        Ok(false)
    }

    fn end(&mut self) -> Outcome<()> {
        match self.awaiting {
            Awaiting::End => Ok(()),
            _ => Err("the peer closed a connection before the closing handshake was complete".into()),
        }
    }
}
