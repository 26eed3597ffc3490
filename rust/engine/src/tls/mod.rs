//! TLS towards the client: from a listener's part of the snapshot to the configuration for one ClientHello. Towards
//! upstreams: `client`.
//!
//! Two things are chosen by the server name of a ClientHello (RFC 6066 §3), each by exact name, then by one wildcard
//! label, then the default: the *rule* (least version, client certificate), here, before the handshake goes on; and the
//! *certificate*, in rustls, by `certificate::Certificates`. HTTP may later ask for another host on the same
//! connection. The server then compares [`ServerTls::rule`] of both names and asks [`ServerTls::covers`], and answers
//! 421 (RFC 9110 §15.5.20), or a client certificate could be evaded by naming another host in the ClientHello.
//!
//! Nothing here does IO. The crypto provider is aws-lc-rs, named wherever rustls would look for a global one.

mod certificate;
mod client;
mod faults;
mod hello;
mod names;
mod rule;
mod x509;

use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CommonState, ServerConfig};

use self::certificate::{Certificate, Certificates, Secrets};
pub use self::client::{Alpn, ClientTls, H2, Mistrust, build_client};
use self::faults::{Checked, all, both, one};
pub use self::hello::{BadHello, LIMIT as HELLO_LIMIT, ParsedHello, parse_hello};
pub use self::names::Names;
pub use self::rule::RuleId;
use self::rule::{Domains, Plan, Rule};
use crate::error::Fault;
use crate::snapshot::{self, HttpVersion};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// TLS of one listener.
#[derive(Debug)]
pub struct ServerTls {
    certificates: Arc<Certificates>,
    default: Rule,
    by_name: Names<Rule>,
    /// What is spoken under some server names, as a position in `narrowed`.
    protocols: Names<usize>,
    narrowed: Vec<Narrowed>,
    expiries: Vec<(String, u64)>,
}

/// Other versions of HTTP than the listener's, under each of its rules.
#[derive(Debug)]
struct Narrowed {
    http: Vec<HttpVersion>,
    configs: HashMap<RuleId, Arc<ServerConfig>>,
}

/// Builds the TLS of a listener, offering by ALPN the versions `http`; clients without ALPN are taken too. Sessions go
/// on under the rules that are in `previous`, the TLS of the same listener in the configuration before.
///
/// `secrets` are the PEM texts by the names in `tls`, `pointer` is where `tls` stands in the snapshot. All faults are
/// reported, not only the first.
pub fn build(
    tls: &snapshot::Tls,
    secrets: &HashMap<String, Vec<u8>>,
    pointer: &str,
    http: &[HttpVersion],
    previous: Option<&ServerTls>,
) -> Result<ServerTls, Vec<Fault>> {
    let loaded = certificates(tls, secrets, &format!("{pointer}/certificates"));
    let default = plan(&tls.rule, secrets, &format!("{pointer}/rule"));
    let by_name = plans(&tls.by_name, secrets, &format!("{pointer}/by_name"));
    let protocols = protocols(&tls.protocols, &format!("{pointer}/protocols"));
    let (loaded, (default, (by_name, protocols))) = both(loaded, both(default, both(by_name, protocols)))?;
    let certificates = Certificates::new(&loaded);
    let certificates = Arc::new(certificates.ok_or_else(|| one(pointer, "there is no certificate"))?);
    let mut domains = Domains::new(&PROVIDER, certificates.clone(), alpn(http), previous);
    let mut serve = |plan| domains.rule(plan).map_err(|why| one(pointer, why));
    let mut names = Names::default();
    for (name, plan) in by_name {
        names.entry(name).or_insert(serve(plan)?);
    }
    let default = serve(default)?;
    let (protocols, narrowed) = narrow(protocols, &names.values().chain([&default]).collect::<Vec<_>>());
    Ok(ServerTls { certificates, default, by_name: names, protocols, narrowed, expiries: expiries(tls, &loaded) })
}

/// The names of ALPN (RFC 7301), best first.
fn alpn(http: &[HttpVersion]) -> Vec<Vec<u8>> {
    const NAMES: [(HttpVersion, &[u8]); 2] = [(HttpVersion::H2, b"h2"), (HttpVersion::H1, b"http/1.1")];
    NAMES.iter().filter(|(version, _)| http.contains(version)).map(|(_, name)| name.to_vec()).collect()
}

/// The configurations for server names that speak other versions, for each of the rules.
fn narrow(protocols: Vec<(&str, &[HttpVersion])>, rules: &[&Rule]) -> (Names<usize>, Vec<Narrowed>) {
    let (mut names, mut narrowed) = (Names::default(), Vec::<Narrowed>::new());
    for (name, http) in protocols {
        let known = narrowed.iter().position(|narrowed| narrowed.http == http);
        let position = known.unwrap_or_else(|| {
            let configs = rules.iter().map(|rule| (rule.id, rule.speaking(alpn(http)))).collect();
            narrowed.push(Narrowed { http: http.to_vec(), configs });
            narrowed.len() - 1
        });
        names.entry(name).or_insert(position);
    }
    (names, narrowed)
}

