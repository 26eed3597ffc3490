//! The server name of a ClientHello that is passed on: real ones, cut ones, hostile ones.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tidegate_engine::tls::{BadHello, HELLO_LIMIT, ParsedHello, parse_hello};

/// What rustls sends first to a server of that name.
fn real(name: &str) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    // Whom it believes comes later.
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn vector(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(&[&[0][..], &vector(name)].concat()))
}

/// A message with these extensions; none at all where there is nothing.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]);
    body.extend(vector(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(extensions.map(vector).unwrap_or_default());
    [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// In records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &vector(chunk)].concat()).collect()
}

fn hello(extensions: &[u8]) -> Vec<u8> {
    records(&message(Some(extensions)), 1 << 14)
}

fn named(name: &str) -> Result<ParsedHello, BadHello> {
    Ok(ParsedHello::Complete { server_name: Some(name.to_owned()) })
}

const NAMELESS: Result<ParsedHello, BadHello> = Ok(ParsedHello::Complete { server_name: None });

#[test]
fn real_ones() {
    assert_eq!(parse_hello(&real("db.example.com")), named("db.example.com"));
    assert_eq!(parse_hello(&real("192.0.2.1")), NAMELESS);
}

#[test]
fn names_are_in_lower_case() {
    assert_eq!(parse_hello(&hello(&server_name(b"DB.Example.com"))), named("db.example.com"));
}

#[test]
fn a_name_among_others_that_we_do_not_know() {
    let extensions = [extension(0xfe0d, &[1; 300]), server_name(b"a.test"), extension(43, &[2, 3, 4])].concat();
    assert_eq!(parse_hello(&hello(&extensions)), named("a.test"));
}

#[test]
fn no_name() {
    assert_eq!(parse_hello(&hello(&[])), NAMELESS);
    assert_eq!(parse_hello(&hello(&extension(43, &[2, 3, 4]))), NAMELESS);
    assert_eq!(parse_hello(&records(&message(None), 1 << 14)), NAMELESS);
}

#[test]
fn what_follows_the_hello_does_not_matter() {
    let bytes = [hello(&server_name(b"a.test")), vec![0xff; 100]].concat();
    assert_eq!(parse_hello(&bytes), named("a.test"));
}

#[test]
fn what_is_no_tls_is_told_at_once() {
    for bytes in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"\x16\x02", b"SSH-2.0", &[22, 3, 1, 0, 5, 2], &[0x80, 0x2e, 1]] {
        assert_eq!(parse_hello(bytes), Err(BadHello::NotTls), "{bytes:?}");
    }
}

#[test]
fn what_could_be_read_in_two_ways() {
    let good = server_name(b"a.test");
    let two_names = vector(&[&[0][..], &vector(b"a.test"), &[0], &vector(b"b.test")].concat());
    let bad = [
        [good.clone(), server_name(b"b.test")].concat(),
        extension(0, &two_names),
        extension(0, &vector(&[&[1][..], &vector(b"a.test")].concat())),
        extension(0, &[]),
        extension(0, &[&vector(&[&[0][..], &vector(b"a.test")].concat())[..], &[0]].concat()),
        server_name(b""),
        server_name(b"a.test\0b.test"),
        server_name(b"a test"),
        server_name("ä.test".as_bytes()),
        server_name(&[b'a'; 256]),
        vec![0, 0, 0, 200],
        vec![0],
    ];
    for extensions in bad {
        assert_eq!(parse_hello(&hello(&extensions)), Err(BadHello::Malformed), "{extensions:?}");
    }
    let mut trailing = message(Some(&good));
    trailing.push(0);
    trailing[3] += 1;
    assert_eq!(parse_hello(&records(&trailing, 1 << 14)), Err(BadHello::Malformed));
    assert_eq!(parse_hello(&[22, 3, 1, 0, 0]), Err(BadHello::Malformed));
}

#[test]
fn limits() {
    assert_eq!(parse_hello(&[22, 3, 1, 0x40, 1]), Err(BadHello::TooLong));
    assert_eq!(parse_hello(&[22, 3, 1, 0, 9, 1, 0, 0x40, 1]), Err(BadHello::TooLong));
    let long = hello(&[server_name(b"a.test"), extension(21, &vec![0; 16_000])].concat());
    assert_eq!(parse_hello(&long), named("a.test"));
    // Records of one byte cost six: a long message cannot be told so.
    let crumbs = records(&message(Some(&extension(21, &vec![0; 8_000]))), 1);
    assert!(matches!(parse_hello(&crumbs[..HELLO_LIMIT - 1]), Ok(ParsedHello::Partial)));
    assert_eq!(parse_hello(&crumbs[..HELLO_LIMIT]), Err(BadHello::TooLong));
}

proptest! {
    #[test]
    fn however_it_is_cut_into_records(size in 1usize..600) {
        let bytes = records(&message(Some(&server_name(b"db.example.com"))), size);
        prop_assert_eq!(parse_hello(&bytes), named("db.example.com"));
        for end in 0..bytes.len() {
            prop_assert_eq!(parse_hello(&bytes[..end]), Ok(ParsedHello::Partial));
        }
    }

    #[test]
    fn what_is_refused_stays_refused(bytes: Vec<u8>, more: Vec<u8>) {
        let first = parse_hello(&bytes);
        let whole = [bytes, more].concat();
        if first != Ok(ParsedHello::Partial) {
            prop_assert_eq!(parse_hello(&whole), first);
        }
    }

    #[test]
    fn damage_never_gives_another_name_that_is_none(position in 0usize..200, byte: u8) {
        let mut bytes = real("db.example.com");
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(ParsedHello::Complete { server_name: Some(name) }) = parse_hello(&bytes) {
            prop_assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
