//! Checks one direction of a relay while its bytes stream through, and keeps none of them.
//!
//! # Theory of operation
//! A direction is a row of frames (RFC 6455 §5). The observer stands either inside the payload of a data frame, where
//! bytes pass without a look (`left` > 0), or at the start of a frame. There it waits for the whole header, judges it,
//! and only then lets it go, so that nothing of an invalid frame is ever forwarded. A control frame is small and may
//! have to be held back (a Pong that answers our own Ping) or remembered (a Close), so it is shown to the caller whole,
//! once, and never cut in two.
//!
//! ```text
//!             ┌── payload ──┐   left = 0: the frame ends; the message too, if the frame had FIN
//!             ▼             │
//!  at a frame's start ──────┴─ data header: checked, counted, left = its length
//!             ▲             │
//!             └─ the caller ┴─ control frame, whole: shown
//! ```
//!
//! The state of a message is two facts: whether a frame without FIN has begun it (`fragmented`), and how many bytes its
//! headers announced (`announced`), which is what `max_message` bounds. Masking keys and payloads are not remembered:
//! bytes go on as they came, masked with the client's own key.
//!
//! Stopping: our own frames may only go between frames, and some wait for the end of a message; `stop` makes the
//! observer return there instead of running on to the end of the input.

use std::mem::size_of;

use super::close;
use super::frame::{Header, LONGEST_CONTROL, Opcode, mask_in_place};
use super::violation::Violation;

/// Who sends this direction: a client must mask its frames, a server must not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// What this direction must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub from: From,
    /// Whether permessage-deflate was negotiated: RSV1 may be set on the first frame of a data message.
    pub deflate: bool,
    /// Bytes on the wire that the frames of one message may carry; `None` is unlimited.
    pub max_message: Option<u64>,
}

/// What went through so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of every kind, data frames from their header on.
    pub frames: u64,
    /// Text messages, at their last byte.
    pub messages_text: u64,
    /// Binary messages, at their last byte.
    pub messages_binary: u64,
    /// Payload bytes of data frames, as on the wire.
    pub bytes: u64,
    pub pings: u64,
    pub pongs: u64,
    pub closes: u64,
}

impl Counts {
    /// Data messages of both kinds.
    pub fn messages(&self) -> u64 {
        self.messages_text + self.messages_binary
    }
}

/// Where [`Observer::observe`] shall stop before the input ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Never,
    /// At the end of the data frame under way, or of the next one.
    AtFrame,
    /// At the end of the message under way, or of the next one.
    AtMessage,
}

/// What stands between a sender and what it would begin. Asked with the header of each data frame, and for each control
/// frame that is whole, before any of it is forwarded.
pub trait Gate {
    /// Whether it ever answers anything but [`Pass::Now`].
    const DROPS: bool;

    /// A data frame.
    fn data(&mut self, header: &Header) -> Pass;

    /// A control frame.
    fn control(&mut self, opcode: ControlOpcode) -> Pass;

    /// So many payload bytes of data frames go on.
    fn passed(&mut self, bytes: u64);
}

/// What a [`Gate`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    Now,
    /// It waits: present it again.
    Later,
    /// It is left out: the whole message, or this control frame. Not for a frame that goes on with a message.
    Skip,
    /// It breaks a rule.
    Never(Violation),
}

/// Everything passes.
struct Open;

impl Gate for Open {
    const DROPS: bool = false;

    #[inline(always)]
    fn data(&mut self, _: &Header) -> Pass {
        Pass::Now
    }

    #[inline(always)]
    fn control(&mut self, _: ControlOpcode) -> Pass {
        Pass::Now
    }

    #[inline(always)]
    fn passed(&mut self, _: u64) {}
}

/// How far the observer came, and why no further.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Seen {
    /// `input[..forward]` may go to the other side.
    pub forward: usize,
    pub event: Event,
}

/// Why [`Observer::observe`] returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The input is used up, except `input[forward..]`: the start of a header or of a control frame, at most
    /// [`Observer::LONGEST_TAIL`] bytes. Keep it and present it again with more bytes behind it.
    More,
    /// A whole control frame stands at `input[forward..forward + size]`. Forward it or not, then observe what follows
    /// it. After a Close nothing follows: stop calling.
    Control(Control),
    /// Stopped behind a data frame's or a message's last byte, as asked by [`Stop`].
    Boundary,
    /// The gate lets what stands at `input[forward..]` wait. Keep that and present it again.
    Later,
    /// The gate leaves out what follows: a message, which the observer passes over from the next call on
    /// ([`Observer::is_skipping`]), up to an [`Event::Skipped`]. What it shows meanwhile is no part of the message.
    Skip,
    /// `input[..forward]`, or the end of it, was the rest of a message that is left out.
    Skipped,
    /// A control frame at `input[forward..forward + size]` is left out.
    SkipControl {
        /// Bytes of the frame.
        size: usize,
    },
    /// What follows breaks the rules. Stop calling.
    Violation(Violation),
}

