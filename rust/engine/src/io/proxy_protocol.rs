//! The PROXY protocol, versions 1 and 2: a load balancer in front of us names the client it speaks for.
//!
//! Follows "The PROXY protocol" (haproxy.org, 2020/03/05). The header comes first on the connection, before TLS, and
//! only from peers the configuration names; from anybody else it is an attempt to borrow an address. Version 1 is one
//! line of at most 107 bytes. Version 2 is binary: a signature, command and family, a length, addresses, then TLVs,
//! which are walked over, and of which the CRC32c is verified.
//!
//! A wrong byte is refused as soon as it is there, so that a peer that speaks something else gets its error at once and
//! not after a timeout. The verdict does not depend on how the bytes were split.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::snapshot::ProxyVersion;

/// The longest version 2 header taken, addresses and TLVs included. Headers in use have a few hundred bytes; those with
/// client certificate fields reach two thousand.
pub const LIMIT: usize = 4096;

/// A version 1 line has at most this many bytes, CRLF included (§2.1).
const LINE_LIMIT: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
const CHECKSUM_TYPE: u8 = 0x03;

/// Whom a connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The balancer speaks for itself, as in a health check: use the connection's own addresses.
    Local,
    /// For a client without an IP address, or of unknown kind: use the connection's own addresses.
    Unknown,
    /// For this client. IPv4 addresses in IPv6 clothes are given as IPv4.
    Addresses {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// The outcome of reading a header that may not be there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedProxy {
    /// More bytes are needed.
    Partial,
    /// The header, and how many bytes of the buffer it took.
    Complete {
        /// What was read.
        header: ProxyHeader,
        /// The client's own bytes begin at this offset.
        consumed: usize,
    },
}

/// Why a header was refused. The connection must close without an answer: the peer is not the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadProxyHeader {
    /// The bytes are not the beginning of a PROXY header.
    Signature,
    /// The version or command is unknown.
    Command,
    /// The address family or transport is unknown or not a stream.
    Family,
    /// The length is beyond [`LIMIT`], or too short for the addresses.
    Length,
    /// A version 1 line is malformed, or longer than it may be.
    Line,
    /// An address of a version 1 line is malformed.
    Address,
    /// A port of a version 1 line is malformed.
    Port,
    /// A TLV does not fit into the header.
    Extension,
    /// The CRC32c does not match.
    Checksum,
}

impl BadProxyHeader {
    /// A stable identifier in snake case.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Signature => "proxy_signature",
            Self::Command => "proxy_command",
            Self::Family => "proxy_family",
            Self::Length => "proxy_length",
            Self::Line => "proxy_line",
            Self::Address => "proxy_address",
            Self::Port => "proxy_port",
            Self::Extension => "proxy_extension",
            Self::Checksum => "proxy_checksum",
        }
    }
}

impl fmt::Display for BadProxyHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the PROXY protocol header is not valid ({})", self.reason())
    }
}

impl std::error::Error for BadProxyHeader {}

type Result<T> = std::result::Result<T, BadProxyHeader>;

/// Reads a header at the start of `buffer`. Call again with more bytes after [`ParsedProxy::Partial`].
pub fn parse(buffer: &[u8]) -> Result<ParsedProxy> {
    match buffer.first() {
        None => Ok(ParsedProxy::Partial),
        Some(b'P') => parse_line(buffer),
        Some(_) => parse_binary(buffer),
    }
}

/// Whether `buffer` begins with `expected`; none while it may yet.
fn begins_with(buffer: &[u8], expected: &[u8]) -> Option<bool> {
    let length = buffer.len().min(expected.len());
    if buffer[..length] != expected[..length] {
        return Some(false);
    }
    (length == expected.len()).then_some(true)
}

// Version 1

const TCP4: &[u8] = b"PROXY TCP4 ";
const TCP6: &[u8] = b"PROXY TCP6 ";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

fn parse_line(buffer: &[u8]) -> Result<ParsedProxy> {
    for (prefix, read) in [(TCP4, read_tcp4 as fn(&[u8]) -> _), (TCP6, read_tcp6), (UNKNOWN, read_unknown)] {
        match begins_with(buffer, prefix) {
            None => return Ok(ParsedProxy::Partial),
            Some(false) => continue,
            Some(true) => return finish_line(buffer, prefix.len(), read),
        }
    }
    Err(BadProxyHeader::Signature)
}

