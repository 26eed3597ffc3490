//! Heads of HTTP/2 (RFC 9113 §8): from and to the values that the `h2` crate has for them.

use ::http::HeaderMap;
use ::http::header::{HeaderName, HeaderValue};

use super::fields::Fields;
use super::write::is_one_of;

/// The fields of a head or of trailers.
pub fn from_map(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    map.iter().for_each(|(name, value)| fields.push(name.as_str().as_bytes(), value.as_bytes()));
    fields
}

/// Fields as HTTP/2 takes them: with names in small letters, and without those of a connection of HTTP/1.1 (RFC 9113
/// §8.2.2).
pub fn to_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter().filter(|(name, _)| !is_of_connection(name)) {
        // Names and values that were read, or made by us, are what both versions take.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

fn is_of_connection(name: &[u8]) -> bool {
    const OWN: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];
    is_one_of(name, &OWN)
}
