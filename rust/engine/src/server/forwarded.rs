//! Who the client is, and what the upstream is told about it.
//!
//! `X-Forwarded-*` and `Forwarded` (RFC 7239) are believed only from the listener's `trusted_proxies`; from anybody
//! else they are replaced, so that a client cannot choose its own address. Where both are there, `X-Forwarded-For`
//! counts: most proxies write that one and let a client's `Forwarded` pass. Towards the upstream the two always say the
//! same.

use std::io::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::forwarded::{Hop, parse_forwarded, parse_node, write_element, write_hop};
use crate::http::{Authority, Fields};

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";
const PORT: &str = "X-Forwarded-Port";
const FORWARDED: &str = "Forwarded";

/// Whether `peer` may speak for others.
pub fn is_trusted(peer: Option<IpAddr>, trusted: &[IpNet]) -> bool {
    peer.is_some_and(|peer| trusted.iter().any(|net| net.contains(&peer)))
}

/// The client's address: the last one in the chain that is no trusted proxy.
pub fn client(peer: Option<IpAddr>, fields: &Fields, trusted: &[IpNet]) -> Option<IpAddr> {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in Chain::read(fields).hops.into_iter().rev() {
        // Something unreadable in the chain: what lies behind it cannot be believed.
        let Some(address) = hop.address else { break };
        client = Some(address);
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// What the client itself has asked for, where a trusted peer says something else than the request does.
#[derive(Debug)]
pub struct Asked {
    pub host: Option<Authority>,
    pub is_tls: bool,
}

/// What the client itself has asked for, behind trusted proxies too.
pub fn asked(arrival: &Arrival<'_>, fields: &Fields, trusted: &[IpNet]) -> Asked {
    let mut told = (None, None);
    if is_trusted(arrival.peer, trusted) {
        let first = Chain::read(fields).hops.into_iter().next().unwrap_or_default();
        let field = |name, hop| fields.first(name).map(<[u8]>::to_vec).or(hop);
        told = (field(HOST, first.host), field(PROTO, first.proto));
    }
    let is_tls = told.1.map_or(arrival.is_tls, |proto| proto.eq_ignore_ascii_case(b"https"));
    Asked { host: Authority::parse(told.0.as_deref().unwrap_or(arrival.host)), is_tls }
}

/// How a request came to us.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub peer: Option<IpAddr>,
    pub is_tls: bool,
    /// The Host; empty where there was none.
    pub host: &'a [u8],
    /// The port that the Host names.
    pub port: Option<u16>,
}

impl Arrival<'_> {
    fn host(&self) -> Option<&[u8]> {
        (!self.host.is_empty()).then_some(self.host)
    }

    fn proto(&self) -> &'static [u8] {
        if self.is_tls { b"https" } else { b"http" }
    }
}

/// What stood before us, as the peer says.
#[derive(Debug, Default)]
struct Chain {
    hops: Vec<Hop>,
    /// `X-Forwarded-For` as it came.
    listed: Vec<u8>,
    /// `Forwarded` as it came; empty where it says something else than `X-Forwarded-For`.
    told: Vec<u8>,
}

impl Chain {
    fn read(fields: &Fields) -> Self {
        let told = fields.has(FORWARDED).then(|| parse_forwarded(fields)).flatten();
        if !fields.has(FOR) {
            let hops = told.unwrap_or_default();
            let told = if hops.is_empty() { Vec::new() } else { joined(fields, FORWARDED) };
            return Self { listed: listed(&hops), told, hops };
        }
        let listed: Vec<Option<IpAddr>> = fields.elements(FOR).map(parse_node).collect();
        let agrees = |hops: &Vec<Hop>| hops.iter().map(|hop| hop.address).eq(listed.iter().copied());
        let (hops, told) = match told.filter(agrees) {
            Some(hops) => (hops, joined(fields, FORWARDED)),
            None => (listed.iter().map(|address| Hop { address: *address, ..Hop::default() }).collect(), Vec::new()),
        };
        Self { hops, listed: joined(fields, FOR), told }
    }
}

fn joined(fields: &Fields, name: &str) -> Vec<u8> {
    fields.all(name).collect::<Vec<_>>().join(&b", "[..])
}

fn listed(hops: &[Hop]) -> Vec<u8> {
    let name = |hop: &Hop| hop.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    hops.iter().map(name).collect::<Vec<_>>().join(", ").into_bytes()
}