fn finish_line(buffer: &[u8], prefix: usize, read: fn(&[u8]) -> Result<ProxyHeader>) -> Result<ParsedProxy> {
    let within = &buffer[..buffer.len().min(LINE_LIMIT)];
    let Some(end) = line_end(within, prefix)? else {
        return if buffer.len() < LINE_LIMIT { Ok(ParsedProxy::Partial) } else { Err(BadProxyHeader::Line) };
    };
    Ok(ParsedProxy::Complete { header: read(&within[prefix..end])?, consumed: end + 2 })
}

/// Where the CRLF is; an error once a byte shows that this is no such line.
fn line_end(line: &[u8], prefix: usize) -> Result<Option<usize>> {
    match line[prefix..].iter().position(|byte| !matches!(byte, b' '..=b'~')).map(|at| prefix + at) {
        None => Ok(None),
        Some(at) => match (line[at], line.get(at + 1)) {
            (b'\r', Some(b'\n')) => Ok(Some(at)),
            (b'\r', None) => Ok(None),
            _ => Err(BadProxyHeader::Line),
        },
    }
}

fn read_unknown(rest: &[u8]) -> Result<ProxyHeader> {
    // The rest of the line is to be ignored (§2.1), but the word must end where it ends.
    if rest.is_empty() || rest[0] == b' ' { Ok(ProxyHeader::Unknown) } else { Err(BadProxyHeader::Line) }
}

fn read_tcp4(rest: &[u8]) -> Result<ProxyHeader> {
    read_addresses::<Ipv4Addr>(rest)
}

fn read_tcp6(rest: &[u8]) -> Result<ProxyHeader> {
    read_addresses::<Ipv6Addr>(rest)
}

fn read_addresses<A: std::str::FromStr + Into<IpAddr>>(rest: &[u8]) -> Result<ProxyHeader> {
    let words = std::str::from_utf8(rest).map_err(|_| BadProxyHeader::Line)?;
    let mut words = words.split(' ');
    let mut word = || words.next().ok_or(BadProxyHeader::Line);
    let (source, destination) = (read_address::<A>(word()?)?, read_address::<A>(word()?)?);
    let (source_port, destination_port) = (read_port(word()?)?, read_port(word()?)?);
    match words.next() {
        None => Ok(addresses(source, source_port, destination, destination_port)),
        Some(_) => Err(BadProxyHeader::Line),
    }
}

fn read_address<A: std::str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr> {
    word.parse::<A>().map(Into::into).map_err(|_| BadProxyHeader::Address)
}

/// Decimal without sign or leading zeros (§2.1).
fn read_port(word: &str) -> Result<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain).ok_or(BadProxyHeader::Port)
}

