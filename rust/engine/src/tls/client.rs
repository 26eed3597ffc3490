//! TLS towards upstreams: from an upstream's part of the snapshot to the configuration of its handshakes.
//!
//! One configuration serves all endpoints of an upstream, on all workers, and for as long as nothing in it changes: it
//! holds the sessions that can be resumed (RFC 8446 §2.2). What changes it, the content of a file too, makes another
//! one with no sessions and, because the pools ask for it, no kept connections: nothing that was verified under one
//! trust is used under another.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client, version,
};

use super::PROVIDER;
use super::certificate::{Certificate, Secrets, chain, secret};
use super::faults::{Checked, both, one};
use super::rule::roots;
use crate::error::Fault;
use crate::snapshot::{PeerName, Trust, UpstreamTls};

/// TLS of one upstream.
#[derive(Debug)]
pub struct ClientTls {
    id: [u8; 32],
    /// One for each [`Alpn`]; those over TCP share their sessions.
    configs: [Arc<ClientConfig>; 5],
    server_name: Option<PeerName>,
}

/// Builds the TLS of an upstream, or takes over `previous` if it is the same.
///
/// `secrets` are the PEM texts by the names in `tls`, `pointer` is where `tls` stands in the snapshot.
///
/// # Errors
/// Everything that is wrong with it.
pub fn build_client(
    tls: &UpstreamTls,
    secrets: &Secrets,
    pointer: &str,
    previous: Option<&Arc<ClientTls>>,
) -> Result<Arc<ClientTls>, Vec<Fault>> {
    let id = identify(tls, secrets);
    if let Some(previous) = previous.filter(|previous| previous.id == id) {
        return Ok(previous.clone());
    }
    let verifier = verifier(&tls.trust, secrets).map_err(|why| one(format!("{pointer}/trust"), why));
    let (verifier, identity) = both(verifier, identity(tls, secrets, &format!("{pointer}/certificate")))?;
    let config = configure(verifier, identity).map_err(|error| one(pointer, error.to_string()))?;
    let configs =
        [Alpn::Nothing, Alpn::H1, Alpn::H2, Alpn::Either, Alpn::H3].map(|alpn| Arc::new(offering(&config, alpn)));
    Ok(Arc::new(ClientTls { id, configs, server_name: tls.server_name.clone() }))
}

/// What a server is offered to speak (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// Whatever comes is not HTTP.
    Nothing,
    H1,
    H2,
    /// Both, HTTP/2 first.
    Either,
    /// Over QUIC.
    H3,
}

/// The protocol id of HTTP/2.
pub const H2: &[u8] = b"h2";

fn offering(config: &ClientConfig, alpn: Alpn) -> ClientConfig {
    const H1: &[u8] = b"http/1.1";
    let ids: &[&[u8]] = match alpn {
        Alpn::Nothing => &[],
        Alpn::H1 => &[H1],
        Alpn::H2 => &[H2],
        Alpn::Either => &[H2, H1],
        Alpn::H3 => &[b"h3"],
    };
    let mut config = config.clone();
    if alpn == Alpn::H3 {
        // Sessions of TCP and of QUIC are not each other's.
        config.resumption = client::Resumption::in_memory_sessions(SESSIONS);
    }
    config.alpn_protocols = ids.iter().map(|id| id.to_vec()).collect();
    config
}

impl ClientTls {
    /// The configuration of a handshake that offers `alpn`.
    pub fn config(&self, alpn: Alpn) -> Arc<ClientConfig> {
        self.configs[alpn as usize].clone()
    }

    /// What the certificate of an endpoint must be made for, whose own host is `host`.
    pub fn server_name<'n>(&'n self, host: &'n PeerName) -> &'n ServerName<'static> {
        &self.server_name.as_ref().unwrap_or(host).0
    }
}

/// A hash of all that is written, and of the files' contents.
fn identify(tls: &UpstreamTls, secrets: &Secrets) -> [u8; 32] {
    let mut text = format!("{tls:?}\n").into_bytes();
    let trust = match &tls.trust {
        Trust::Ca(name) | Trust::System(name) => Some(name),
        Trust::Anything => None,
    };
    let pair = tls.certificate.iter().flat_map(|pair| [&pair.cert, &pair.key]);
    for content in trust.into_iter().chain(pair).filter_map(|name| secrets.get(name)) {
        text.extend_from_slice(digest(&SHA256, content).as_ref());
    }
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, &text).as_ref());
    id
}

fn configure(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.resumption = client::Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// Sessions that are kept; rustls keeps up to eight for each server name.
const SESSIONS: usize = 256;

fn identity(tls: &UpstreamTls, secrets: &Secrets, pointer: &str) -> Checked<Option<Arc<dyn ResolvesClientCert>>> {
    let Some(pair) = &tls.certificate else { return Ok(None) };
    let loaded = Certificate::load(pair, secrets, pointer, &PROVIDER)?;
    Ok(Some(Arc::new(SingleCertAndKey::from(loaded.key))))
}

fn verifier(trust: &Trust, secrets: &Secrets) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let roots = match trust {
        Trust::Anything => return Ok(Arc::new(Anything(PROVIDER.clone()))),
        Trust::Ca(name) => roots(secret(secrets, name)?)?,
        Trust::System(name) => {
            let mut usable = RootCertStore::empty();
            usable.add_parsable_certificates(chain(secret(secrets, name)?)?);
            usable
        }
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone()).build();
    verifier.map(|verifier| verifier as _).map_err(|error| format!("no certificate can be verified: {error}"))
}

/// Believes every certificate, but not that somebody has its key who has not.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a TLS handshake with an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistrust {
    /// The certificate is made for another name.
    Name,
    /// The certificate has ended, or has not begun.
    Time,
    /// The certificate does not come from an authority that is trusted.
    Authority,
    /// The certificate is faulty in another way.
    Certificate,
    /// The server refused: it wants a client certificate, or does not know the name, or speaks other versions.
    Refused,
    /// It is not TLS, or broken.
    Protocol,
    /// The connection ended.
    Lost,
}

impl Mistrust {
    pub const ALL: [Self; 7] =
        [Self::Name, Self::Time, Self::Authority, Self::Certificate, Self::Refused, Self::Protocol, Self::Lost];

    /// What a handshake's error says; none is the end of the connection.
    pub fn of(error: Option<&Error>) -> Self {
        use CertificateError as Bad;
        match error {
            None => Self::Lost,
            Some(Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. })) => Self::Name,
            Some(Error::InvalidCertificate(
                Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
            )) => Self::Time,
            Some(Error::InvalidCertificate(Bad::UnknownIssuer)) => Self::Authority,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => Self::Certificate,
            Some(Error::AlertReceived(_)) => Self::Refused,
            Some(_) => Self::Protocol,
        }
    }

    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Time => "time",
            Self::Authority => "authority",
            Self::Certificate => "certificate",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Lost => "lost",
        }
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Name => "the upstream's certificate is made for another name",
            Self::Time => "the upstream's certificate has expired, or is not valid yet",
            Self::Authority => "the upstream's certificate comes from an authority that is not trusted",
            Self::Certificate => "the upstream's certificate cannot be verified",
            Self::Refused => "the upstream refused the TLS handshake",
            Self::Protocol => "the upstream does not speak TLS as it should",
            Self::Lost => "the upstream ended the connection during the TLS handshake",
        }
    }
}
