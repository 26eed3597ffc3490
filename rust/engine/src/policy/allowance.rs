//! How fast, and in what pieces, one side of a WebSocket may send.
//!
//! An allowance stands at the observer's gate: it sees the header of each frame before any of it goes on, and never a
//! payload. Messages and bytes have a bucket each, and control frames a small one of their own, so that neither a flood
//! of Pings gets through nor a limit on messages takes a connection's signs of life. A Close always passes.
//!
//! | over the limit | a message that would begin | one that has begun |
//! |---|---|---|
//! | `delay` | waits, and with it all that comes behind it: nothing more is read | pays for its bytes as they pass; reading pauses while it owes some |
//! | `drop` | is left out, all of its frames | passes and owes |
//! | `close` | ends the connection | ends the connection with the frame that it cannot pay for |
//!
//! So with `drop` and `close` a frame pays when it begins, and one that is larger than the burst never passes; with
//! `delay` it is bytes that pay, and a message of any size passes in its time.

use super::bucket::Bucket;
use crate::io::clock::Millis;
use crate::snapshot::{Messages, OverMessages, Rate, WebSocket};
use crate::ws::frame::{Header, Opcode};
use crate::ws::{ControlOpcode, Gate, Pass, Violation};

/// As good as none: no connection lasts until it is used up.
const UNLIMITED: Rate = Rate { count: 1 << 40, per: 1, burst: 1 << 60 };

/// Keeps one side to its limits.
#[derive(Debug)]
pub struct Allowance {
    rates: Option<Rates>,
    max_frame: u64,
    max_fragments: u64,
    /// Frames of the message under way.
    fragments: u64,
    /// How long what had to wait has to.
    wait: Millis,
    /// Messages that were left out.
    dropped: u64,
}

#[derive(Debug)]
struct Rates {
    over: OverMessages,
    messages: (Rate, Bucket),
    bytes: (Rate, Bucket),
    control: (Rate, Bucket),
}

impl Allowance {
    /// An allowance for one side; none where it may do what it likes. Rates are the client's alone.
    pub fn new(settings: &WebSocket, is_client: bool, now: Millis) -> Option<Self> {
        let rates = settings.messages.filter(|_| is_client);
        let (max_frame, max_fragments) = (settings.max_frame, settings.max_fragments);
        if rates.is_none() && max_frame.is_none() && max_fragments.is_none() {
            return None;
        }
        Some(Self {
            rates: rates.map(|rates| Rates::new(&rates, now)),
            max_frame: max_frame.unwrap_or(u64::MAX),
            max_fragments: max_fragments.unwrap_or(u64::MAX),
            fragments: 0,
            wait: 0,
            dropped: 0,
        })
    }

    /// Brings what has become due by now.
    #[inline]
    pub fn refill(&mut self, now: Millis) {
        if let Some(rates) = &mut self.rates {
            rates.messages.1.refill(&rates.messages.0, now);
            rates.bytes.1.refill(&rates.bytes.0, now);
            rates.control.1.refill(&rates.control.0, now);
        }
    }

    /// How long what was told to wait has to, as of the last refill.
    pub fn wait(&self) -> Millis {
        self.wait
    }

    /// How long reading has to pause, because of bytes that have passed before they were due.
    #[inline]
    pub fn debt(&self) -> Option<Millis> {
        let (rate, bucket) = &self.rates.as_ref()?.bytes;
        (!bucket.has(rate, 0)).then(|| bucket.wait(rate, 0))
    }

    /// Messages that were left out.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    #[inline]
    fn measure(&mut self, header: &Header) -> Option<Violation> {
        self.fragments = if header.opcode == Opcode::Continuation { self.fragments + 1 } else { 1 };
        if header.length > self.max_frame {
            return Some(Violation::FrameTooBig);
        }
        (self.fragments > self.max_fragments).then_some(Violation::TooManyFragments)
    }
}

impl Gate for Allowance {
    const DROPS: bool = true;