fn addresses(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> ProxyHeader {
    ProxyHeader::Addresses {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
    }
}

// Version 2

fn parse_binary(buffer: &[u8]) -> Result<ParsedProxy> {
    if begins_with(buffer, SIGNATURE) == Some(false) {
        return Err(BadProxyHeader::Signature);
    }
    let command = check_byte(buffer, 12, |byte| matches!(byte, 0x20 | 0x21), BadProxyHeader::Command)?;
    // The family says nothing when the balancer speaks for itself, and is not to be judged then (§2.2).
    let is_local = command == Some(0x20);
    let family = check_byte(buffer, 13, |byte| is_local || address_length(byte).is_some(), BadProxyHeader::Family)?;
    let (Some(family), Some(&high), Some(&low)) = (family, buffer.get(14), buffer.get(15)) else {
        return Ok(ParsedProxy::Partial);
    };
    let addresses = if is_local { 0 } else { address_length(family).unwrap_or(0) };
    let end = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if end > LIMIT || end < FIXED + addresses {
        return Err(BadProxyHeader::Length);
    }
    let Some(header) = buffer.get(..end) else { return Ok(ParsedProxy::Partial) };
    let header = if is_local { ProxyHeader::Local } else { read_binary(header, family, addresses)? };
    Ok(ParsedProxy::Complete { header, consumed: end })
}

fn check_byte(buffer: &[u8], at: usize, is_good: impl Fn(u8) -> bool, fault: BadProxyHeader) -> Result<Option<u8>> {
    match buffer.get(at) {
        Some(byte) if !is_good(*byte) => Err(fault),
        byte => Ok(byte.copied()),
    }
}

/// How many bytes of addresses a family has: unspecified, and streams over IPv4, IPv6 and unix sockets. Datagrams do
/// not come over a stream.
fn address_length(family: u8) -> Option<usize> {
    match family {
        0x00 => Some(0),
        0x11 => Some(12),
        0x21 => Some(36),
        0x31 => Some(216),
        _ => None,
    }
}

fn read_binary(header: &[u8], family: u8, addresses: usize) -> Result<ProxyHeader> {
    if family == 0x00 {
        // What an unspecified family carries is unspecified, too: skipped whole.
        return Ok(ProxyHeader::Unknown);
    }
    let (block, extensions) = header[FIXED..].split_at(addresses);
    check_extensions(header, header.len() - extensions.len())?;
    Ok(match family {
        0x11 => binary_addresses::<4>(block).unwrap_or(ProxyHeader::Unknown),
        0x21 => binary_addresses::<16>(block).unwrap_or(ProxyHeader::Unknown),
        _ => ProxyHeader::Unknown,
    })
}

/// Source, destination, source port, destination port, all in network order. The block has been cut to size.
fn binary_addresses<const N: usize>(block: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    Some(addresses(
        IpAddr::from(*source),
        u16::from_be_bytes(*source_port),
        IpAddr::from(*destination),
        u16::from_be_bytes(*destination_port),
    ))
}

/// Walks over the TLVs from `at` on: each is a type, a length of two bytes, a value.
fn check_extensions(header: &[u8], mut at: usize) -> Result<()> {
    while at < header.len() {
        let Some([kind, high, low]) = header[at..].first_chunk::<3>() else { return Err(BadProxyHeader::Extension) };
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([*high, *low]));
        let value = header.get(value..at).ok_or(BadProxyHeader::Extension)?;
        if *kind == CHECKSUM_TYPE {
            check_sum(header, value, at)?;
        }
    }
    Ok(())
}

/// The sum is taken over the whole header with zeros in its own place (§2.2.3).
fn check_sum(header: &[u8], value: &[u8], end: usize) -> Result<()> {
    let Ok(expected) = <[u8; 4]>::try_from(value) else { return Err(BadProxyHeader::Extension) };
    let (before, after) = (&header[..end - 4], &header[end..]);
    let sum = [before, &[0; 4], after].into_iter().fold(!0, crc32c);
    if !sum == u32::from_be_bytes(expected) { Ok(()) } else { Err(BadProxyHeader::Checksum) }
}

/// CRC32c (RFC 3720 Appendix B.4), bit by bit: it runs once a connection over a few hundred bytes.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

// Writing

/// Writes a version 1 header. Where one address is IPv6, both are written so.
pub fn write_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let family = if source.is_ipv4() && destination.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = same_family(source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Writes a version 2 header with a checksum. Where one address is IPv6, both are written so.
pub fn write_v2(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let start = out.len();
    let (from, to) = same_family(source.ip(), destination.ip());
    let (family, addresses): (u8, u16) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x21, family]);
    out.extend_from_slice(&(addresses + 7).to_be_bytes());
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out.extend_from_slice(&[CHECKSUM_TYPE, 0, 4, 0, 0, 0, 0]);
    let sum = !crc32c(!0, &out[start..]);
    let place = out.len() - 4;
    out[place..].copy_from_slice(&sum.to_be_bytes());
}

/// Writes a header of either version that names nobody: the connection is its own (§2.1, §2.2).
pub fn write_local(out: &mut Vec<u8>, version: ProxyVersion) {
    match version {
        ProxyVersion::V1 => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        ProxyVersion::V2 => {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0x20, 0, 0, 0]);
        }
    }
}

fn same_family(source: IpAddr, destination: IpAddr) -> (IpAddr, IpAddr) {
    let as_v6 = |address| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    };
    if source.is_ipv4() && destination.is_ipv4() { (source, destination) } else { (as_v6(source), as_v6(destination)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_crc32c() {
        // The check value of the CRC catalogue, and a vector of RFC 3720 Appendix B.4.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn ports_are_plain_numbers() {
        assert_eq!((read_port("0"), read_port("65535")), (Ok(0), Ok(65535)));
        for word in ["", "+1", "-1", "01", "00", "65536", "1x", " 1"] {
            assert_eq!(read_port(word), Err(BadProxyHeader::Port), "{word}");
        }
    }
}
