//! How a peer can break RFC 6455 §5, and what to tell it.

use super::close;
use super::frame::Malformed;

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An RSV bit that nothing negotiated, or RSV1 elsewhere than on a message's first frame.
    ReservedBits,
    ReservedOpcode,
    /// A length in a longer form than it needs, or with its top bit set.
    Length,
    /// A client's frame without a mask.
    Unmasked,
    /// A server's frame with a mask.
    Masked,
    /// A continuation frame while no message is under way.
    Continuation,
    /// A new message before the last one ended.
    Interleaved,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    LongControl,
    /// A Close payload of one byte, or with a code that no endpoint may send.
    BadClose,
    /// A message larger than `max_message`, judged on the header that goes past it.
    TooBig,
    /// A frame larger than `max_frame`.
    FrameTooBig,
    /// A message of more frames than `max_fragments`.
    TooManyFragments,
    /// More than `messages` allows.
    TooFast,
}

impl Violation {
    /// The Close code for who did it.
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooBig | Self::FrameTooBig | Self::TooManyFragments => close::TOO_BIG,
            Self::TooFast => close::TOO_FAST,
            _ => close::PROTOCOL_ERROR,
        }
    }

    /// What was wrong, short enough for a Close reason.
    pub fn text(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Length => "invalid frame length",
            Self::Unmasked => "client frame not masked",
            Self::Masked => "server frame masked",
            Self::Continuation => "continuation of no message",
            Self::Interleaved => "message inside a fragmented message",
            Self::FragmentedControl => "fragmented control frame",
            Self::LongControl => "control frame over 125 bytes",
            Self::BadClose => "invalid close frame",
            Self::TooBig => "message too big",
            Self::FrameTooBig => "frame too big",
            Self::TooManyFragments => "too many fragments",
            Self::TooFast => "too fast",
        }
    }
}

impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::ReservedBits => Self::ReservedBits,
            Malformed::ReservedOpcode => Self::ReservedOpcode,
            Malformed::Length => Self::Length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_has_its_own_code_and_every_text_fits_a_close_frame() {
        assert_eq!(Violation::TooBig.close_code(), 1009);
        assert_eq!(Violation::from(Malformed::Length).close_code(), 1002);
        let texts = [Violation::TooBig, Violation::Interleaved, Violation::FragmentedControl].map(Violation::text);
        assert!(texts.iter().all(|text| text.len() < close::LONGEST_REASON - 20));
    }
}
