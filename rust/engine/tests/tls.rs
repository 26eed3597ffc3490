//! Handshakes in memory, with real clients: which certificate, which rule, who is refused, what may be resumed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{Acceptor, ServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ConnectionCommon, HandshakeKind, ProtocolVersion, RootCertStore, SideData, SupportedProtocolVersion,
};
use tidegate_engine::error::Fault;
use tidegate_engine::snapshot::{Certificate, ClientAuth, HttpVersion, Tls, TlsRule, TlsVersion};
use tidegate_engine::tls::{self, ServerTls};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key in PEM.
struct Pair {
    cert: String,
    key: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &Authority, names: &[&str]) -> Pair {
    issue_for(authority, names, KeyPair::generate().unwrap())
}

fn issue_for(authority: &Authority, names: &[&str], key: KeyPair) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, authority).unwrap();
    Pair { cert: certificate.pem(), key: key.serialize_pem() }
}

fn rule(min_version: TlsVersion, client_auth: ClientAuth) -> TlsRule {
    let client_ca = (client_auth != ClientAuth::Off).then(|| "clients.pem".to_owned());
    TlsRule { min_version, client_auth, client_ca }
}

/// What a listener has, beside its PEM texts.
struct Listener {
    tls: Tls,
    secrets: HashMap<String, Vec<u8>>,
    http: Vec<HttpVersion>,
}

impl Listener {
    fn new(pairs: &[Pair]) -> Self {
        let rule = rule(TlsVersion::V1_2, ClientAuth::Off);
        let tls = Tls { certificates: Vec::new(), rule, by_name: Vec::new(), protocols: Vec::new() };
        let mut listener = Self { tls, secrets: HashMap::new(), http: vec![HttpVersion::H1] };
        pairs.iter().for_each(|pair| listener.add(pair));
        listener
    }

    fn add(&mut self, pair: &Pair) {
        let index = self.tls.certificates.len();
        let (cert, key) = (format!("{index}.pem"), format!("{index}.key"));
        self.secrets.insert(cert.clone(), pair.cert.clone().into());
        self.secrets.insert(key.clone(), pair.key.clone().into());
        self.tls.certificates.push(Certificate { cert, key });
    }

    fn with_rule(mut self, rule: TlsRule) -> Self {
        self.tls.rule = rule;
        self
    }

    fn with_name(mut self, name: &str, rule: TlsRule) -> Self {
        self.tls.by_name.push((name.to_owned(), rule));
        self
    }

    fn with_client_ca(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.secrets.insert("clients.pem".to_owned(), text.into());
        self
    }

    fn build(&self) -> Result<ServerTls, Vec<Fault>> {
        self.build_after(None)
    }

    /// After a reload from `previous`.
    fn build_after(&self, previous: Option<&ServerTls>) -> Result<ServerTls, Vec<Fault>> {
        tls::build(&self.tls, &self.secrets, "/listeners/0/tls", &self.http, previous)
    }

    /// The faults as `pointer: message`; there must be some.
    fn faults(&self) -> Vec<String> {
        self.build().unwrap_err().iter().map(ToString::to_string).collect()
    }
}

/// A client that believes `authority`.
struct Client {
    authority: RootCertStore,
    provider: CryptoProvider,
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Option<Pair>,
    sni: bool,
    alpn: Vec<Vec<u8>>,
}

impl Client {
    fn new(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let versions = vec![&TLS13, &TLS12];
        let provider = aws_lc_rs::default_provider();
        Self { authority: roots, provider, versions, identity: None, sni: true, alpn: Vec::new() }
    }

    fn config(self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider));
        let builder = builder.with_protocol_versions(&self.versions).unwrap().with_root_certificates(self.authority);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).map(Result::unwrap).collect();
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.enable_sni = self.sni;
        config.alpn_protocols = self.alpn;
        config.resumption = Resumption::in_memory_sessions(64); // eight server names
        Arc::new(config)
    }
}

/// Both ends of a connection after its handshake.
#[derive(Debug)]
struct Session {
    client: ClientConnection,
    server: ServerConnection,
}

impl Session {
    /// Which of `pairs` the client saw.
    fn certificate(&self, pairs: &[Pair]) -> usize {
        let seen = &self.client.peer_certificates().unwrap()[0];
        let is_seen = |pair: &Pair| CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap() == *seen;
        pairs.iter().position(is_seen).unwrap()
    }

