//! The parameters of a query, percent-decoded. A `+` is a plus: RFC 3986 knows no other meaning.

use std::borrow::Cow;

use memchr::memchr;

use super::path::escaped;

/// Names and values in order; a parameter without `=` has an empty value.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = match memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        (decode(name), decode(value))
    })
}

/// What is no escape stays as it is.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr(b'%', text) else { return Cow::Borrowed(text) };
    let mut decoded = text[..first].to_vec();
    let mut rest = &text[first..];
    while let [byte, behind @ ..] = rest {
        let escape = if *byte == b'%' { escaped(behind) } else { None };
        decoded.push(escape.unwrap_or(*byte));
        rest = if escape.is_some() { &behind[2..] } else { behind };
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_decodes() {
        let found: Vec<_> = parameters(b"a=1&&b&=c&d%3D=e=%66%&x=a+b%2").collect();
        let expected = [("a", "1"), ("b", ""), ("", "c"), ("d=", "e=f%"), ("x", "a+b%2")];
        let expected: Vec<_> =
            expected.map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).into_iter().collect();
        assert_eq!(found, expected);
        assert_eq!(parameters(b"").count(), 0);
    }
}
