//! The handshake against each attack on upgrades that is known by name, and against the tables of the design.

use proptest::prelude::*;
use tidegate_engine::http::fields::Fields;
use tidegate_engine::ws::handshake::{
    Accepted, Attempt, Fake, Offer, OfferRules, Offered, accept_key, answer_fields, check_answer, check_opaque_answer,
    classify, classify_opaque, declares_body, fresh_key, offer_fields,
};

const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
    fields
}

fn request(changes: &[(&str, &str)]) -> Fields {
    changed(
        &[
            ("Host", "chat.example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", CLIENT_KEY),
            ("Sec-WebSocket-Version", "13"),
        ],
        changes,
    )
}

fn key() -> [u8; 24] {
    fresh_key([7; 16])
}

fn answer(changes: &[(&str, &str)]) -> Fields {
    let accept = String::from_utf8(accept_key(&key()).to_vec()).unwrap();
    changed(&[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &accept)], changes)
}

/// `base`, with `changes` in the place of the fields that they name. A name with `+` is added, a value `-` removes.
fn changed(base: &[(&str, &str)], changes: &[(&str, &str)]) -> Fields {
    let mut result = fields(base);
    changes.iter().filter(|(name, _)| !name.starts_with('+')).for_each(|(name, _)| result.remove(name));
    for (name, value) in changes.iter().filter(|(_, value)| *value != "-") {
        result.push(name.trim_start_matches('+').as_bytes(), value.as_bytes());
    }
    result
}

/// What becomes of a GET with these changes: `websocket`, `plain`, or status and reason of a refusal.
fn verdict(method: &str, changes: &[(&str, &str)]) -> String {
    let fields = request(changes);
    match classify(method.as_bytes(), true, &fields, declares_body(&fields)) {
        Attempt::None => "plain".to_owned(),
        Attempt::WebSocket(Offer { .. }) => "websocket".to_owned(),
        Attempt::Refused(refusal) => format!("{} {}", refusal.status, refusal.reason),
    }
}

fn check(status: u16, changes: &[(&str, &str)]) -> Result<Accepted, Fake> {
    check_answer(status, &answer(changes), &accept_key(&key()), &offered(&[]))
}

fn offered(client: &[(&str, &str)]) -> Offered {
    let key = key();
    offer_fields(&request(client), &OfferRules { key: Some(&key), subprotocols: None, deflate: true }).1
}