    #[inline]
    fn data(&mut self, header: &Header) -> Pass {
        if let Some(violation) = self.measure(header) {
            return Pass::Never(violation);
        }
        let Some(rates) = &mut self.rates else { return Pass::Now };
        let pass = rates.data(header);
        match pass {
            Pass::Later => self.wait = rates.wait(),
            Pass::Skip => self.dropped += 1,
            Pass::Now | Pass::Never(_) => {}
        }
        pass
    }

    fn control(&mut self, opcode: ControlOpcode) -> Pass {
        let Some(rates) = self.rates.as_mut().filter(|_| opcode != ControlOpcode::Close) else { return Pass::Now };
        let (rate, bucket) = &mut rates.control;
        if bucket.take(rate, 1) {
            return Pass::Now;
        }
        self.wait = bucket.wait(rate, 1);
        over(rates.over)
    }

    #[inline]
    fn passed(&mut self, bytes: u64) {
        if let Some(rates) = self.rates.as_mut().filter(|rates| rates.over == OverMessages::Delay) {
            rates.bytes.1.owe(&rates.bytes.0, bytes);
        }
    }
}

impl Rates {
    fn new(rules: &Messages, now: Millis) -> Self {
        let bucket = |rate: Option<Rate>| {
            let rate = rate.unwrap_or(UNLIMITED);
            (rate, Bucket::full(&rate, now))
        };
        let [messages, bytes, control] = [rules.rate, rules.bytes, rules.control].map(bucket);
        Self { over: rules.over, messages, bytes, control }
    }

    #[inline]
    fn data(&mut self, header: &Header) -> Pass {
        let ((messages, message_bucket), (bytes, byte_bucket)) = (&mut self.messages, &mut self.bytes);
        let first = header.opcode != Opcode::Continuation;
        match (self.over, first) {
            (OverMessages::Delay, true) => {
                let due = byte_bucket.has(bytes, 1) && message_bucket.take(messages, 1);
                if due { Pass::Now } else { Pass::Later }
            }
            (OverMessages::Delay, false) => Pass::Now,
            (over_limit, true) => {
                // A token for the message only together with those for its bytes.
                if byte_bucket.has(bytes, header.length) && message_bucket.take(messages, 1) {
                    byte_bucket.owe(bytes, header.length);
                    return Pass::Now;
                }
                over(over_limit)
            }
            (OverMessages::Drop, false) => {
                byte_bucket.owe(bytes, header.length);
                Pass::Now
            }
            (OverMessages::Close, false) if byte_bucket.take(bytes, header.length) => Pass::Now,
            (OverMessages::Close, false) => over(OverMessages::Close),
        }
    }

    /// Until a message may begin.
    fn wait(&self) -> Millis {
        let [messages, bytes] = [&self.messages, &self.bytes].map(|(rate, bucket)| bucket.wait(rate, 1));
        messages.max(bytes)
    }
}

