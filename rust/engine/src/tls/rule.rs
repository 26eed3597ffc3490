//! The rules of a listener: what a client must do to be served under a server name.
//!
//! A rule is one domain of session resumption. A ticket stands for a handshake, client certificate included, and rustls
//! does not look whether the certificate would pass the verifier of the configuration that takes the ticket. So each
//! rule has a ticketer of its own, and a ticket from under another rule, or another server name (rustls sees to that),
//! is just no ticket. The ticketer goes on after a reload as long as the rule is the same, authorities included; and as
//! a ticket may live longer than the client's certificate, that one is verified again when a session is resumed. There
//! is no session store (tickets are enough and cost us no memory) and no 0-RTT, which can be replayed (RFC 8446 §8).

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{CommonState, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::ServerTls;
use super::certificate::{Certificates, Secrets, chain, secret};
use crate::snapshot::{ClientAuth, TlsRule, TlsVersion};

/// Which rule a connection was made under. Equal rules have equal ids, on other listeners and after a reload too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId([u8; 32]);

/// A rule whose verifier of client certificates is made.
#[derive(Debug)]
pub(super) struct Plan {
    id: RuleId,
    least: TlsVersion,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// A rule, ready to serve.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub id: RuleId,
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Rule {
    /// The same rule, offering other protocols by ALPN.
    pub fn speaking(&self, alpn: Vec<Vec<u8>>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = alpn;
        Arc::new(config)
    }

    /// The same rule for QUIC, which has TLS 1.3 alone (RFC 9001 §4.2). There is no resumption: nobody could verify the
    /// certificate of the client again.
    pub fn over_quic(
        &self,
        provider: &Arc<CryptoProvider>,
        certificates: Arc<Certificates>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&SINCE_1_3)?
            .with_client_cert_verifier(self.verifier.clone())
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Whether a finished handshake may stand.
    pub fn readmits(&self, connection: &CommonState) -> bool {
        if connection.handshake_kind() != Some(HandshakeKind::Resumed) || !self.verifier.offer_client_auth() {
            return true;
        }
        match connection.peer_certificates() {
            None | Some([]) => !self.verifier.client_auth_mandatory(),
            Some([own, rest @ ..]) => self.verifier.verify_client_cert(own, rest, UnixTime::now()).is_ok(),
        }
    }
}

impl Plan {
    /// `Err` says what is wrong with `client_ca`, the only part that can be.
    pub fn new(rule: &TlsRule, secrets: &Secrets, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let authorities = rule.client_ca.as_ref().map(|name| secret(secrets, name)).transpose()?;
        let roots = authorities.map(roots).transpose()?;
        let verifier = verifier(rule.client_auth, roots, provider)?;
        Ok(Self { id: identify(rule, authorities.unwrap_or_default()), least: rule.min_version, verifier })
    }
}

fn identify(rule: &TlsRule, authorities: &[u8]) -> RuleId {
    let mut text = format!("{:?} {:?}\n", rule.min_version, rule.client_auth).into_bytes();
    text.extend_from_slice(authorities);
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, &text).as_ref());
    RuleId(id)
}

fn verifier(
    client_auth: ClientAuth,
    authorities: Option<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if client_auth == ClientAuth::Off {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let authorities = authorities.ok_or("client certificates are asked for, but there are no authorities for them")?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
    let builder = if client_auth == ClientAuth::Request { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| format!("no client certificate can be verified: {error}"))
}

pub(super) fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in chain(text)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("authority {} cannot be used: {error}", index + 1))?;
    }
    Ok(roots)
}

/// The rules of a listener while they are built: one domain for all that are equal.
pub(super) struct Domains<'b> {
    provider: &'b Arc<CryptoProvider>,
    certificates: Arc<Certificates>,
    alpn: Vec<Vec<u8>>,
    rules: HashMap<RuleId, Rule>,
    previous: Option<&'b ServerTls>,
}

impl<'b> Domains<'b> {
    pub fn new(
        provider: &'b Arc<CryptoProvider>,
        certificates: Arc<Certificates>,
        alpn: Vec<Vec<u8>>,
        previous: Option<&'b ServerTls>,
    ) -> Self {
        Self { provider, certificates, alpn, rules: HashMap::new(), previous }
    }

    /// The rule of that plan; `Err` says why the crypto provider cannot serve it.
    pub fn rule(&mut self, plan: Plan) -> Result<Rule, String> {
        if let Some(rule) = self.rules.get(&plan.id) {
            return Ok(rule.clone());
        }
        let (id, verifier) = (plan.id, plan.verifier.clone());
        let config = self.config(plan).map_err(|error| error.to_string())?;
        let rule = Rule { id, config: Arc::new(config), verifier };
        self.rules.insert(id, rule.clone());
        Ok(rule)
    }

    fn ticketer(&self, id: RuleId) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let old = self.previous.and_then(|previous| previous.rules().find(|rule| rule.id == id));
        old.map_or_else(Ticketer::new, |old| Ok(old.config.ticketer.clone()))
    }

    fn config(&self, plan: Plan) -> Result<ServerConfig, rustls::Error> {
        let id = plan.id;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions(plan.least))?
            .with_client_cert_verifier(plan.verifier)
            .with_cert_resolver(self.certificates.clone());
        config.alpn_protocols = self.alpn.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = self.ticketer(id)?;
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        Ok(config)
    }
}

static SINCE_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static SINCE_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match least {
        TlsVersion::V1_2 => &SINCE_1_2,
        TlsVersion::V1_3 => &SINCE_1_3,
    }
}
