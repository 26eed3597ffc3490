//! Request methods and tokens (RFC 9110 §9, §5.6.2).

use std::fmt;

/// A request method. Methods are compared with case; one without a variant of its own keeps its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    /// Any other token.
    Other(Box<[u8]>),
}

impl Method {
    /// The method spelled `bytes`, if that is a token.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ if is_token(bytes) => Self::Other(bytes.into()),
            _ => return None,
        })
    }

    /// The method as it goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Options => b"OPTIONS",
            Self::Patch => b"PATCH",
            Self::Trace => b"TRACE",
            Self::Connect => b"CONNECT",
            Self::Other(bytes) => bytes,
        }
    }

    /// The method as text.
    pub fn as_str(&self) -> &str {
        // A token is ASCII, so the fallback is never taken.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Whether a second request of this kind does nothing that the first did not (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether `bytes` is a token: one or more of the characters that names are made of.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_spelling() {
        for spelling in
            ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "M-SEARCH"]
        {
            assert_eq!(Method::new(spelling.as_bytes()).unwrap().as_str(), spelling);
        }
        assert_ne!(Method::new(b"get"), Some(Method::Get));
    }

    #[test]
    fn is_a_token() {
        for spelling in [&b""[..], b"GE T", b"GET\r", b"G\x80T", b"GET:", b"\"GET\"", b"\0"] {
            assert_eq!(Method::new(spelling), None);
        }
    }
}
