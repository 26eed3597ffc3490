//! Any fields of a client and of an upstream: nothing panics, what we send upstream is always one good attempt with our
//! own key, and an answer that we accept keeps within the offer.
//!
//! The input is lines: `name: value`. An empty line divides the client's fields from the upstream's. The first byte
//! chooses the rules; a quarter of the inputs get a right Accept, which no fuzzer guesses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_engine::http::fields::Fields;
use tidegate_engine::ws::handshake::{
    Attempt, Offer, OfferRules, accept_key, answer_fields, check_answer, check_opaque_answer, classify,
    classify_opaque, declares_body, fresh_key, offer_fields,
};

fuzz_target!(|input: &[u8]| {
    let Some((flags, text)) = input.split_first() else { return };
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let mut sides = lines.splitn(2, |line| line.is_empty());
    let client = fields(sides.next().unwrap_or_default());
    let mut upstream = fields(sides.next().unwrap_or_default());

    let has_body = declares_body(&client);
    let judged = classify(b"GET", true, &client, has_body);
    let opaque = classify_opaque(b"GET", true, &client, has_body);
    if let Attempt::WebSocket(_) = judged {
        assert!(!has_body && matches!(opaque, Attempt::WebSocket(_)));
    }
    assert_eq!(classify(b"GET", false, &client, has_body), Attempt::None);

    let (key, allowed) = (fresh_key([*flags; 16]), ["chat".to_owned()]);
    let subprotocols = (flags & 1 == 0).then_some(&allowed[..]);
    let deflate = flags & 2 == 0;
    let (sent, offered) = offer_fields(&client, &OfferRules { key: Some(&key), subprotocols, deflate });
    assert_eq!(classify(b"GET", true, &sent, declares_body(&sent)), Attempt::WebSocket(Offer { key: Some(key) }));

    let accept = accept_key(&key);
    if flags & 12 == 0 {
        upstream.push(b"Sec-WebSocket-Accept", &accept);
        upstream.push(b"Connection", b"upgrade");
        upstream.push(b"Upgrade", b"websocket");
    }
    let _ = check_opaque_answer(101, &upstream);
    if let Ok(accepted) = check_answer(101, &upstream, &accept, &offered) {
        if let Some(chosen) = &accepted.subprotocol {
            assert!(client.elements("Sec-WebSocket-Protocol").any(|name| name == chosen));
            assert!(subprotocols.is_none() || chosen == b"chat");
        }
        assert!(deflate || accepted.deflate.is_none());
        let answer = answer_fields(&upstream, Some(&accept), &accepted);
        assert_eq!(check_answer(101, &answer, &accept, &offered), Ok(accepted));
    }
});

fn fields(lines: &[&[u8]]) -> Fields {
    let mut fields = Fields::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        fields.push(&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii());
    }
    fields
}
