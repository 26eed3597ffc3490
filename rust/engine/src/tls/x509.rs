//! What the gateway must know of its own certificates: whom they name and until when they hold.
//!
//! A walk over the DER of a certificate (RFC 5280 §4.1) to its validity and its subjectAltName, nothing more. rustls
//! has verified the structure and the key by then; nothing here decides whether to trust anybody. The common name is
//! not read: no client has believed it for years (RFC 9525 §2).

use std::net::IpAddr;

use rustls::pki_types::DnsName;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Seconds since 1970.
    pub not_after: u64,
    /// Lower case; exact names and names with one leading wildcard label.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Reads a certificate; `None` when it is no certificate.
pub(super) fn read(der: &[u8]) -> Option<Leaf> {
    let certificate = Elements(der).expect(SEQUENCE)?;
    let mut fields = Elements(Elements(certificate).expect(SEQUENCE)?);
    fields.skip_if(VERSION);
    // Serial number, signature algorithm, issuer.
    [INTEGER, SEQUENCE, SEQUENCE].into_iter().try_for_each(|tag| fields.expect(tag).map(drop))?;
    let mut validity = Elements(fields.expect(SEQUENCE)?);
    validity.next()?;
    let not_after = time(validity.next()?)?;
    let mut leaf = Leaf { not_after, names: Vec::new(), addresses: Vec::new() };
    if let Some((_, extensions)) = fields.find(|(tag, _)| *tag == EXTENSIONS) {
        alternative_names(extensions, &mut leaf)?;
    }
    Some(leaf)
}

fn alternative_names(extensions: &[u8], leaf: &mut Leaf) -> Option<()> {
    let mut extensions = Elements(Elements(extensions).expect(SEQUENCE)?);
    while let Some((SEQUENCE, extension)) = extensions.next() {
        let mut extension = Elements(extension);
        if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        extension.skip_if(BOOLEAN);
        let names = Elements(extension.expect(OCTET_STRING)?).expect(SEQUENCE)?;
        Elements(names).for_each(|name| leaf.add(name));
    }
    Some(())
}

impl Leaf {
    /// Adds one GeneralName (RFC 5280 §4.2.1.6), unless it is of another kind or nothing that a client can ask for.
    fn add(&mut self, (tag, value): Element<'_>) {
        match tag {
            DNS_NAME => self.names.extend(dns_name(value)),
            IP_ADDRESS => self.addresses.extend(address(value)),
            _ => {}
        }
    }
}

fn dns_name(value: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(value).ok()?.to_ascii_lowercase();
    let exact = name.strip_prefix("*.").unwrap_or(&name);
    DnsName::try_from(exact).is_ok().then_some(name)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5) in seconds since 1970.
fn time((tag, text): Element<'_>) -> Option<u64> {
    let pairs = text.strip_suffix(b"Z")?.chunks(2).map(two_digits).collect::<Option<Vec<i64>>>()?;
    match (tag, &pairs[..]) {
        (UTC_TIME, [year, rest @ ..]) => seconds(if *year < 50 { 2000 } else { 1900 } + year, rest),
        (GENERALIZED_TIME, [century, year, rest @ ..]) => seconds(century * 100 + year, rest),
        _ => None,
    }
}

fn two_digits(pair: &[u8]) -> Option<i64> {
    match pair {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from((tens - b'0') * 10 + ones - b'0')),
        _ => None,
    }
}

fn seconds(year: i64, rest: &[i64]) -> Option<u64> {
    let &[month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=60] = rest else { return None };
    let total = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(total.max(0).unsigned_abs())
}

/// Days from 1970-01-01 in the Gregorian calendar; the year is counted from March, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// A tag and its contents.
type Element<'d> = (u8, &'d [u8]);

/// The DER elements that stand one after another; ends at the first that is malformed.
struct Elements<'d>(&'d [u8]);

impl<'d> Elements<'d> {
    /// The contents of the next element, which must have that tag.
    fn expect(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

impl<'d> Iterator for Elements<'d> {
    type Item = Element<'d>;

    fn next(&mut self) -> Option<Element<'d>> {
        let (tag, rest) = self.0.split_first()?;
        let (length, rest) = length(rest)?;
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, contents))
    }
}

/// A length in the short or the long form (X.690 §8.1.3), of up to four bytes.
fn length(from: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = from.split_first()?;
    match first {
        0..=0x7f => Some((usize::from(*first), rest)),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            Some((bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        assert_eq!(time((UTC_TIME, b"700101000000Z")), Some(0));
        assert_eq!(time((UTC_TIME, b"240229235959Z")), Some(1_709_251_199));
        assert_eq!(time((UTC_TIME, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(time((UTC_TIME, b"500101000000Z")), Some(0), "1950 is before all counting");
        assert_eq!(time((GENERALIZED_TIME, b"20500101000000Z")), Some(2_524_608_000));
        assert_eq!(time((GENERALIZED_TIME, b"99991231235959Z")), Some(253_402_300_799));
    }

    #[test]
    fn times_that_are_none() {
        for text in ["", "Z", "240229235959", "24022923595Z", "241329235959Z", "2402292359.9Z", "240229235959+0100Z"] {
            assert_eq!(time((UTC_TIME, text.as_bytes())), None, "{text}");
        }
    }

    #[test]
    fn names_are_lower_case_and_askable() {
        assert_eq!(dns_name(b"*.Example.COM").as_deref(), Some("*.example.com"));
        for name in ["", "*", "f*.example.com", "a.*.example.com", "10.0.0.1", "a b"] {
            assert_eq!(dns_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(length(&[0x7f, 9]), Some((127, &[9][..])));
        assert_eq!(length(&[0x82, 1, 2]), Some((258, &[][..])));
        assert_eq!(length(&[0x80]), None, "indefinite is not DER");
        assert_eq!(length(&[0x82, 1]), None);
    }

    #[test]
    fn a_certificate_of_the_real_world() {
        let mut params = rcgen::CertificateParams::new(["B.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::IpAddress("2001:db8::1".parse().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@b.example".try_into().unwrap()));
        params.not_after = rcgen::date_time_ymd(2031, 3, 1);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let leaf = read(certificate.der()).unwrap();
        assert_eq!(leaf.not_after, 1_930_089_600);
        assert_eq!(leaf.names, ["b.example", "*.b.example"]);
        assert_eq!(leaf.addresses, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(der: Vec<u8>) {
            read(&der);
        }

        #[test]
        fn damaged_certificates_are_survived(at in 0..300usize, byte: u8) {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(["b.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            let mut der = certificate.der().to_vec();
            let at = at % der.len();
            der[at] = byte;
            read(&der);
            read(&der[..at]);
        }
    }
}