/// A control frame (RFC 6455 §5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub opcode: ControlOpcode,
    /// Bytes of the whole frame in the input.
    pub size: usize,
    /// The code of a Close; `None` for one without, and for Ping and Pong.
    pub code: Option<u16>,
    length: u8,
    payload: [u8; LONGEST_CONTROL],
}

/// Which control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlOpcode {
    Close,
    Ping,
    Pong,
}

impl ControlOpcode {
    fn of(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Close => Some(Self::Close),
            Opcode::Ping => Some(Self::Ping),
            Opcode::Pong => Some(Self::Pong),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
        }
    }
}

impl Control {
    /// The payload, unmasked. That of a Close begins with the code.
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.length)]
    }
}

/// The checker of one direction. Small: every idle connection holds two.
#[derive(Clone, Debug)]
pub struct Observer {
    counts: Counts,
    /// Payload bytes of the data frame under way that are still to come.
    left: u64,
    /// Bytes that the headers of the message under way announced.
    announced: u64,
    max_message: u64,
    from: From,
    deflate: bool,
    /// Whether the message under way has frames to come.
    fragmented: bool,
    /// Whether the message under way is text.
    text: bool,
    /// Whether the message under way is left out.
    skipping: bool,
}

const _: () = assert!(size_of::<Observer>() <= 96, "idle connections hold two of these");

impl Observer {
    /// The longest tail that [`Event::More`] leaves: a control frame of a client, but for its last byte.
    pub const LONGEST_TAIL: usize = 2 + 4 + LONGEST_CONTROL - 1;

    /// An observer at the start of a direction.
    pub fn new(rules: Rules) -> Self {
        Self {
            counts: Counts::default(),
            left: 0,
            announced: 0,
            max_message: rules.max_message.unwrap_or(u64::MAX),
            from: rules.from,
            deflate: rules.deflate,
            fragmented: false,
            text: false,
            skipping: false,
        }
    }

    /// Looks at `input`, which continues what was forwarded before. Says how much of it may go now, and why it stopped.
    /// A frame that ends in `forward`, or a [`Control`], is counted: present only what follows it next time.
    #[inline]
    pub fn observe(&mut self, input: &[u8], stop: Stop) -> Seen {
        self.observe_at(&mut Open, input, stop)
    }

    /// The same, with a gate that is asked before anything begins.
    #[inline]
    pub fn observe_at<G: Gate>(&mut self, gate: &mut G, input: &[u8], stop: Stop) -> Seen {
        let mut forward = 0;
        if self.left > 0 {
            forward = self.pass(gate, input.len());
            if self.left > 0 {
                return Seen { forward, event: Event::More };
            }
            if let Some(event) = self.event_behind::<G>(stop) {
                return Seen { forward, event };
            }
        }
        self.observe_frames(gate, input, forward, stop)
    }

    /// Whether no payload of a data frame is left to come: a frame of ours may go here.
    pub fn at_frame_boundary(&self) -> bool {
        self.left == 0 || self.skipping
    }

    /// Whether no message is under way.
    pub fn at_message_boundary(&self) -> bool {
        (self.left == 0 && !self.fragmented) || self.skipping
    }

    /// Whether the message under way is left out, and with it what of it is in the next input.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// What went through so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts bytes of a direction whose frames are not looked at.
    pub fn count_unchecked(&mut self, bytes: u64) {
        self.counts.bytes += bytes;
    }

    /// Takes back the count of the Pong that was shown last: it answers a Ping of the gateway's own, and goes nowhere.
    pub fn uncount_pong(&mut self) {
        self.counts.frames -= 1;
        self.counts.pongs -= 1;
    }