/// Tells the upstream who asked, over what, and for which host and port.
pub fn announce(fields: &mut Fields, arrival: &Arrival<'_>, trusted: &[IpNet]) {
    let mut chain = Chain::default();
    if is_trusted(arrival.peer, trusted) {
        chain = Chain::read(fields);
        fields.remove(FOR);
        fields.remove(FORWARDED);
        // No proxy writes these, so it is a client's words that it has let pass.
        fields.retain(|name, _| !(is_claim(name) && name.contains(&b'_')));
    } else {
        // Those that we do not write (X-Forwarded-Server, -Prefix ...) are claims as well.
        fields.retain(|name, _| !is_claim(name));
    }
    announce_origin(fields, arrival, chain.hops.first());
    if chain.hops.is_empty() && chain.listed.is_empty() {
        announce_peer(fields, arrival);
    } else {
        announce_chain(fields, arrival, chain);
    }
}

/// What the client itself has asked for. What is there now is believed and stays.
fn announce_origin(fields: &mut Fields, arrival: &Arrival<'_>, first: Option<&Hop>) {
    if !fields.has(PROTO) {
        let told = first.and_then(|hop| hop.proto.as_deref());
        fields.push(PROTO.as_bytes(), told.unwrap_or(arrival.proto()));
    }
    let host = first.and_then(|hop| hop.host.as_deref()).unwrap_or(arrival.host);
    if !(fields.has(HOST) || host.is_empty()) {
        fields.push(HOST.as_bytes(), host);
    }
    if !fields.has(PORT) {
        announce_port(fields, arrival);
    }
}

fn announce_port(fields: &mut Fields, arrival: &Arrival<'_>) {
    let named = match fields.first(HOST) {
        Some(host) if host == arrival.host => arrival.port,
        Some(host) => Authority::parse(host).and_then(|host| host.port()),
        None => None,
    };
    let is_https = fields.first(PROTO).is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
    match named {
        Some(port) => fields.push_with(PORT, |out| write(out, port)),
        None => fields.push(PORT.as_bytes(), if is_https { b"443" } else { b"80" }),
    }
}

fn write(out: &mut Vec<u8>, what: impl std::fmt::Display) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{what}");
}

/// Nobody stands before the peer.
fn announce_peer(fields: &mut Fields, arrival: &Arrival<'_>) {
    if let Some(peer) = arrival.peer {
        fields.push_with(FOR, |out| write(out, peer));
    }
    fields.push_with(FORWARDED, |out| write_element(out, arrival.peer, Some(arrival.proto()), arrival.host()));
}

fn announce_chain(fields: &mut Fields, arrival: &Arrival<'_>, mut chain: Chain) {
    if let Some(peer) = arrival.peer {
        if !chain.listed.is_empty() {
            chain.listed.extend_from_slice(b", ");
        }
        write(&mut chain.listed, peer);
    }
    if !chain.listed.is_empty() {
        fields.push(FOR.as_bytes(), &chain.listed);
    }
    if chain.told.is_empty() {
        if let Some(first) = chain.hops.first_mut() {
            first.proto = fields.first(PROTO).map(<[u8]>::to_vec);
            first.host = fields.first(HOST).map(<[u8]>::to_vec);
        }
        chain.hops.iter().for_each(|hop| write_hop(&mut chain.told, hop));
    }
    let (proto, host) = (Some(arrival.proto().to_vec()), arrival.host().map(<[u8]>::to_vec));
    write_hop(&mut chain.told, &Hop { address: arrival.peer, proto, host });
    fields.push(FORWARDED.as_bytes(), &chain.told);
}