    fn resumed(&self) -> bool {
        self.server.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// A connection to `name`; an error is the server's or the client's, whoever found one first.
fn connect(tls: &ServerTls, config: &Arc<ClientConfig>, name: &str) -> Result<Session, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(config.clone(), name).unwrap();
    let mut server = accept(tls, &mut client)?;
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        carry(&mut client, &mut server).and_then(|()| carry(&mut server, &mut client))?;
    }
    Ok(Session { client, server })
}

/// As the server does: read the ClientHello, then choose the configuration.
fn accept(tls: &ServerTls, client: &mut ClientConnection) -> Result<ServerConnection, String> {
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| error.to_string())?.expect("a whole ClientHello");
    let config = tls.config(accepted.client_hello().server_name());
    accepted.into_connection(config).map_err(|(error, _)| error.to_string())
}

fn carry<A: SideData, B: SideData>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), String> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).map_err(|error: io::Error| error.to_string())?;
        to.process_new_packets().map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn certificates_are_chosen_by_server_name() {
    let authority = authority();
    let pairs = [
        issue(&authority, &["default.example"]),
        issue(&authority, &["*.example.com"]),
        issue(&authority, &["A.example.com", "b.test"]),
    ];
    let tls = Listener::new(&pairs).build().unwrap();
    let client = Client::new(&authority).config();
    let seen = |name| connect(&tls, &client, name).map(|session| session.certificate(&pairs));
    assert_eq!(seen("default.example"), Ok(0));
    assert_eq!(seen("x.example.com"), Ok(1));
    assert_eq!(seen("a.example.com"), Ok(2));
    assert_eq!(seen("b.test"), Ok(2));
    assert!(seen("unknown.test").unwrap_err().contains("not valid for name"), "the first certificate serves the rest");
}

#[test]
fn without_a_server_name_the_first_certificate_serves() {
    let authority = authority();
    let pairs = [issue(&authority, &["a.test"]), issue(&authority, &["b.test"])];
    let tls = Listener::new(&pairs).build().unwrap();
    let client = Client { sni: false, ..Client::new(&authority) }.config();
    let session = connect(&tls, &client, "a.test").unwrap();
    assert_eq!((session.server.server_name(), session.certificate(&pairs)), (None, 0));
}

#[test]
fn a_client_gets_a_key_of_a_kind_that_it_knows() {
    let authority = authority();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let pairs = [issue(&authority, &["a.test"]), issue_for(&authority, &["a.test"], rsa)];
    let tls = Listener::new(&pairs).build().unwrap();
    let anything = Client::new(&authority).config();
    assert_eq!(connect(&tls, &anything, "a.test").unwrap().certificate(&pairs), 0);

    // TLS 1.2 suites name the kind of key; in this client all do RSA.
    let mut client = Client { versions: vec![&TLS12], ..Client::new(&authority) };
    client.provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let session = connect(&tls, &client.config(), "a.test").unwrap();
    assert_eq!(session.certificate(&pairs), 1);
}

#[test]
fn covers_says_which_hosts_are_named() {
    let authority = authority();
    let tls = Listener::new(&[
        issue(&authority, &["a.test", "10.0.0.1", "2001:db8::1"]),
        issue(&authority, &["*.wild.test"]),
    ]);
    let tls = tls.build().unwrap();
    for host in ["a.test", "A.TEST.", "x.wild.test", "10.0.0.1", "2001:db8::1", "[2001:db8::1]"] {
        assert!(tls.covers(host), "{host}");
    }
    for host in ["", "b.test", "x.a.test", "wild.test", "x.y.wild.test", "10.0.0.2", "[::1]"] {
        assert!(!tls.covers(host), "{host}");
    }
}

#[test]
fn expiries_are_those_of_the_certificates() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let named = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    params.subject_alt_names.clear();
    let nameless = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let tls = Listener::new(&[named, nameless]).build().unwrap();
    let end = 2_208_988_800;
    assert_eq!(tls.expiries(), [("a.test".to_owned(), end), ("1.pem".to_owned(), end)]);
}

