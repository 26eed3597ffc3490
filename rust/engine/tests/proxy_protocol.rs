//! The PROXY protocol reader: headers from the specification, splits, junk.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_engine::io::proxy_protocol::{BadProxyHeader, LIMIT, ParsedProxy, ProxyHeader, parse, write_v1, write_v2};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Addresses { source: address(source), destination: address(destination) }
}

fn complete(header: ProxyHeader, consumed: usize) -> Result<ParsedProxy, BadProxyHeader> {
    Ok(ParsedProxy::Complete { header, consumed })
}

/// A version 2 header whose length is right.
fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, content].concat()
}

/// The first verdict but "more", when the bytes come one by one.
fn slowly(bytes: &[u8]) -> Result<ParsedProxy, BadProxyHeader> {
    (0..bytes.len())
        .map(|end| parse(&bytes[..end]))
        .find(|parsed| *parsed != Ok(ParsedProxy::Partial))
        .unwrap_or_else(|| parse(bytes))
}

#[test]
fn lines() {
    for (line, header) in [
        ("PROXY TCP4 255.255.255.255 1.2.3.4 65535 0\r\n", addresses("255.255.255.255:65535", "1.2.3.4:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 443\r\n", addresses("[2001:db8::1]:1", "[::1]:443")),
        ("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", addresses("1.2.3.4:1", "[::1]:2")),
        ("PROXY UNKNOWN\r\n", ProxyHeader::Unknown),
        ("PROXY UNKNOWN ffff:f...f:ffff whatever 1\r\n", ProxyHeader::Unknown),
    ] {
        let bytes = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&bytes), complete(header, line.len()), "{line}");
        assert_eq!(slowly(&bytes), complete(header, line.len()), "{line}");
    }
}

#[test]
fn the_longest_line() {
    let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
    assert_eq!((line.len(), parse(line.as_bytes())), (107, complete(ProxyHeader::Unknown, 107)));
    let line = format!("PROXY UNKNOWN {address} {address} 65535 65535 \r\n");
    assert_eq!(parse(line.as_bytes()), Err(BadProxyHeader::Line));
    assert_eq!(slowly(line.as_bytes()), Err(BadProxyHeader::Line));
}

#[test]
fn bad_lines() {
    use BadProxyHeader::{Address, Line, Port, Signature};
    for (line, fault) in [
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Signature),
        ("POST / HTTP/1.1\r\n", Signature),
        ("PROXY TCP5", Signature),
        ("PROXY  TCP4", Signature),
        ("PROXY UDP4", Signature),
        ("PROXY UNKNOWNS\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\0", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Line),
        ("PROXY TCP4 \r\n", Address),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", Port),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(fault), "{line:?}");
        assert_eq!(slowly(line.as_bytes()), Err(fault), "{line:?}");
    }
}

