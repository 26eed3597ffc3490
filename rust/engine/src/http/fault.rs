//! Everything that can be wrong with a head, in one table.
//!
//! The sentences are for the person whose client or server sent the head; the reasons are for logs and metrics. After
//! any of them the connection must close: where the next message begins is no longer certain (RFC 9112 §9.3).

use std::fmt;

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHead {
    /// The status to answer a client with; 502 when the head came from a server.
    pub status: u16,
    /// A stable identifier in snake case.
    pub reason: &'static str,
    /// One sentence for people.
    pub text: &'static str,
}

impl BadHead {
    /// The same fault in a response: the server is to blame, so the client gets a 502.
    pub(super) fn by_server(self) -> Self {
        Self { status: 502, ..self }
    }
}

impl fmt::Display for BadHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.text, self.reason)
    }
}

impl std::error::Error for BadHead {}

macro_rules! faults {
    ($($name:ident: $status:literal, $reason:literal, $text:literal;)*) => {
        $(pub const $name: BadHead = BadHead { status: $status, reason: $reason, text: $text };)*
    };
}

faults! {
    BARE_LINE_FEED: 400, "bare_line_feed", "A line of the head ends with LF alone.";
    BARE_CARRIAGE_RETURN: 400, "bare_carriage_return", "The head has a CR that no LF follows.";
    FOLDED_LINE: 400, "obs_fold", "A line of the head begins with white space.";
    EMPTY_LINES: 400, "empty_lines", "More than one empty line stands before the first line.";
    HEAD_TOO_LARGE: 431, "head_too_large", "The head is larger than the limit.";
    TOO_MANY_FIELDS: 431, "too_many_fields", "The head has more than 100 fields.";
    FIRST_LINE_TOO_LONG: 414, "first_line_too_long", "The first line is longer than half the limit of the head.";
    NOT_HTTP: 400, "not_http", "These bytes are not HTTP/1.";

    REQUEST_LINE: 400, "request_line", "The request line is not 'method target version' with single spaces.";
    METHOD: 400, "method", "The method is not a token.";
    VERSION: 505, "version_unsupported", "Only HTTP/1.0 and HTTP/1.1 are spoken here.";
    CONNECT_TARGET: 400, "connect_target", "CONNECT asks for 'host:port' and nothing else.";
    TARGET_CHARACTER: 400, "target_character", "The request target has a byte that is not printable ASCII, or a '#'.";
    TARGET_FORM: 400, "target_form", "The request target is neither a path nor an http or https address.";
    STATUS_LINE: 400, "status_line", "The status line is not 'version status reason'.";

    FIELD_NAME: 400, "field_name", "A field name is empty, is not a token, or is followed by a space.";
    FIELD_VALUE: 400, "field_value", "A field value has a control character.";
    FIELD_BLOCK: 400, "field_block", "The fields cannot be read.";

    HOST_MISSING: 400, "host_missing", "An HTTP/1.1 request needs a Host field.";
    HOST_REPEATED: 400, "host_repeated", "There are several Host fields.";
    HOST_INVALID: 400, "host_invalid", "The host is not a name or address with an optional port.";
    HOST_MISMATCH: 400, "host_mismatch", "The Host field differs from the host in the request target.";

    // Servers that give fields to applications as variables (CGI, WSGI) do not tell `_` from `-`.
    FRAMING_NAME: 400, "framing_name", "A field is called Content_Length or Transfer_Encoding, with an underscore.";
    LENGTH_INVALID: 400, "length_invalid", "Content-Length is not a plain decimal number.";
    LENGTH_REPEATED: 400, "length_repeated", "There are several Content-Length values.";
    LENGTH_AND_ENCODING: 400, "length_and_encoding", "Content-Length stands beside Transfer-Encoding.";
    ENCODING_INVALID: 400, "encoding_invalid", "Transfer-Encoding is not exactly 'chunked'.";
    ENCODING_UNSUPPORTED: 501, "encoding_unsupported", "Of transfer codings only 'chunked' is supported.";
    ENCODING_TOO_NEW: 400, "encoding_in_http_1_0", "HTTP/1.0 has no Transfer-Encoding.";
}
