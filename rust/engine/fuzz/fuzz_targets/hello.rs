//! Hostile ClientHellos: no panic, the same verdict whole and byte by byte, and names that are names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_engine::tls::{HELLO_LIMIT, ParsedHello, parse_hello};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse_hello(bytes);
    let first =
        (0..=bytes.len()).map(|end| parse_hello(&bytes[..end])).find(|parsed| *parsed != Ok(ParsedHello::Partial));
    assert_eq!(whole, first.unwrap_or(Ok(ParsedHello::Partial)));
    match whole {
        Ok(ParsedHello::Partial) => assert!(bytes.len() < HELLO_LIMIT),
        Ok(ParsedHello::Complete { server_name: Some(name) }) => {
            assert!((1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Ok(ParsedHello::Complete { server_name: None }) | Err(_) => {}
    }
});