#[test]
fn is_a_websocket_allowed_here() {
    for (method, changes, expected) in [
        ("GET", &[][..], "websocket"),
        ("GET", &[("Upgrade", "WebSocket"), ("Connection", "keep-alive, UPGRADE")], "websocket"),
        ("GET", &[("+Connection", "keep-alive")], "websocket"),
        ("GET", &[("Content-Length", "0")], "websocket"),
        ("GET", &[("Upgrade", "-")], "plain"),
        ("GET", &[("Connection", "-")], "plain"),
        ("GET", &[("Upgrade", "h2c")], "plain"),
        ("GET", &[("Upgrade", "websockets")], "plain"),
        ("GET", &[("Upgrade", "web socket")], "plain"),
        ("POST", &[("Upgrade", "-")], "plain"),
        ("GET", &[("Sec-WebSocket-Version", "-")], "426 websocket_version"),
        ("GET", &[("Sec-WebSocket-Version", "8")], "426 websocket_version"),
        ("GET", &[("Sec-WebSocket-Version", "013")], "426 websocket_version"),
        ("GET", &[("Sec-WebSocket-Version", "13, 8")], "426 websocket_version"),
        ("GET", &[("+Sec-WebSocket-Version", "13")], "426 websocket_version"),
        ("POST", &[], "400 websocket_method"),
        ("HEAD", &[], "400 websocket_method"),
        ("get", &[], "400 websocket_method"),
        ("POST", &[("Sec-WebSocket-Version", "8")], "400 websocket_method"),
        ("GET", &[("Sec-WebSocket-Key", "-"), ("Sec-WebSocket-Version", "8")], "400 websocket_key"),
        ("GET", &[("Sec-WebSocket-Key", "-")], "400 websocket_key"),
        ("GET", &[("Sec-WebSocket-Key", "SGVsbG8sIHdvcmxkIQ==")], "400 websocket_key"),
        ("GET", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==, x")], "400 websocket_key"),
        ("GET", &[("Upgrade", "websocket, foo")], "400 websocket_upgrade"),
        ("GET", &[("Upgrade", "websocket, websocket")], "400 websocket_upgrade"),
        ("GET", &[("+Upgrade", "websocket")], "400 websocket_upgrade"),
    ] {
        assert_eq!(verdict(method, changes), expected, "{method} {changes:?}");
    }
    assert_eq!(classify(b"GET", false, &request(&[]), false), Attempt::None, "HTTP/1.0");
}

#[test]
fn cve_2024_23326_a_200_is_no_upgrade() {
    for status in [100, 102, 103, 200, 204, 302, 403, 426, 502] {
        assert_eq!(check(status, &[]), Err(Fake::Status), "{status}");
        assert_eq!(check_opaque_answer(status, &answer(&[])), Err(Fake::Status), "{status}");
    }
    assert_eq!(check(101, &[]), Ok(Accepted::default()));
}

#[test]
fn cve_2026_2833_nothing_is_open_before_a_validated_101() {
    // Only an `Accepted` opens the relay, and no answer short of a whole 101 makes one.
    assert_eq!(check_answer(101, &Fields::new(), &accept_key(&key()), &offered(&[])), Err(Fake::Upgrade));
    assert_eq!(check(200, &[("Content-Length", "0")]), Err(Fake::Status));
}

#[test]
fn cve_2026_58055_an_upgrade_with_a_body_is_refused() {
    for body in
        [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Content-Length", "0, 5"), ("Content-Length", "")]
    {
        assert_eq!(verdict("GET", &[body]), "400 websocket_body", "{body:?}");
        let fields = request(&[body]);
        let opaque = classify_opaque(b"GET", true, &fields, declares_body(&fields));
        assert!(matches!(opaque, Attempt::Refused(refusal) if refusal.status == 400), "{body:?}");
    }
    assert_eq!(verdict("GET", &[("Content-Length", "0"), ("+Content-Length", "9")]), "400 websocket_body");
    let (sent, _) = offer_fields(&request(&[("Content-Length", "0")]), &rules(&key()));
    assert!(!sent.has("Content-Length") && !sent.has("Transfer-Encoding"));
}

#[test]
fn h2c_and_its_company() {
    assert_eq!(verdict("GET", &[("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings")]), "plain");
    assert_eq!(verdict("GET", &[("Upgrade", "websocket, h2c")]), "400 websocket_upgrade");
    assert_eq!(verdict("GET", &[("Upgrade", "h2c, websocket")]), "400 websocket_upgrade");
    assert_eq!(verdict("GET", &[("+Upgrade", "h2c")]), "400 websocket_upgrade");
    let smuggled = request(&[("HTTP2-Settings", "AAMAAABkAAQAAP__"), ("Connection", "Upgrade, HTTP2-Settings")]);
    let (sent, _) = offer_fields(&smuggled, &rules(&key()));
    assert!(!sent.has("HTTP2-Settings"));
    assert_eq!(sent.all("Connection").collect::<Vec<_>>(), [b"Upgrade"]);
}

#[test]
fn connection_not_upgrade_is_no_token() {
    for value in ["notupgrade", "upgrade2", "up grade", "keep-alive", "x-upgrade, close", "\"upgrade\"", "upgrade;q=1"]
    {
        assert_eq!(verdict("GET", &[("Connection", value)]), "plain", "{value}");
        assert_eq!(check(101, &[("Connection", value)]), Err(Fake::Connection), "{value}");
    }
}

#[test]
fn several_keys_are_refused_even_when_they_agree() {
    assert_eq!(verdict("GET", &[("+Sec-WebSocket-Key", CLIENT_KEY)]), "400 websocket_key");
    assert_eq!(verdict("GET", &[("+sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")]), "400 websocket_key");
}

#[test]
fn fake_101s() {
    let of_the_client = String::from_utf8(accept_key(CLIENT_KEY.as_bytes()).to_vec()).unwrap();
    let right = String::from_utf8(accept_key(&key()).to_vec()).unwrap();
    for (changes, fake) in [
        (&[("Sec-WebSocket-Accept", "-")][..], Fake::NoAccept),
        (&[("Sec-WebSocket-Accept", "")], Fake::WrongAccept),
        (&[("Sec-WebSocket-Accept", CLIENT_KEY)], Fake::WrongAccept),
        (&[("Sec-WebSocket-Accept", &of_the_client)], Fake::WrongAccept),
        (&[("Sec-WebSocket-Accept", &right.to_lowercase())], Fake::WrongAccept),
        (&[("Sec-WebSocket-Accept", &right[..27])], Fake::WrongAccept),
        (&[("+Sec-WebSocket-Accept", &right)], Fake::RepeatedAccept),
        (&[("Upgrade", "-")], Fake::Upgrade),
        (&[("Upgrade", "h2c")], Fake::Upgrade),
        (&[("Upgrade", "websocket, h2c")], Fake::Upgrade),
        (&[("+Upgrade", "websocket")], Fake::Upgrade),
        (&[("+Upgrade", "")], Fake::Upgrade),
        (&[("Connection", "-")], Fake::Connection),
        (&[("Connection", "close")], Fake::Connection),
        (&[("Content-Length", "1000")], Fake::Body),
        (&[("Transfer-Encoding", "chunked")], Fake::Body),
        (&[("Sec-WebSocket-Protocol", "chat")], Fake::Subprotocol),
        (&[("Sec-WebSocket-Extensions", "permessage-deflate")], Fake::Extension),
    ] {
        assert_eq!(check(101, changes), Err(fake), "{changes:?}");
        assert!(!fake.text().is_empty());
    }
    assert_eq!(check(101, &[("Content-Length", "0")]), Ok(Accepted::default()));
    assert_eq!(check(101, &[("Upgrade", "WebSocket"), ("Connection", "Keep-Alive, upgrade")]), Ok(Accepted::default()));
}

#[test]
fn a_101_must_answer_this_handshake_and_no_other() {
    let other = accept_key(&fresh_key([8; 16]));
    assert_eq!(check_answer(101, &answer(&[]), &other, &offered(&[])), Err(Fake::WrongAccept));
}

#[test]
fn extensions_and_subprotocols_that_nobody_allowed() {
    let client = [("Sec-WebSocket-Protocol", "a, b"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    let (key, allowed) = (key(), ["b".to_owned()]);
    let rules = OfferRules { key: Some(&key), subprotocols: Some(&allowed), deflate: false };
    let (sent, offered) = offer_fields(&request(&client), &rules);
    assert_eq!(sent.first("Sec-WebSocket-Protocol"), Some(&b"b"[..]));
    assert!(!sent.has("Sec-WebSocket-Extensions"));
    let check = |changes| check_answer(101, &answer(changes), &accept_key(&key), &offered);
    assert_eq!(check(&[("Sec-WebSocket-Protocol", "b")]).unwrap().subprotocol, Some(b"b".to_vec()));
    assert_eq!(check(&[("Sec-WebSocket-Protocol", "a")]), Err(Fake::Subprotocol));
    assert_eq!(check(&[("Sec-WebSocket-Extensions", "permessage-deflate")]), Err(Fake::Extension));
}

#[test]
fn a_client_cannot_name_away_host_nor_pass_a_draft_s_keys() {
    let attack = request(&[
        ("Connection", "Upgrade, Host, Cookie"),
        ("Cookie", "a=1"),
        ("Sec-WebSocket-Key1", "4 @1  46546xW%0l 1 5"),
        ("Sec-WebSocket-Key2", "12998 5 Y3 1  .P00"),
        ("Sec-WebSocket-Accept", "x"),
    ]);
    let (sent, _) = offer_fields(&attack, &rules(&key()));
    let names: Vec<_> = sent.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, ["Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]);
}

#[test]
fn hixie_76_passes_an_opaque_route() {
    let draft = fields(&[
        ("Host", "example.com"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key2", "12998 5 Y3 1  .P00"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Key1", "4 @1  46546xW%0l 1 5"),
    ]);
    assert!(matches!(classify_opaque(b"GET", true, &draft, false), Attempt::WebSocket(opaque) if opaque.hixie76));
    assert!(
        matches!(classify(b"GET", true, &draft, false), Attempt::Refused(refusal) if refusal.reason == "websocket_key")
    );
    assert_eq!(check_opaque_answer(101, &fields(&[("Upgrade", "WebSocket"), ("Connection", "Upgrade")])), Ok(()));
}

#[test]
fn every_one_of_thousands_of_connection_options_is_dropped() {
    let options: Vec<String> = (0..6000).map(|number| format!("x{number}")).collect();
    let mut attack = request(&[("Connection", &format!("Upgrade,{}", options.join(",")))]);
    options.iter().for_each(|name| attack.push(name.as_bytes(), b""));
    let (sent, _) = offer_fields(&attack, &rules(&key()));
    assert_eq!(sent.len(), 5);
}

fn rules(key: &[u8; 24]) -> OfferRules<'_> {
    OfferRules { key: Some(key), subprotocols: None, deflate: true }
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let name = prop::sample::select(vec![
        "Upgrade",
        "Connection",
        "connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Accept",
        "sec-websocket-protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "X-Other",
    ]);
    let word = prop::sample::select(vec![
        "websocket",
        "upgrade",
        "13",
        "h2c",
        CLIENT_KEY,
        "chat",
        "permessage-deflate",
        ", ",
        "; ",
        "=",
        "\"",
        "x-other",
        "host",
        "client_max_window_bits",
        "server_max_window_bits",
        "server_no_context_takeover",
        "10",
        "15",
        " ",
        "0",
        "",
    ]);
    let value = prop::collection::vec(word, 0..6).prop_map(|words| words.concat());
    prop::collection::vec((name, value), 0..10).prop_map(|list| {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.trim().as_bytes()));
        fields
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the client sends, what we send is a good attempt with our key, once.
    #[test]
    fn what_we_send_is_always_a_good_attempt(client in any_fields(), deflate in any::<bool>()) {
        let key = key();
        let (sent, _) = offer_fields(&client, &OfferRules { key: Some(&key), subprotocols: None, deflate });
        prop_assert_eq!(classify(b"GET", true, &sent, declares_body(&sent)), Attempt::WebSocket(Offer { key: Some(key) }));
        prop_assert!(deflate || !sent.has("Sec-WebSocket-Extensions"));
        // A second gateway behind us sends the same.
        let (again, _) = offer_fields(&sent, &rules(&key));
        prop_assert!(again.iter().eq(sent.iter()));
    }

    /// What the client gets of an accepted answer is an answer that a gateway before us accepts.
    #[test]
    fn what_we_answer_is_always_acceptable(client in any_fields(), extra in any_fields()) {
        let (key, client_accept) = (key(), accept_key(CLIENT_KEY.as_bytes()));
        let (_, offered) = offer_fields(&client, &rules(&key));
        let mut upstream = answer(&[]);
        extra.iter().for_each(|(name, value)| upstream.push(name, value));
        if let Ok(accepted) = check_answer(101, &upstream, &accept_key(&key), &offered) {
            let sent = answer_fields(&upstream, Some(&client_accept), &accepted);
            prop_assert_eq!(check_answer(101, &sent, &client_accept, &offered), Ok(accepted));
        }
    }
}
