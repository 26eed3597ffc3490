//! Hostile PROXY headers: no panic, the same verdict whole and byte by byte, and addresses that survive being written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_engine::io::proxy_protocol::{LIMIT, ParsedProxy, ProxyHeader, parse, write_v1, write_v2};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|parsed| *parsed != Ok(ParsedProxy::Partial));
    assert_eq!(whole, first.unwrap_or(Ok(ParsedProxy::Partial)));
    match whole {
        Ok(ParsedProxy::Partial) => assert!(bytes.len() < LIMIT),
        Ok(ParsedProxy::Complete { header, consumed }) => {
            assert!(consumed <= bytes.len().min(LIMIT));
            check_round_trip(header);
        }
        Err(_) => {}
    }
});

fn check_round_trip(header: ProxyHeader) {
    let ProxyHeader::Addresses { source, destination } = header else { return };
    for write in [write_v1, write_v2] {
        let mut written = Vec::new();
        write(&mut written, source, destination);
        assert_eq!(parse(&written), Ok(ParsedProxy::Complete { header, consumed: written.len() }));
    }
}