#[test]
fn binaries() {
    let four = [1, 2, 3, 4, 5, 6, 7, 8, 0x1f, 0x90, 0x01, 0xbb];
    let six: Vec<u8> = [&[0; 10][..], &[0xff, 0xff, 1, 2, 3, 4], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
    let with_extensions = [&four[..], &[0x04, 0, 2, 0, 0], &[0xea, 0, 0]].concat();
    for (bytes, header) in [
        (binary(0x21, 0x11, &four), addresses("1.2.3.4:8080", "5.6.7.8:443")),
        (binary(0x21, 0x11, &with_extensions), addresses("1.2.3.4:8080", "5.6.7.8:443")),
        (binary(0x21, 0x21, &six), addresses("1.2.3.4:1", "[::1]:2")),
        (binary(0x21, 0x31, &[b'/'; 216]), ProxyHeader::Unknown),
        (binary(0x21, 0x00, &[]), ProxyHeader::Unknown),
        (binary(0x21, 0x00, b"anything"), ProxyHeader::Unknown),
        (binary(0x20, 0x00, &[]), ProxyHeader::Local),
        (binary(0x20, 0x11, b"any"), ProxyHeader::Local),
        (binary(0x20, 0xff, &[0; LIMIT - 16]), ProxyHeader::Local),
    ] {
        let length = bytes.len();
        let bytes = [&bytes[..], b"\x16\x03"].concat();
        assert_eq!(parse(&bytes), complete(header, length));
        assert_eq!(slowly(&bytes), complete(header, length));
    }
}

#[test]
fn bad_binaries() {
    use BadProxyHeader::{Command, Extension, Family, Length, Signature};
    let four = [0; 12];
    for (bytes, fault) in [
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), Signature),
        (b"GET".to_vec(), Signature),
        (b"\x16".to_vec(), Signature),
        (binary(0x11, 0x11, &four), Command),
        (binary(0x22, 0x11, &four), Command),
        (binary(0x21, 0x12, &four), Family),
        (binary(0x21, 0x41, &four), Family),
        (binary(0x21, 0x01, &four), Family),
        (binary(0x21, 0x11, &four[1..]), Length),
        (binary(0x21, 0x21, &[0; 35]), Length),
        (binary(0x20, 0x00, &[0; LIMIT - 15]), Length),
        (binary(0x21, 0x11, &[&four[..], &[4, 0]].concat()), Extension),
        (binary(0x21, 0x11, &[&four[..], &[4, 0, 1]].concat()), Extension),
        (binary(0x21, 0x11, &[&four[..], &[3, 0, 3, 0, 0, 0]].concat()), Extension),
    ] {
        assert_eq!(parse(&bytes), Err(fault), "{bytes:?}");
        assert_eq!(slowly(&bytes), Err(fault), "{bytes:?}");
    }
}

#[test]
fn a_checksum_is_checked_wherever_it_stands() {
    let mut bytes = Vec::new();
    write_v2(&mut bytes, address("1.2.3.4:5"), address("6.7.8.9:10"));
    assert_eq!(parse(&bytes), complete(addresses("1.2.3.4:5", "6.7.8.9:10"), bytes.len()));
    for at in 16..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let is_checksum_kind = at == 28;
        assert_eq!(parse(&damaged).is_ok(), is_checksum_kind, "byte {at}: only without its type it is not a checksum");
    }
}

/// Made by another implementation (Python, table-driven, checked against the catalogue's value): the sum stands before
/// another TLV, so that it covers bytes on both sides of itself.
#[test]
fn a_foreign_checksum() {
    let addresses_and_sum = [192, 0, 2, 1, 192, 0, 2, 2, 0x30, 0x39, 0x00, 0x50, 3, 0, 4];
    let bytes = binary(0x21, 0x11, &[&addresses_and_sum[..], &FOREIGN_SUM, &[4, 0, 1, 0]].concat());
    assert_eq!(parse(&bytes), complete(addresses("192.0.2.1:12345", "192.0.2.2:80"), bytes.len()));
}

const FOREIGN_SUM: [u8; 4] = [0xc8, 0x1e, 0x9a, 0xa6];

fn any_address() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(source in any_address(), destination in any_address(), next in vec(any::<u8>(), 0..8)) {
        for write in [write_v1, write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, source, destination);
            let length = bytes.len();
            bytes.extend(&next);
            prop_assert_eq!(parse(&bytes), complete(ProxyHeader::Addresses { source, destination }, length));
            prop_assert_eq!(slowly(&bytes), parse(&bytes));
        }
    }

    #[test]
    fn splits_do_not_matter(source in any_address(), at in any::<prop::sample::Index>(), byte: u8) {
        for write in [write_v1, write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, source, address("[::1]:1"));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert_eq!(slowly(&bytes), parse(&bytes));
        }
    }

    #[test]
    fn junk_never_panics(junk in vec(any::<u8>(), 0..64), is_binary: bool) {
        let bytes = if is_binary { [SIGNATURE, b"\x21", &junk].concat() } else { [b"PROXY ", &junk[..]].concat() };
        for bytes in [&bytes, &junk] {
            prop_assert_eq!(slowly(bytes), parse(bytes));
        }
    }
}