fn over(rule: OverMessages) -> Pass {
    match rule {
        OverMessages::Delay => Pass::Later,
        OverMessages::Drop => Pass::Skip,
        OverMessages::Close => Pass::Never(Violation::TooFast),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate { count: 10, per: 1000, burst: 2 };
    const KILO: Rate = Rate { count: 1000, per: 1000, burst: 1000 };

    fn allowance(rate: Option<Rate>, bytes: Option<Rate>, over: OverMessages) -> Allowance {
        let rules = Messages { rate, bytes, control: Some(TEN), over };
        Allowance {
            rates: Some(Rates::new(&rules, 0)),
            max_frame: 500_000,
            max_fragments: 3,
            fragments: 0,
            wait: 0,
            dropped: 0,
        }
    }

    fn frame(opcode: Opcode, length: u64) -> Header {
        Header { fin: true, rsv1: false, opcode, mask: None, length }
    }

    fn text(allowance: &mut Allowance, length: u64) -> Pass {
        let pass = allowance.data(&frame(Opcode::Text, length));
        if pass == Pass::Now {
            allowance.passed(length);
        }
        pass
    }

    #[test]
    fn delay_lets_messages_wait_until_they_are_due() {
        let mut allowance = allowance(Some(TEN), None, OverMessages::Delay);
        assert_eq!([1, 1, 1].map(|length| text(&mut allowance, length)), [Pass::Now, Pass::Now, Pass::Later]);
        assert_eq!((allowance.wait(), allowance.debt()), (100, None));
        allowance.refill(100);
        assert_eq!([1, 1].map(|length| text(&mut allowance, length)), [Pass::Now, Pass::Later]);
        assert_eq!(allowance.data(&frame(Opcode::Continuation, 1)), Pass::Now);
    }

    #[test]
    fn delay_makes_bytes_pay_as_they_pass() {
        let mut allowance = allowance(None, Some(KILO), OverMessages::Delay);
        assert_eq!(text(&mut allowance, 400_000), Pass::Now);
        assert_eq!(allowance.debt(), Some(399_000));
        assert_eq!(text(&mut allowance, 1), Pass::Later);
        assert_eq!(allowance.wait(), 399_001);
    }

    #[test]
    fn what_is_over_is_left_out_whole_or_ends_it() {
        for (over, verdict) in
            [(OverMessages::Drop, Pass::Skip), (OverMessages::Close, Pass::Never(Violation::TooFast))]
        {
            let mut allowance = allowance(Some(TEN), Some(KILO), over);
            // One that is too large takes no token of the others.
            let verdicts = [1001, 900, 101, 100, 0].map(|length| text(&mut allowance, length));
            assert_eq!(verdicts, [verdict.clone(), Pass::Now, verdict.clone(), Pass::Now, verdict]);
            assert_eq!((allowance.debt(), allowance.dropped()), (None, if over == OverMessages::Drop { 3 } else { 0 }));
        }
    }

    #[test]
    fn a_message_that_has_begun_is_never_cut_short_by_drop() {
        let mut dropping = allowance(None, Some(KILO), OverMessages::Drop);
        assert_eq!(text(&mut dropping, 1000), Pass::Now);
        assert_eq!(dropping.data(&frame(Opcode::Continuation, 500)), Pass::Now);
        assert_eq!(dropping.debt(), Some(500));
        let mut closing = allowance(None, Some(KILO), OverMessages::Close);
        assert_eq!(text(&mut closing, 1000), Pass::Now);
        assert_eq!(closing.data(&frame(Opcode::Continuation, 500)), Pass::Never(Violation::TooFast));
    }

    #[test]
    fn control_frames_have_their_own_and_a_close_needs_none() {
        let mut allowance = allowance(Some(TEN), None, OverMessages::Delay);
        let pings =
            [ControlOpcode::Ping, ControlOpcode::Pong, ControlOpcode::Ping].map(|opcode| allowance.control(opcode));
        assert_eq!(pings, [Pass::Now, Pass::Now, Pass::Later]);
        assert_eq!((allowance.wait(), allowance.control(ControlOpcode::Close)), (100, Pass::Now));
        assert_eq!(text(&mut allowance, 1), Pass::Now);
    }

    #[test]
    fn pieces_are_measured_on_their_header() {
        let mut allowance = allowance(None, None, OverMessages::Delay);
        assert_eq!(allowance.data(&frame(Opcode::Text, 500_001)), Pass::Never(Violation::FrameTooBig));
        assert_eq!(allowance.data(&frame(Opcode::Text, 500_000)), Pass::Now);
        let continued = |allowance: &mut Allowance| allowance.data(&frame(Opcode::Continuation, 0));
        assert_eq!([continued(&mut allowance), continued(&mut allowance)], [Pass::Now, Pass::Now]);
        assert_eq!(continued(&mut allowance), Pass::Never(Violation::TooManyFragments));
        assert_eq!(allowance.data(&frame(Opcode::Binary, 0)), Pass::Now);
    }
}
