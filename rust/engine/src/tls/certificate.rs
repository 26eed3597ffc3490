//! The certificates of a listener: read from PEM texts, and chosen by the name that a client asks for.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys, SignatureScheme};

use super::faults::{Checked, both, one};
use super::names::Names;
use super::x509::{self, Leaf};
use crate::snapshot;

/// PEM texts by the names that the snapshot uses for them.
pub(super) type Secrets = HashMap<String, Vec<u8>>;

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub key: Arc<CertifiedKey>,
    pub leaf: Leaf,
}

impl Certificate {
    /// Reads a pair, and checks that its halves belong together.
    pub fn load(
        pair: &snapshot::Certificate,
        secrets: &Secrets,
        pointer: &str,
        provider: &CryptoProvider,
    ) -> Checked<Self> {
        let at = |part: &str| format!("{pointer}/{part}");
        let chain = secret(secrets, &pair.cert).and_then(chain).map_err(|why| one(at("cert"), why));
        let key = secret(secrets, &pair.key).and_then(|text| signing_key(text, provider));
        let (chain, key) = both(chain, key.map_err(|why| one(at("key"), why)))?;
        let leaf = x509::read(&chain[0]).ok_or_else(|| one(at("cert"), "the first certificate is damaged"))?;
        let key = CertifiedKey::new(chain, key);
        fits(&key).map_err(|(part, why)| one(at(part), why))?;
        Ok(Self { key: Arc::new(key), leaf })
    }
}

/// The PEM text of that name.
pub(super) fn secret<'s>(secrets: &'s Secrets, name: &str) -> Result<&'s [u8], String> {
    secrets.get(name).map(Vec::as_slice).ok_or_else(|| format!("there is no PEM text for {name:?}"))
}

/// All certificates of a PEM text: at least one.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| format!("the PEM text is damaged: {error}"))?;
    if chain.is_empty() { Err("the PEM text has no certificate".to_owned()) } else { Ok(chain) }
}

fn signing_key(text: &[u8], provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let key = provider.key_provider.load_private_key(private_key(text)?);
    key.map_err(|error| format!("the private key is damaged or of a kind that is not supported: {error}"))
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if is_encrypted(text) {
        return Err("the private key is encrypted; the gateway needs it without a passphrase".to_owned());
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => "the PEM text has no private key".to_owned(),
        error => format!("the PEM text is damaged: {error}"),
    })
}

/// PKCS #8 says so in its label (RFC 7468 §11), older forms in a header (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// Whether the key is the one of the first certificate; else which part is at fault, and why.
fn fits(key: &CertifiedKey) -> Result<(), (&'static str, String)> {
    match key.keys_match() {
        // A key that cannot say its public half (none of aws-lc-rs) is believed.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => Err(("key", MISMATCH.to_owned())),
        Err(error) => Err(("cert", format!("the first certificate cannot be used: {error}"))),
    }
}

const MISMATCH: &str =
    "the private key does not belong to the certificate (where there are several, the server's own must come first)";

/// All certificates of a listener.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Several under one name differ in the kind of key, for clients that know only one kind.
    by_name: Names<Vec<Arc<CertifiedKey>>>,
    addresses: HashSet<IpAddr>,
    /// The first one, and those beside it that bear the same names.
    default: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// `None` without any.
    pub fn new(certificates: &[Certificate]) -> Option<Self> {
        let first = certificates.first()?;
        let alike = certificates.iter().filter(|other| other.leaf.names == first.leaf.names);
        let default = alike.map(|certificate| certificate.key.clone()).collect();
        let mut by_name: Names<Vec<Arc<CertifiedKey>>> = Names::default();
        for certificate in certificates {
            for name in &certificate.leaf.names {
                by_name.entry(name).or_default().push(certificate.key.clone());
            }
        }
        let addresses = certificates.iter().flat_map(|certificate| &certificate.leaf.addresses).copied().collect();
        Some(Self { by_name, addresses, default })
    }

    /// Whether one of them names `host`: a DNS name, or an address with or without brackets.
    pub fn covers(&self, host: &str) -> bool {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => self.by_name.find(host).is_some(),
        }
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let candidates = name.and_then(|name| self.by_name.find(name)).unwrap_or(&self.default);
        candidates.iter().find(|one| one.key.choose_scheme(schemes).is_some()).or(candidates.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}