impl ServerTls {
    /// The configuration for a ClientHello with that server name.
    pub fn config(&self, server_name: Option<&str>) -> Arc<ServerConfig> {
        let rule = self.under(server_name);
        let narrowed = server_name.and_then(|name| self.narrowed(name));
        narrowed.and_then(|narrowed| narrowed.configs.get(&rule.id)).unwrap_or(&rule.config).clone()
    }

    /// The configuration for QUIC, which is chosen before a server name is known: the default rule's.
    ///
    /// # Errors
    /// Why the crypto provider cannot serve it.
    pub fn over_quic(&self) -> Result<Arc<ServerConfig>, String> {
        let config = self.default.over_quic(&PROVIDER, self.certificates.clone());
        config.map(Arc::new).map_err(|error| error.to_string())
    }

    /// Whether HTTP/3 may be spoken under a server name: nothing else is asked of its clients than of others.
    pub fn speaks_h3(&self, server_name: Option<&str>) -> bool {
        let is_usual = self.under(server_name).id == self.default.id;
        is_usual && server_name.is_none_or(|name| self.speaks(name, HttpVersion::H3))
    }

    /// Whether this version of HTTP may be spoken with `host`, as far as its name decides that.
    pub fn speaks(&self, host: &str, version: HttpVersion) -> bool {
        self.narrowed(host).is_none_or(|narrowed| narrowed.http.contains(&version))
    }

    fn narrowed(&self, name: &str) -> Option<&Narrowed> {
        self.protocols.find(name).map(|position| &self.narrowed[*position])
    }

    /// The rule that a connection with that server name is made under.
    pub fn rule<'n>(&self, server_name: impl Into<Option<&'n str>>) -> RuleId {
        self.under(server_name.into()).id
    }

    /// Whether a finished handshake may stand: the certificate that a resumed session remembers is verified again.
    pub fn readmits(&self, server_name: Option<&str>, connection: &CommonState) -> bool {
        self.under(server_name).readmits(connection)
    }

    /// The rules, each as often as it is used.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.by_name.values().chain([&self.default])
    }

    /// Whether some certificate names `host`: a DNS name, or an address with or without brackets, without a port.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates.covers(host)
    }

    /// For each certificate its first name and when it ends, in seconds since 1970.
    pub fn expiries(&self) -> Vec<(String, u64)> {
        self.expiries.clone()
    }

    fn under(&self, server_name: Option<&str>) -> &Rule {
        server_name.and_then(|name| self.by_name.find(name)).unwrap_or(&self.default)
    }
}

fn certificates(tls: &snapshot::Tls, secrets: &Secrets, pointer: &str) -> Checked<Vec<Certificate>> {
    let pairs = tls.certificates.iter().enumerate();
    all(pairs.map(|(index, pair)| Certificate::load(pair, secrets, &format!("{pointer}/{index}"), &PROVIDER)))
}

fn plan(rule: &snapshot::TlsRule, secrets: &Secrets, pointer: &str) -> Checked<Plan> {
    Plan::new(rule, secrets, &PROVIDER).map_err(|why| one(format!("{pointer}/client_ca"), why))
}

fn plans<'s>(
    rules: &'s [(String, snapshot::TlsRule)],
    secrets: &Secrets,
    pointer: &str,
) -> Checked<Vec<(&'s str, Plan)>> {
    let mut seen = Names::default();
    all(rules.iter().enumerate().map(|(index, (name, rule))| {
        let named = named(name, &mut seen).map_err(|why| one(format!("{pointer}/{index}/0"), why));
        both(named, plan(rule, secrets, &format!("{pointer}/{index}/1")))
    }))
}

fn protocols<'s>(
    protocols: &'s [(String, Vec<HttpVersion>)],
    pointer: &str,
) -> Checked<Vec<(&'s str, &'s [HttpVersion])>> {
    let mut seen = Names::default();
    all(protocols.iter().enumerate().map(|(index, (name, http))| {
        named(name, &mut seen).map(|name| (name, &**http)).map_err(|why| one(format!("{pointer}/{index}/0"), why))
    }))
}

fn named<'s>(name: &'s str, seen: &mut Names<()>) -> Result<&'s str, String> {
    if !names::is_pattern(name) {
        return Err(format!("{name:?} is no server name: neither like a.example.com nor like *.example.com"));
    }
    match seen.entry(name) {
        Entry::Occupied(_) => Err(format!("there are two rules for {name}")),
        Entry::Vacant(entry) => {
            entry.insert(());
            Ok(name)
        }
    }
}

fn expiries(tls: &snapshot::Tls, loaded: &[Certificate]) -> Vec<(String, u64)> {
    let name = |pair: &snapshot::Certificate, leaf: &x509::Leaf| {
        let address = || leaf.addresses.first().map(ToString::to_string);
        leaf.names.first().cloned().or_else(address).unwrap_or_else(|| pair.cert.clone())
    };
    tls.certificates.iter().zip(loaded).map(|(pair, one)| (name(pair, &one.leaf), one.leaf.not_after)).collect()
}
