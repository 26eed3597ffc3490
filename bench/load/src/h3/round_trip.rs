//! Load over HTTP/3 against a server that is as small as the load is.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::thread;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, RecvStream, SendStream, ServerConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;

use super::Fault;
use super::message::{CONTROL, DATA, ENABLE_CONNECT_PROTOCOL, HEADERS, SETTINGS, framed, read_header};
use crate::drive::Plan;
use crate::responder::{Responder, body};
use crate::wire;

/// A plan for a server whose thread ends with the test process.
fn plan(takes_websockets: bool, name: &str) -> Plan {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls = tls.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let authority = std::env::temp_dir().join(format!("tidegate-load-{}-{name}.pem", std::process::id()));
    std::fs::write(&authority, cert.pem()).unwrap();
    let client = wire::client_config(&authority).unwrap();
    std::fs::remove_file(&authority).unwrap();
    let mut plan = Plan::brief(serve(config, takes_websockets), 2);
    plan.tls = Some(client);
    plan
}

fn serve(config: ServerConfig, takes_websockets: bool) -> SocketAddrV4 {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            tell.send(endpoint.local_addr().unwrap()).unwrap();
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(attend(incoming, takes_websockets));
            }
        });
    });
    let SocketAddr::V4(address) = told.recv().unwrap() else { panic!("bound to IPv4") };
    address
}

async fn attend(incoming: Incoming, takes_websockets: bool) -> Result<(), Fault> {
    let connection = incoming.await?;
    let mut control = connection.open_uni().await?;
    let settings = [ENABLE_CONNECT_PROTOCOL as u8, u8::from(takes_websockets)];
    control.write_all(&[&[CONTROL][..], &framed(SETTINGS, &settings)].concat()).await?;
    loop {
        let (send, receive) = connection.accept_bi().await?;
        tokio::spawn(answer(send, receive));
    }
}

/// Answers as the upstream of all benchmarks does.
async fn answer(mut send: SendStream, mut receive: RecvStream) -> Result<(), Fault> {
    let (kind, head) = frame(&mut receive).await?;
    assert_eq!(kind, HEADERS);
    send.write_all(&framed(HEADERS, &[0, 0, 0xd9])).await?;
    let text = String::from_utf8_lossy(&head).into_owned();
    if !text.contains("websocket") {
        let size = text
            .split("/bytes/")
            .nth(1)
            .map_or(0, |rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
        send.write_all(&framed(DATA, &body(size))).await?;
        return Ok(send.finish()?);
    }
    let mut responder = Responder::upgraded();
    loop {
        let (_, mut message) = frame(&mut receive).await?;
        let mut echo = Vec::new();
        responder.receive(&mut message, &mut echo).map_err(|error| error.to_string())?;
        send.write_all(&framed(DATA, &echo)).await?;
    }
}

async fn frame(receive: &mut RecvStream) -> Result<(u64, Vec<u8>), Fault> {
    let mut header = Vec::new();
    loop {
        let mut byte = [0];
        receive.read_exact(&mut byte).await?;
        header.extend_from_slice(&byte);
        if let Some((kind, _, length)) = read_header(&header) {
            let mut payload = vec![0; length];
            receive.read_exact(&mut payload).await?;
            return Ok((kind, payload));
        }
    }
}

#[test]
fn echoes_come_back() {
    for size in [1, 128, 16 << 10] {
        assert!(super::run_echo(&plan(true, "echo"), 3, size).unwrap().operations > 0);
    }
}

#[test]
fn requests_are_answered() {
    for size in [0, 64 << 10] {
        assert!(super::run_requests(&plan(false, "request"), 3, size).unwrap().operations > 0);
    }
}

#[test]
fn a_server_without_websockets_is_an_error() {
    let error = super::run_echo(&plan(false, "none"), 1, 1).err().unwrap();
    assert!(error.to_string().contains("takes no WebSockets"), "{error}");
}
