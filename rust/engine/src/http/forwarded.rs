//! The `Forwarded` field (RFC 7239): one element for each proxy, in the order in which the request went through them.
//!
//! Addresses are read out of it and everything else is text. A field with one fault is unreadable as a whole: a quote
//! that is not closed hides where the elements behind it begin.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::fields::Fields;
use super::method::is_token;

/// What one proxy says about the request that it received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Whom it came from; none where that is left out, unknown or obfuscated (§6).
    pub address: Option<IpAddr>,
    /// The scheme it was made with.
    pub proto: Option<Vec<u8>>,
    /// The Host it had.
    pub host: Option<Vec<u8>>,
}

/// The elements of all `Forwarded` fields; none when they break the grammar (§4).
pub fn parse_forwarded(fields: &Fields) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for value in fields.all("forwarded") {
        parse_value(value, &mut hops)?;
    }
    Some(hops)
}

fn parse_value(value: &[u8], hops: &mut Vec<Hop>) -> Option<()> {
    let mut rest = value;
    loop {
        let mut hop = Hop::default();
        let mut is_empty = true;
        loop {
            rest = rest.trim_ascii_start();
            if !matches!(rest.first(), None | Some(b';' | b',')) {
                rest = parse_pair(rest, &mut hop)?.trim_ascii_start();
                is_empty = false;
            }
            match rest.first() {
                Some(b';') => rest = &rest[1..],
                None | Some(b',') => break,
                Some(_) => return None,
            }
        }
        // Empty elements of a list count for nothing (RFC 9110 §5.6.1).
        if !is_empty {
            hops.push(hop);
        }
        match rest.split_first() {
            Some((_, behind)) => rest = behind,
            None => return Some(()),
        }
    }
}

/// Reads `token "=" value` and returns what follows it.
fn parse_pair<'a>(text: &'a [u8], hop: &mut Hop) -> Option<&'a [u8]> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let name = &text[..equals];
    if !is_token(name) {
        return None;
    }
    let (value, rest) = parse_word(&text[equals + 1..])?;
    match () {
        () if name.eq_ignore_ascii_case(b"for") => hop.address = parse_node(&value),
        () if name.eq_ignore_ascii_case(b"proto") => hop.proto = Some(value),
        () if name.eq_ignore_ascii_case(b"host") => hop.host = Some(value),
        () => {}
    }
    Some(rest)
}

/// A token or a quoted string without its quotes and escapes, and what follows it.
fn parse_word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some((b'"', quoted)) = text.split_first() else {
        let end = text.iter().position(|byte| matches!(byte, b';' | b',' | b' ' | b'\t')).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return is_token(token).then(|| (token.to_vec(), rest));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(*byte),
        }
    }
    None
}

/// The address in `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]` or `[2001:db8::1]:80`; a bare IPv6 address too, which
/// `X-Forwarded-For` has.
pub fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(bracketed).or_else(with_port);
    address.map(|address| address.to_canonical())
}

/// Writes one element behind those that are in `out` already.
pub fn write_hop(out: &mut Vec<u8>, hop: &Hop) {
    if !out.is_empty() {
        out.extend_from_slice(b", ");
    }
    write_element(out, hop.address, hop.proto.as_deref(), hop.host.as_deref());
}

/// Appends one element, as [`write_hop`] does, whatever stands before it.
pub fn write_element(out: &mut Vec<u8>, address: Option<IpAddr>, proto: Option<&[u8]>, host: Option<&[u8]>) {
    // Writing to a vector does not fail.
    let _ = match address {
        Some(IpAddr::V4(address)) => write!(out, "for={address}"),
        Some(IpAddr::V6(address)) => write!(out, "for=\"[{address}]\""),
        None => out.write_all(b"for=unknown"),
    };
    for (name, value) in [(&b";host="[..], host), (b";proto=", proto)] {
        if let Some(value) = value {
            out.extend_from_slice(name);
            write_word(out, value);
        }
    }
}

fn write_word(out: &mut Vec<u8>, value: &[u8]) {
    if is_token(value) {
        return out.extend_from_slice(value);
    }
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Vec<Hop>> {
        let mut fields = Fields::new();
        fields.push(b"Forwarded", text.as_bytes());
        parse_forwarded(&fields)
    }

    fn addresses(text: &str) -> Vec<String> {
        let name = |hop: Hop| hop.address.map_or_else(|| "-".into(), |address| address.to_string());
        parse(text).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(addresses("for=\"_gazonk\""), ["-"]);
        assert_eq!(addresses("For=\"[2001:db8:cafe::17]:4711\""), ["2001:db8:cafe::17"]);
        assert_eq!(addresses("for=192.0.2.43, for=198.51.100.17"), ["192.0.2.43", "198.51.100.17"]);
        assert_eq!(addresses("for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown").len(), 3);
        let hops = parse("for=192.0.2.60;proto=http;by=203.0.113.43;host=\"a:1\"").unwrap();
        assert_eq!((hops[0].proto.as_deref(), hops[0].host.as_deref()), (Some(&b"http"[..]), Some(&b"a:1"[..])));
    }

    #[test]
    fn separators_in_quotes_separate_nothing() {
        assert_eq!(addresses(r#"for=1.1.1.1;secret="a, for=6.6.6.6\"; b", for=2.2.2.2"#), ["1.1.1.1", "2.2.2.2"]);
        assert_eq!(addresses(" , for=1.1.1.1 ; ;proto=http,"), ["1.1.1.1"]);
    }

    #[test]
    fn a_fault_makes_all_of_it_unreadable() {
        for text in ["for", "for=", "for=1.1.1.1, x", "for=\"1.1.1.1", "for=\"a\\", "fo r=1", "for=1.1.1.1 x", "=1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let hops = ["1.2.3.4", "2001:db8::1", "-"].map(|address| Hop {
            address: address.parse().ok(),
            proto: Some(b"https".to_vec()),
            host: Some(b"[::1]:8443\\\"".to_vec()),
        });
        let mut text = Vec::new();
        hops.iter().for_each(|hop| write_hop(&mut text, hop));
        assert_eq!(parse(std::str::from_utf8(&text).unwrap()).unwrap(), hops);
        text.clear();
        write_hop(&mut text, &Hop { host: Some(b"a.test".to_vec()), ..hops[0].clone() });
        assert_eq!(text, b"for=1.2.3.4;host=a.test;proto=https");
    }
}