/// Whether a field of this name says who or what stood before us. `_` counts as `-`: to servers that give their
/// applications both as `HTTP_X_FORWARDED_FOR` (CGI, WSGI) they are one field.
fn is_claim(name: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let begins = |text: &[u8]| name.len() >= text.len() && name.iter().zip(text).all(|(one, two)| plain(one) == *two);
    let is = |text: &[u8]| name.len() == text.len() && begins(text);
    begins(b"x-forwarded-") || is(b"forwarded") || is(b"x-real-ip")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap()]
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn chain(text: &str) -> Fields {
        fields(&[("x-forwarded-for", text)])
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn announced(peer: Option<IpAddr>, lines: &[(&str, &str)], is_tls: bool, host: &str) -> Vec<(String, String)> {
        let mut fields = fields(lines);
        let port = Authority::parse(host.as_bytes()).and_then(|host| host.port());
        announce(&mut fields, &Arrival { peer, is_tls, host: host.as_bytes(), port }, &nets());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut told: Vec<_> = fields.iter().map(|(name, value)| (text(name).to_lowercase(), text(value))).collect();
        told.sort();
        told
    }

    fn pairs(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let claim = chain("1.1.1.1, 2.2.2.2, 10.0.0.7");
        assert_eq!(client(ip("9.9.9.9"), &claim, &nets()), ip("9.9.9.9"));
        assert_eq!(client(ip("10.0.0.1"), &claim, &nets()), ip("2.2.2.2"));
        assert_eq!(client(ip("10.0.0.1"), &chain("1.1.1.1, junk"), &nets()), ip("10.0.0.1"));
        assert_eq!(client(ip("10.0.0.1"), &chain("10.0.0.3"), &nets()), ip("10.0.0.3"));
        assert_eq!(client(None, &claim, &nets()), None);
    }

    #[test]
    fn forwarded_tells_the_client_as_well() {
        let told = |value| fields(&[("Forwarded", value)]);
        assert_eq!(client(ip("10.0.0.1"), &told("for=1.1.1.1, For=\"[2001:db8::1]:4\""), &nets()), ip("2001:db8::1"));
        assert_eq!(client(ip("10.0.0.1"), &told("for=1.1.1.1, for=_hidden"), &nets()), ip("10.0.0.1"));
        assert_eq!(client(ip("10.0.0.1"), &told("for=\"1.1.1.1"), &nets()), ip("10.0.0.1"));
        assert_eq!(client(ip("9.9.9.9"), &told("for=1.1.1.1"), &nets()), ip("9.9.9.9"));
        let both = fields(&[("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "1.1.1.1")]);
        assert_eq!(client(ip("10.0.0.1"), &both, &nets()), ip("1.1.1.1"));
    }

    #[test]
    fn a_trusted_peer_says_what_the_client_has_asked_for() {
        let told = |peer, lines: &[(&str, &str)]| {
            let arrival = Arrival { peer, is_tls: false, host: b"in.test", port: None };
            let found = asked(&arrival, &fields(lines), &nets());
            (String::from_utf8(found.host.unwrap().as_bytes().to_vec()).unwrap(), found.is_tls)
        };
        let lines = [("X-Forwarded-Host", "out.test:1"), ("X-Forwarded-Proto", "https")];
        assert_eq!(told(ip("9.9.9.9"), &lines), ("in.test".into(), false));
        assert_eq!(told(ip("10.0.0.1"), &lines), ("out.test:1".into(), true));
        let lines = [("Forwarded", "for=1.1.1.1;host=out.test;proto=https, for=10.0.0.1;host=mid.test;proto=http")];
        assert_eq!(told(ip("10.0.0.1"), &lines), ("out.test".into(), true));
        assert_eq!(told(ip("10.0.0.1"), &[]), ("in.test".into(), false));
    }

    #[test]
    fn claims_in_every_spelling_are_dropped() {
        let names = ["x-forwarded-PREFIX", "X_Forwarded_For", "Forwarded", "X-Real_IP", "x-forwarded", "forwarded-by"];
        let told = announced(None, &names.map(|name| (name, "1")), false, "");
        let names: Vec<&str> = told.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["forwarded", "forwarded-by", "x-forwarded", "x-forwarded-port", "x-forwarded-proto"]);
        assert_eq!(told[0].1, "for=unknown;proto=http");
    }

    #[test]
    fn a_client_s_own_chain_is_replaced() {
        let lies = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1"), ("X-Forwarded-Port", "1")];
        let expected = pairs(&[
            ("forwarded", "for=9.9.9.9;host=a.test;proto=https"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-host", "a.test"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(announced(ip("9.9.9.9"), &lies, true, "a.test"), expected);
    }

    #[test]
    fn a_trusted_chain_is_appended_to_in_both_fields() {
        let told = [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "b.test")];
        let expected = pairs(&[
            ("forwarded", "for=1.1.1.1;host=b.test;proto=https, for=10.0.0.1;host=\"a.test:8080\";proto=http"),
            ("x-forwarded-for", "1.1.1.1, 10.0.0.1"),
            ("x-forwarded-host", "b.test"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(announced(ip("10.0.0.1"), &told, false, "a.test:8080"), expected);
        let told = [("Forwarded", "for=1.1.1.1;by=_x;proto=https;host=\"b.test:99\"")];
        let expected = pairs(&[
            ("forwarded", "for=1.1.1.1;by=_x;proto=https;host=\"b.test:99\", for=10.0.0.1;host=a.test;proto=http"),
            ("x-forwarded-for", "1.1.1.1, 10.0.0.1"),
            ("x-forwarded-host", "b.test:99"),
            ("x-forwarded-port", "99"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(announced(ip("10.0.0.1"), &told, false, "a.test"), expected);
    }

    #[test]
    fn fields_that_disagree_are_made_to_agree() {
        let told = [("X-Forwarded-For", "1.1.1.1, 10.0.0.2"), ("Forwarded", "for=6.6.6.6")];
        let forwarded = announced(ip("10.0.0.1"), &told, false, "a.test").remove(0).1;
        let expected = "for=1.1.1.1;host=a.test;proto=http, for=10.0.0.2, for=10.0.0.1;host=a.test;proto=http";
        assert_eq!(forwarded, expected);
        let told = [("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=1.1.1.1;by=_x")];
        let forwarded = announced(ip("10.0.0.1"), &told, false, "").remove(0).1;
        assert_eq!(forwarded, "for=1.1.1.1;by=_x, for=10.0.0.1;proto=http");
    }
}
