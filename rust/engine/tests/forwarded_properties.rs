//! Properties of the `Forwarded` field: what is written is read, faults and random bytes harm nobody.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_engine::http::Fields;
use tidegate_engine::http::forwarded::{Hop, parse_forwarded, parse_node, write_hop};

fn fields(values: &[Vec<u8>]) -> Fields {
    let mut fields = Fields::new();
    values.iter().for_each(|value| fields.push(b"Forwarded", value));
    fields
}

/// Printable ASCII and bytes above it: what a field's value may have.
fn word() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..12)
}

fn hop() -> impl Strategy<Value = Hop> {
    (proptest::option::of(any::<IpAddr>()), proptest::option::of(word()), proptest::option::of(word()))
        .prop_map(|(address, proto, host)| Hop { address: address.map(|address| address.to_canonical()), proto, host })
}

/// Pieces of elements, so that random input gets past the first byte.
fn nearly_forwarded() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 13] =
        ["for=", "1.1.1.1", "\"", "\\", ";", ",", " ", "=", "proto=http", "[::1]", "unknown", "x", "host=a"];
    vec(prop_oneof![proptest::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()), word()], 0..16)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn reads_what_it_writes(hops in vec(hop(), 1..6)) {
        let mut text = Vec::new();
        hops.iter().for_each(|hop| write_hop(&mut text, hop));
        prop_assert_eq!(parse_forwarded(&fields(&[text])), Some(hops));
    }

    #[test]
    fn elements_may_be_spread_over_fields(hops in vec(hop(), 1..6)) {
        let lines: Vec<Vec<u8>> = hops
            .iter()
            .map(|hop| {
                let mut text = Vec::new();
                write_hop(&mut text, hop);
                text
            })
            .collect();
        prop_assert_eq!(parse_forwarded(&fields(&lines)), Some(hops));
    }

    /// One fault makes all of it unreadable: nobody can put words into an earlier proxy's mouth by breaking them.
    #[test]
    fn what_is_appended_changes_nothing_before_it(hops in vec(hop(), 1..4), more in nearly_forwarded()) {
        let mut text = Vec::new();
        hops.iter().for_each(|hop| write_hop(&mut text, hop));
        text.extend_from_slice(b", ");
        text.extend_from_slice(&more);
        if let Some(read) = parse_forwarded(&fields(&[text])) {
            prop_assert_eq!(&read[..hops.len()], &hops[..]);
        }
    }

    #[test]
    fn nothing_panics(value in prop_oneof![nearly_forwarded(), vec(any::<u8>(), 0..64)]) {
        parse_node(&value);
        parse_forwarded(&fields(&[value]));
    }
}
