//! Who the client is, and what the upstream is told about it.
//!
//! `X-Forwarded-*` fields are believed only from the listener's `trusted_proxies`; from anybody else they are replaced,
//! so that a client cannot choose its own address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::Fields;

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";

/// Whether `peer` may speak for others.
pub fn is_trusted(peer: Option<IpAddr>, trusted: &[IpNet]) -> bool {
    peer.is_some_and(|peer| trusted.iter().any(|net| net.contains(&peer)))
}

/// The client's address: the last one in the chain that is no trusted proxy.
pub fn client(peer: Option<IpAddr>, fields: &Fields, trusted: &[IpNet]) -> Option<IpAddr> {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let chain: Vec<&[u8]> = fields.elements(FOR).collect();
    let mut client = peer;
    for element in chain.into_iter().rev() {
        // Something unreadable in the chain: what lies behind it cannot be believed.
        let Some(address) = parse(element) else { break };
        client = Some(address);
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

fn parse(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()));
    address.map(|address| address.to_canonical())
}

/// Tells the upstream who asked, over what, and for which host.
pub fn announce(fields: &mut Fields, peer: Option<IpAddr>, trusted: &[IpNet], is_tls: bool, host: &[u8]) {
    let believed = is_trusted(peer, trusted);
    let mut chain: Vec<u8> = if believed { fields.all(FOR).collect::<Vec<_>>().join(&b", "[..]) } else { Vec::new() };
    if let Some(peer) = peer {
        if !chain.is_empty() {
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.to_string().as_bytes());
    }
    if !believed {
        // Those that we do not write (X-Forwarded-Port, -Server, -Prefix ...) are claims as well.
        fields.retain(|name, _| !is_claim(name));
    }
    fields.remove(FOR);
    if !chain.is_empty() {
        fields.push(FOR.as_bytes(), &chain);
    }
    // What is left of these now is believed.
    if !fields.has(PROTO) {
        fields.push(PROTO.as_bytes(), if is_tls { b"https" } else { b"http" });
    }
    if !fields.has(HOST) && !host.is_empty() {
        fields.push(HOST.as_bytes(), host);
    }
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

    fn chain(text: &str) -> Fields {
        let mut fields = Fields::new();
        fields.push(b"x-forwarded-for", text.as_bytes());
        fields
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let claim = chain("1.1.1.1, 2.2.2.2, 10.0.0.7");
        assert_eq!(client(ip("9.9.9.9"), &claim, &nets()), ip("9.9.9.9"));
        assert_eq!(client(ip("10.0.0.1"), &claim, &nets()), ip("2.2.2.2"));
        assert_eq!(client(ip("10.0.0.1"), &chain("1.1.1.1, junk"), &nets()), ip("10.0.0.1"));
        assert_eq!(client(ip("10.0.0.1"), &chain("10.0.0.3"), &nets()), ip("10.0.0.3"));
        assert_eq!(client(None, &claim, &nets()), None);
    }

    #[test]
    fn claims_in_every_spelling_are_dropped() {
        let mut fields = Fields::new();
        for name in ["x-forwarded-PORT", "X_Forwarded_For", "Forwarded", "X-Real_IP", "x-forwarded", "forwarded-by"] {
            fields.push(name.as_bytes(), b"1");
        }
        announce(&mut fields, None, &nets(), false, b"");
        let left: Vec<&[u8]> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(left, [&b"x-forwarded"[..], b"forwarded-by", PROTO.as_bytes()]);
    }

    #[test]
    fn the_chain_is_appended_to_or_replaced() {
        let mut fields = chain("1.1.1.1");
        fields.push(b"Forwarded", b"for=1.1.1.1");
        announce(&mut fields, Some("9.9.9.9".parse().unwrap()), &nets(), true, b"example.com");
        assert_eq!(fields.first(FOR), Some(&b"9.9.9.9"[..]));
        assert_eq!((fields.first(PROTO), fields.has("forwarded")), (Some(&b"https"[..]), false));
        let mut fields = chain("1.1.1.1");
        announce(&mut fields, Some("10.0.0.1".parse().unwrap()), &nets(), false, b"example.com");
        assert_eq!(fields.first(FOR), Some(&b"1.1.1.1, 10.0.0.1"[..]));
    }
}