    fn observe_frames<G: Gate>(&mut self, gate: &mut G, input: &[u8], mut forward: usize, stop: Stop) -> Seen {
        loop {
            let rest = &input[forward..];
            let header = match self.header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => return Seen { forward, event: Event::More },
                Err(violation) => return Seen { forward, event: Event::Violation(violation) },
            };
            if let Some(opcode) = ControlOpcode::of(header.opcode) {
                return Seen { forward, event: self.control(gate, opcode, &header, rest) };
            }
            // One that is left out was asked about when it began.
            if !(G::DROPS && self.skipping) {
                match gate.data(&header) {
                    Pass::Now => {}
                    Pass::Later => return Seen { forward, event: Event::Later },
                    Pass::Never(violation) => return Seen { forward, event: Event::Violation(violation) },
                    Pass::Skip => {
                        self.skipping = true;
                        return Seen { forward, event: Event::Skip };
                    }
                }
            }
            self.begin::<G>(&header);
            forward += header.size();
            forward += self.pass(gate, input.len() - forward);
            if self.left > 0 {
                return Seen { forward, event: Event::More };
            }
            if let Some(event) = self.event_behind::<G>(stop) {
                return Seen { forward, event };
            }
        }
    }

    /// What there is to say behind a data frame's last byte.
    #[inline]
    fn event_behind<G: Gate>(&mut self, stop: Stop) -> Option<Event> {
        if G::DROPS && self.skipping {
            self.skipping = self.fragmented;
            return (!self.skipping).then_some(Event::Skipped);
        }
        self.stops(stop).then_some(Event::Boundary)
    }

    /// The header at the start of `input`, judged; `None` while it is incomplete.
    #[inline]
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Violation> {
        let Some(header) = Header::decode(input)? else { return Ok(None) };
        match (self.from, header.mask.is_some()) {
            (From::Client, false) => Err(Violation::Unmasked),
            (From::Server, true) => Err(Violation::Masked),
            _ if header.opcode.is_control() => judge_control(&header),
            _ => self.judge_data(&header),
        }?;
        Ok(Some(header))
    }

    #[inline]
    fn judge_data(&self, header: &Header) -> Result<(), Violation> {
        let first = header.opcode != Opcode::Continuation;
        if header.rsv1 && !(first && self.deflate) {
            return Err(Violation::ReservedBits);
        }
        match (first, self.fragmented) {
            (false, false) => return Err(Violation::Continuation),
            (true, true) => return Err(Violation::Interleaved),
            _ => {}
        }
        if self.announced.saturating_add(header.length) > self.max_message {
            return Err(Violation::TooBig);
        }
        Ok(())
    }

    /// Takes a data frame's header. The frame may be empty: [`Observer::pass`] must follow.
    #[inline]
    fn begin<G: Gate>(&mut self, header: &Header) {
        if header.opcode != Opcode::Continuation {
            self.text = header.opcode == Opcode::Text;
        }
        self.counts.frames += u64::from(!(G::DROPS && self.skipping));
        self.fragmented = !header.fin;
        self.announced = self.announced.saturating_add(header.length);
        self.left = header.length;
    }

    /// Takes what belongs to the frame under way of the next `available` bytes.
    #[inline]
    fn pass<G: Gate>(&mut self, gate: &mut G, available: usize) -> usize {
        let taken = self.left.min(available as u64);
        self.left -= taken;
        let ends = self.left == 0 && !self.fragmented;
        if G::DROPS && self.skipping {
            self.announced = if ends { 0 } else { self.announced };
            return taken as usize;
        }
        self.counts.bytes += taken;
        gate.passed(taken);
        if ends {
            self.end_message();
        }
        taken as usize
    }

    #[inline]
    fn end_message(&mut self) {
        self.announced = 0;
        self.counts.messages_text += u64::from(self.text);
        self.counts.messages_binary += u64::from(!self.text);
    }

    #[inline]
    fn stops(&self, stop: Stop) -> bool {
        match stop {
            Stop::Never => false,
            Stop::AtFrame => true,
            Stop::AtMessage => !self.fragmented,
        }
    }

    // Not inlined: what copies 125 bytes stays out of the way of data frames.
    #[inline(never)]
    fn control<G: Gate>(&mut self, gate: &mut G, opcode: ControlOpcode, header: &Header, input: &[u8]) -> Event {
        let length = header.length as usize; // judged: at most 125
        let Some(bytes) = input.get(header.size()..header.size() + length) else { return Event::More };
        match gate.control(opcode) {
            Pass::Now => {}
            Pass::Later => return Event::Later,
            Pass::Skip => return Event::SkipControl { size: header.size() + length },
            Pass::Never(violation) => return Event::Violation(violation),
        }
        let mut payload = [0; LONGEST_CONTROL];
        payload[..length].copy_from_slice(bytes);
        mask_in_place(&mut payload[..length], header.mask.unwrap_or_default(), 0);
        let code = match opcode {
            ControlOpcode::Close => close::code(&payload[..length]),
            _ => Ok(None),
        };
        let Ok(code) = code else { return Event::Violation(Violation::BadClose) };
        self.count_control(opcode);
        Event::Control(Control { opcode, size: header.size() + length, code, length: length as u8, payload })
    }

    fn count_control(&mut self, opcode: ControlOpcode) {
        self.counts.frames += 1;
        match opcode {
            ControlOpcode::Close => self.counts.closes += 1,
            ControlOpcode::Ping => self.counts.pings += 1,
            ControlOpcode::Pong => self.counts.pongs += 1,
        }
    }
}

fn judge_control(header: &Header) -> Result<(), Violation> {
    match header {
        Header { rsv1: true, .. } => Err(Violation::ReservedBits),
        Header { fin: false, .. } => Err(Violation::FragmentedControl),
        Header { length, .. } if *length > LONGEST_CONTROL as u64 => Err(Violation::LongControl),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
