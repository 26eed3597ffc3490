//! Whose pages may open WebSockets (RFC 6454, RFC 6455 §10.2).
//!
//! A browser sends a site's cookies along with every WebSocket that any page opens there, and asks nobody first: CORS
//! does not apply. What it cannot be made to lie about is `Origin`, so that is what tells the site's own pages from all
//! others. Clients that are no browsers send none, and could send any; this is no protection from them.
//!
//! * `same`: the origin's host and port are those that the client has asked for, before any rewriting. A Host without a
//!   port names the one of the scheme; behind something that ends TLS and does not say so both 80 and 443 can be meant,
//!   so there the origin's own scheme decides.
//! * `null` is what sandboxed frames, local files and redirected requests have in common: nobody's pages.
//! * A missing Origin is no page.
//!
//! `Sec-Fetch-Site` compares the page with the address that the browser has resolved and not with a Host. It says no
//! where `same` is all that is allowed; beside other rules `cross-site` may be just what they allow.

use crate::http::Authority;
use crate::snapshot::{HostMatch, Origin, OriginList, OriginPort, Origins};

/// What a request says about the page that makes it.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// `Origin`; empty where it is repeated, which no browser does.
    pub origin: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`.
    pub site: Option<&'a [u8]>,
    /// The host and port that the client has asked for.
    pub host: Option<&'a Authority>,
    /// Whether the client itself has asked over TLS, as far as is known.
    pub is_tls: bool,
}

/// Whether it may open a WebSocket.
pub fn admits(rules: &Origins, page: &Page<'_>) -> bool {
    let Some(origin) = page.origin else {
        return rules.missing
            && !rules.allow.as_ref().is_some_and(|list| list.is_same_alone() && is_foreign(page.site));
    };
    let Some(list) = &rules.allow else { return true };
    if origin == b"null" {
        return list.null;
    }
    if list.is_same_alone() && page.site == Some(b"cross-site") {
        return false;
    }
    let Some(parsed) = Parsed::read(origin) else { return false };
    (list.same && page.host.is_some_and(|host| parsed.is_same(host, page.is_tls)))
        || list.patterns.iter().any(|pattern| parsed.is_within(pattern))
}

/// A page of another origin, by a client that does not say which.
fn is_foreign(site: Option<&[u8]>) -> bool {
    matches!(site, Some(b"cross-site" | b"same-site"))
}

impl OriginList {
    fn is_same_alone(&self) -> bool {
        self.same && !self.null && self.patterns.is_empty()
    }
}

/// An origin in its three parts.
struct Parsed<'a> {
    scheme: &'a [u8],
    authority: Authority,
}

impl<'a> Parsed<'a> {
    fn read(origin: &'a [u8]) -> Option<Self> {
        let colon = origin.iter().position(|byte| *byte == b':')?;
        let (scheme, rest) = origin.split_at(colon);
        Some(Self { scheme, authority: Authority::parse(rest.strip_prefix(b"://")?)? })
    }

    fn port(&self) -> Option<u16> {
        self.authority.port().or_else(|| default_port(self.scheme))
    }

    fn is_same(&self, host: &Authority, is_tls: bool) -> bool {
        let port = match (host.port(), is_tls) {
            (Some(port), _) => Some(port),
            (None, true) => Some(443),
            (None, false) => default_port(self.scheme),
        };
        plain(self.authority.host()).eq_ignore_ascii_case(plain(host.host())) && port.is_some() && self.port() == port
    }

    fn is_within(&self, pattern: &Origin) -> bool {
        let port = match pattern.port {
            OriginPort::Any => true,
            OriginPort::Is(port) => self.port() == port,
        };
        port && self.scheme.eq_ignore_ascii_case(pattern.scheme.as_bytes()) && self.has_host(&pattern.host)
    }

    fn has_host(&self, wanted: &HostMatch) -> bool {
        let host = plain(self.authority.host());
        // Wildcards stand for something.
        let cut = |text: &str| host.len().checked_sub(text.len()).filter(|left| *left > 0);
        match wanted {
            HostMatch::Any => true,
            HostMatch::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            HostMatch::Suffix(suffix) => {
                cut(suffix).is_some_and(|left| host[left..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
            HostMatch::Prefix(prefix) => {
                cut(prefix).is_some_and(|_| host[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes()))
            }
        }
    }
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_slice() {
        b"http" => Some(80),
        b"https" => Some(443),
        _ => None,
    }
}

/// A host without the dot at its end.
fn plain(host: &[u8]) -> &[u8] {
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(scheme: &str, host: HostMatch, port: OriginPort) -> Origin {
        Origin { scheme: scheme.into(), host, port }
    }

    fn rules(same: bool, null: bool, patterns: Vec<Origin>) -> Origins {
        Origins { allow: Some(OriginList { same, null, patterns }), missing: true }
    }

    fn admitted(rules: &Origins, origin: &str, host: &str, is_tls: bool) -> bool {
        let host = Authority::parse(host.as_bytes()).unwrap();
        admits(rules, &Page { origin: Some(origin.as_bytes()), site: None, host: Some(&host), is_tls })
    }

    #[test]
    fn same_compares_host_and_port() {
        let same = rules(true, false, Vec::new());
        for (origin, host, is_tls, expected) in [
            ("https://a.test", "a.test", true, true),
            ("https://a.test", "A.TEST.", true, true),
            ("https://a.test", "a.test:443", true, true),
            ("https://a.test:8443", "a.test:8443", true, true),
            ("https://a.test:8443", "a.test", true, false),
            ("https://a.test", "a.test:8443", true, false),
            ("https://b.test", "a.test", true, false),
            ("https://a.test.b.test", "a.test", true, false),
            ("https://xa.test", "a.test", true, false),
            // The page came without TLS, and this does not.
            ("http://a.test", "a.test", true, false),
            // Something may end TLS in front of us.
            ("https://a.test", "a.test", false, true),
            ("http://a.test", "a.test", false, true),
            ("http://a.test:80", "a.test:80", false, true),
            ("https://[::1]:1", "[::1]:1", true, true),
            ("app://a.test", "a.test", false, false),
            ("app://a.test", "a.test", true, false),
        ] {
            assert_eq!(admitted(&same, origin, host, is_tls), expected, "{origin} at {host}, TLS {is_tls}");
        }
    }

    #[test]
    fn what_is_no_origin_is_nobody_s() {
        let same = rules(true, false, vec![pattern("https", HostMatch::Any, OriginPort::Any)]);
        for text in
            ["", "null", "https:a.test", "https://", "https://a.test/", "https://a.test https://b.test", "a.test"]
        {
            assert!(!admitted(&same, text, "a.test", true), "{text}");
        }
        assert!(!admitted(&same, "https://u@a.test", "a.test", true));
    }

    #[test]
    fn patterns_have_scheme_host_and_port() {
        let wild = HostMatch::Suffix(".a.test".into());
        let list = rules(
            false,
            false,
            vec![
                pattern("https", wild, OriginPort::Is(Some(443))),
                pattern("http", HostMatch::Exact("b.test".into()), OriginPort::Any),
                pattern("app", HostMatch::Exact("xyz".into()), OriginPort::Is(None)),
                pattern("https", HostMatch::Prefix("www.".into()), OriginPort::Is(Some(8443))),
            ],
        );
        let all = [
            ("https://x.a.test", true),
            ("https://x.y.A.test:443", true),
            ("https://a.test", false),
            ("https://.a.test", false),
            ("http://x.a.test", false),
            ("https://x.a.test:444", false),
            ("https://xa.test", false),
            ("http://b.test:1", true),
            ("http://b.test", true),
            ("https://b.test", false),
            ("app://xyz", true),
            ("app://xyz:1", false),
            ("https://www.c.test:8443", true),
            ("https://www.:8443", false),
        ];
        for (origin, expected) in all {
            assert_eq!(admitted(&list, origin, "c.test", true), expected, "{origin}");
        }
    }

    #[test]
    fn null_and_missing_are_asked_for_one_by_one() {
        let host = Authority::parse(b"a.test").unwrap();
        let missing =
            |rules: &Origins, site| admits(rules, &Page { origin: None, site, host: Some(&host), is_tls: true });
        let same = rules(true, false, Vec::new());
        assert!(missing(&same, None) && missing(&same, Some(b"same-origin")) && missing(&same, Some(b"none")));
        assert!(!missing(&same, Some(b"same-site")));
        assert!(!missing(&Origins { missing: false, ..same.clone() }, None));
        assert!(!admitted(&same, "null", "a.test", true));
        assert!(admitted(&rules(true, true, Vec::new()), "null", "a.test", true));
        let any = Origins { allow: None, missing: true };
        assert!(missing(&any, None) && admitted(&any, "null", "a.test", true) && admitted(&any, "x", "a.test", true));
    }

    #[test]
    fn a_browser_s_word_counts_where_same_stands_alone() {
        let host = Authority::parse(b"a.test").unwrap();
        let asked = |rules: &Origins, site: &'static [u8]| {
            let page = Page { origin: Some(b"https://a.test"), site: Some(site), host: Some(&host), is_tls: true };
            admits(rules, &page)
        };
        assert!(!asked(&rules(true, false, Vec::new()), b"cross-site"));
        assert!(asked(&rules(true, false, Vec::new()), b"same-origin"));
        let more =
            rules(true, false, vec![pattern("https", HostMatch::Exact("b.test".into()), OriginPort::Is(Some(443)))]);
        assert!(asked(&more, b"cross-site"));
    }
}
