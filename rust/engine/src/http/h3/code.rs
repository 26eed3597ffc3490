//! Error codes (RFC 9114 §8.1, RFC 9204 §6).

use std::fmt;

/// Why a stream or a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u64);

impl Code {
    pub const NO_ERROR: Self = Self(0x100);
    pub const INTERNAL_ERROR: Self = Self(0x102);
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    pub const FRAME_ERROR: Self = Self(0x106);
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    pub const ID_ERROR: Self = Self(0x108);
    pub const SETTINGS_ERROR: Self = Self(0x109);
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    pub const CONNECT_ERROR: Self = Self(0x10f);
    pub const VERSION_FALLBACK: Self = Self(0x110);
    pub const DECOMPRESSION_FAILED: Self = Self(0x200);
    pub const ENCODER_STREAM_ERROR: Self = Self(0x201);
    pub const DECODER_STREAM_ERROR: Self = Self(0x202);

    /// As a value of metrics; those that we never say have none of their own.
    pub const fn label(self) -> &'static str {
        match self {
            Self::STREAM_CREATION_ERROR => "stream_creation_error",
            Self::CLOSED_CRITICAL_STREAM => "closed_critical_stream",
            Self::FRAME_UNEXPECTED => "frame_unexpected",
            Self::FRAME_ERROR => "frame_error",
            Self::EXCESSIVE_LOAD => "excessive_load",
            Self::ID_ERROR => "id_error",
            Self::SETTINGS_ERROR => "settings_error",
            Self::MISSING_SETTINGS => "missing_settings",
            Self::DECOMPRESSION_FAILED => "decompression_failed",
            Self::ENCODER_STREAM_ERROR => "encoder_stream_error",
            Self::DECODER_STREAM_ERROR => "decoder_stream_error",
            _ => "other",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error {:#x} of HTTP/3", self.0)
    }
}

impl std::error::Error for Code {}