#[test]
fn the_least_version_goes_by_server_name() {
    let authority = authority();
    let pair = issue(&authority, &["a.test", "b.test"]);
    let listener = Listener::new(&[pair]).with_name("b.test", rule(TlsVersion::V1_3, ClientAuth::Off));
    let tls = listener.build().unwrap();
    let old = Client { versions: vec![&TLS12], ..Client::new(&authority) }.config();
    let new = Client::new(&authority).config();
    let version = |client, name| connect(&tls, client, name).map(|session| session.server.protocol_version());
    assert_eq!(version(&old, "a.test"), Ok(Some(ProtocolVersion::TLSv1_2)));
    assert_eq!(version(&new, "a.test"), Ok(Some(ProtocolVersion::TLSv1_3)));
    assert_eq!(version(&new, "b.test"), Ok(Some(ProtocolVersion::TLSv1_3)));
    assert!(version(&old, "b.test").unwrap_err().contains("incompatible"), "{:?}", version(&old, "b.test"));
}

#[test]
fn protocols_are_agreed_on() {
    let authority = authority();
    let tls = Listener::new(&[issue(&authority, &["a.test"])]).build().unwrap();
    let offer = |protocols: &[&[u8]]| {
        let alpn = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let session = connect(&tls, &Client { alpn, ..Client::new(&authority) }.config(), "a.test")?;
        Ok::<_, String>(session.client.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offer(&[b"h2", b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(offer(&[]), Ok(None));
    assert!(offer(&[b"h2"]).is_err(), "RFC 7301 §3.2: nothing in common ends the handshake");
}

#[test]
fn protocols_by_server_name() {
    let authority = authority();
    let names = ["a.test", "old.test", "x.new.test"];
    let mut listener = Listener::new(&[issue(&authority, &names)]);
    listener.http = vec![HttpVersion::H1, HttpVersion::H2];
    listener.tls.protocols =
        vec![("old.test".into(), vec![HttpVersion::H1]), ("*.new.test".into(), vec![HttpVersion::H2])];
    // Whatever rule a name falls under, its protocols are its own.
    let tls = listener.with_name("old.test", rule(TlsVersion::V1_3, ClientAuth::Off)).build().unwrap();
    let agreed = |name: &str, protocols: &[&[u8]]| {
        let alpn = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let session = connect(&tls, &Client { alpn, ..Client::new(&authority) }.config(), name)?;
        Ok::<_, String>(session.client.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
    };
    let both: &[&[u8]] = &[b"http/1.1", b"h2"];
    for (name, expected) in [("a.test", "h2"), ("old.test", "http/1.1"), ("x.new.test", "h2")] {
        assert_eq!(agreed(name, both), Ok(Some(expected.to_owned())), "{name}");
    }
    assert!(agreed("x.new.test", &[b"http/1.1"]).is_err());
    let speaks = |name, version| tls.speaks(name, version);
    assert!(speaks("a.test", HttpVersion::H2) && speaks("old.test", HttpVersion::H1));
    assert!(!speaks("old.test", HttpVersion::H2) && !speaks("x.new.test", HttpVersion::H1));
}

/// The outcome of connecting to a listener that treats client certificates so: whether the server has one.
fn with_identity(
    client_auth: ClientAuth,
    version: &'static SupportedProtocolVersion,
    ours: Option<bool>,
) -> Result<bool, String> {
    let (authority, stranger) = (authority(), self::authority());
    let issuer = |ours| if ours { &authority } else { &stranger };
    let identity = ours.map(|ours| issue(issuer(ours), &["client.test"]));
    let listener = Listener::new(&[issue(&authority, &["a.test"])]).with_client_ca(authority.pem());
    let tls = listener.with_rule(rule(TlsVersion::V1_2, client_auth)).build().unwrap();
    let client = Client { identity, versions: vec![version], ..Client::new(&authority) }.config();
    connect(&tls, &client, "a.test").map(|session| session.server.peer_certificates().is_some())
}

#[test]
fn client_certificates() {
    for version in [&TLS12, &TLS13] {
        assert_eq!(with_identity(ClientAuth::Off, version, Some(true)), Ok(false));
        assert_eq!(with_identity(ClientAuth::Request, version, None), Ok(false));
        assert_eq!(with_identity(ClientAuth::Request, version, Some(true)), Ok(true));
        assert_eq!(with_identity(ClientAuth::Require, version, Some(true)), Ok(true));
        assert!(with_identity(ClientAuth::Require, version, None).is_err());
        assert!(with_identity(ClientAuth::Require, version, Some(false)).is_err());
        assert!(with_identity(ClientAuth::Request, version, Some(false)).is_err(), "verified when given");
    }
}

/// Three names, of which two are under the default rule and one asks for a client certificate.
fn mixed(authority: &Authority) -> ServerTls {
    let listener = Listener::new(&[issue(authority, &["a.test", "b.test", "locked.test"])]);
    let required = rule(TlsVersion::V1_2, ClientAuth::Require);
    listener.with_client_ca(authority.pem()).with_name("locked.test", required).build().unwrap()
}

#[test]
fn sessions_are_resumed_under_their_name() {
    let authority = authority();
    let tls = mixed(&authority);
    for version in [&TLS12, &TLS13] {
        let identity = Some(issue(&authority, &["client.test"]));
        let client = Client { identity, versions: vec![version], ..Client::new(&authority) }.config();
        for name in ["a.test", "locked.test"] {
            assert!(!connect(&tls, &client, name).unwrap().resumed());
            let again = connect(&tls, &client, name).unwrap();
            assert!(again.resumed(), "{name} over {version:?}");
            assert_eq!(again.server.peer_certificates().is_some(), name == "locked.test");
        }
    }
}

/// Two listeners with the same certificate, so that nothing but the rule keeps tickets apart.
#[test]
fn sessions_do_not_cross_rules() {
    let authority = authority();
    let pair = [issue(&authority, &["a.test"])];
    let open = Listener::new(&pair).with_client_ca(authority.pem());
    let locked = Listener::new(&pair).with_client_ca(authority.pem());
    let open = open.with_name("a.test", rule(TlsVersion::V1_2, ClientAuth::Request)).build().unwrap();
    let locked = locked.with_rule(rule(TlsVersion::V1_2, ClientAuth::Require)).build().unwrap();
    for version in [&TLS12, &TLS13] {
        let client = Client { versions: vec![version], ..Client::new(&authority) }.config();
        connect(&open, &client, "a.test").unwrap();
        assert!(connect(&open, &client, "a.test").unwrap().resumed(), "the client does hold tickets");
        let refused = connect(&locked, &client, "a.test").unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }
}

/// A reload goes on with the sessions of rules that stay, and of no others.
#[test]
fn sessions_survive_a_reload() {
    let (authority, other) = (authority(), self::authority());
    let listener = |client_ca: &Authority| {
        let required = rule(TlsVersion::V1_2, ClientAuth::Require);
        let pair = issue(&authority, &["a.test", "locked.test"]); // a renewed certificate changes no rule
        Listener::new(&[pair]).with_client_ca(client_ca.pem()).with_name("locked.test", required)
    };
    for version in [&TLS12, &TLS13] {
        let identity = Some(issue(&authority, &["client.test"]));
        let client = Client { identity, versions: vec![version], ..Client::new(&authority) }.config();
        let before = listener(&authority).build().unwrap();
        connect(&before, &client, "a.test").unwrap();
        connect(&before, &client, "locked.test").unwrap();
        let same = listener(&authority).build_after(Some(&before)).unwrap();
        assert!(connect(&same, &client, "a.test").unwrap().resumed());
        assert!(connect(&same, &client, "locked.test").unwrap().resumed());
        let changed = listener(&other).build_after(Some(&same)).unwrap();
        assert!(connect(&changed, &client, "a.test").unwrap().resumed());
        let refused = connect(&changed, &client, "locked.test").unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }
}

#[test]
fn a_session_ends_with_the_clients_certificate() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = Duration::from_secs(now().as_secs() + 2);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
    let identity = Pair { cert: params.signed_by(&key, &authority).unwrap().pem(), key: key.serialize_pem() };
    let listener = Listener::new(&[issue(&authority, &["a.test"])]).with_client_ca(authority.pem());
    let tls = listener.with_rule(rule(TlsVersion::V1_2, ClientAuth::Require)).build().unwrap();
    let client = Client { identity: Some(identity), ..Client::new(&authority) }.config();
    let admitted = |session: &Session| tls.readmits(Some("a.test"), &session.server);
    assert!(admitted(&connect(&tls, &client, "a.test").unwrap()));
    let again = connect(&tls, &client, "a.test").unwrap();
    assert!(again.resumed() && admitted(&again));
    std::thread::sleep((end + Duration::from_secs(1)).saturating_sub(now())); // the certificate's time, to the second
    let late = connect(&tls, &client, "a.test").unwrap();
    assert!(late.resumed() && !admitted(&late));
}

#[test]
fn rules_are_known_by_what_they_ask() {
    let authority = authority();
    let tls = mixed(&authority);
    assert_eq!(tls.rule("a.test"), tls.rule("b.test"));
    assert_eq!(tls.rule("a.test"), tls.rule(None));
    assert_ne!(tls.rule("a.test"), tls.rule("LOCKED.test."));
    assert_eq!(tls.rule("locked.test"), mixed(&authority).rule("locked.test"), "across a reload");
    assert_ne!(tls.rule("locked.test"), mixed(&self::authority()).rule("locked.test"), "another authority");
}

#[test]
fn wildcard_rules_take_one_label() {
    let authority = authority();
    let listener = Listener::new(&[issue(&authority, &["a.test"])]).with_client_ca(authority.pem());
    let listener = listener.with_name("*.a.test", rule(TlsVersion::V1_2, ClientAuth::Require));
    let tls = listener.with_name("x.a.test", rule(TlsVersion::V1_2, ClientAuth::Request)).build().unwrap();
    let rules = ["a.test", "x.a.test", "y.a.test"].map(|name| tls.rule(name));
    assert!(rules[0] != rules[1] && rules[1] != rules[2] && rules[0] != rules[2]);
    assert_eq!(tls.rule("x.y.a.test"), rules[0]);
}

#[test]
fn certificates_that_cannot_serve() {
    let authority = authority();
    let (one, other) = (issue(&authority, &["a.test"]), issue(&authority, &["b.test"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let junk = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (cert, key, part, words) in [
        ("", one.key.as_str(), "cert", "has no certificate"),
        (damaged, &one.key, "cert", "PEM text is damaged"),
        (empty, &one.key, "cert", "first certificate is damaged"),
        (&one.key, &one.key, "cert", "has no certificate"),
        (&one.cert, &one.cert, "key", "has no private key"),
        (&one.cert, &other.key, "key", "does not belong"),
        (&one.cert, encrypted, "key", "encrypted"),
        (&one.cert, old, "key", "encrypted"),
        (&one.cert, junk, "key", "not supported"),
    ] {
        let faults = Listener::new(&[Pair { cert: cert.to_owned(), key: key.to_owned() }]).faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        let start = format!("/listeners/0/tls/certificates/0/{part}: ");
        assert!(faults[0].starts_with(&start) && faults[0].contains(words), "{words}: {faults:?}");
    }
}

#[test]
fn rules_that_cannot_serve() {
    let authority = authority();
    let plain = || rule(TlsVersion::V1_2, ClientAuth::Off);
    let listener = || Listener::new(&[issue(&authority, &["a.test"])]);
    let twice = listener().with_name("a.test", plain()).with_name("A.test", plain()).faults();
    assert_eq!(twice, ["/listeners/0/tls/by_name/1/0: there are two rules for A.test"]);
    let address = listener().with_name("10.0.0.1", plain()).faults();
    assert!(address[0].starts_with("/listeners/0/tls/by_name/0/0: \"10.0.0.1\" is no server name"), "{address:?}");
    let required = || rule(TlsVersion::V1_2, ClientAuth::Require);
    let missing = listener().with_rule(required()).faults();
    assert_eq!(missing, ["/listeners/0/tls/rule/client_ca: there is no PEM text for \"clients.pem\""]);
    let empty = listener().with_client_ca("").with_name("a.test", required()).faults();
    assert_eq!(empty, ["/listeners/0/tls/by_name/0/1/client_ca: the PEM text has no certificate"]);
    let unnamed = listener().with_rule(TlsRule { client_ca: None, ..required() }).faults();
    assert!(unnamed[0].contains("no authorities"), "{unnamed:?}");
}

#[test]
fn all_faults_are_told_at_once() {
    let mut listener = Listener::new(&[Pair { cert: String::new(), key: String::new() }]);
    listener = listener.with_rule(rule(TlsVersion::V1_2, ClientAuth::Require));
    listener = listener.with_name("a b", rule(TlsVersion::V1_3, ClientAuth::Request));
    let pointers: Vec<String> = listener.build().unwrap_err().into_iter().map(|fault| fault.pointer).collect();
    let expected =
        ["certificates/0/cert", "certificates/0/key", "rule/client_ca", "by_name/0/0", "by_name/0/1/client_ca"];
    assert_eq!(pointers, expected.map(|pointer| format!("/listeners/0/tls/{pointer}")));
    assert_eq!(Listener::new(&[]).faults(), ["/listeners/0/tls: there is no certificate"]);
}
