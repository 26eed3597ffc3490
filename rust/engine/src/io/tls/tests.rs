//! Both ends of a connection over real sockets, and what no peer that means well would send.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::io::run;

const BOTH: [&[&SupportedProtocolVersion]; 2] = [&[&version::TLS12], &[&version::TLS13]];

fn configs(versions: &[&'static SupportedProtocolVersion]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

async fn accept(raw: UnixStream, config: Arc<ServerConfig>) -> Result<Tls, HandshakeError> {
    let hello = read_hello(Raw::Unix(raw), Vec::new()).await?;
    assert_eq!(hello.server_name.as_deref(), Some("a.test"));
    hello.answer(config)?.finish().await
}

/// Both ends, after their handshake.
pub async fn pair(versions: &[&'static SupportedProtocolVersion]) -> (Tls, Tls) {
    let (near, far) = UnixStream::pair().unwrap();
    let (server, client) = configs(versions);
    let name = ServerName::try_from("a.test").unwrap();
    let (server, client) = tokio::join!(accept(near, server), connect(Raw::Unix(far), client, name));
    (server.unwrap(), client.unwrap())
}

async fn write_all(tls: &mut Tls, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = std::future::poll_fn(|cx| tls.poll_write(cx, rest)).await.unwrap();
        rest = &rest[written..];
    }
    std::future::poll_fn(|cx| tls.poll_flush(cx)).await.unwrap();
}

async fn read_exactly(tls: &mut Tls, count: usize, piece: usize) -> Vec<u8> {
    let mut content = Vec::new();
    while content.len() < count {
        let mut buffer = vec![0; piece.min(count - content.len())];
        let read = std::future::poll_fn(|cx| tls.poll_read(cx, &mut buffer, None)).await.unwrap();
        assert!(read > 0, "the end came after {} of {count} bytes", content.len());
        content.extend_from_slice(&buffer[..read]);
    }
    content
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways() {
    for versions in BOTH {
        run(async {
            let (mut server, mut client) = pair(versions).await;
            for size in [1, 125, 16_384, 16_385, 65_536, 65_537, 1_000_000] {
                for piece in [65_536, 1_000, 7].into_iter().take(if size > 70_000 { 1 } else { 3 }) {
                    let sent = content(size);
                    tokio::join!(write_all(&mut client, &sent), async {
                        assert!(read_exactly(&mut server, size, piece).await == sent);
                    });
                    tokio::join!(write_all(&mut server, &sent), async {
                        assert!(read_exactly(&mut client, size, piece).await == sent);
                    });
                }
            }
        });
    }
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    for versions in BOTH {
        run(async {
            let (mut server, mut client) = pair(versions).await;
            write_all(&mut client, &content(40_000)).await;
            read_exactly(&mut server, 40_000, 50_000).await;
            write_all(&mut server, &content(40_000)).await;
            read_exactly(&mut client, 40_000, 50_000).await;
            for tls in [&server, &client] {
                assert_eq!((tls.held.capacity(), tls.plain.capacity()), (0, 0));
                assert!(tls.unsent.is_empty());
            }
        });
    }
}

#[test]
fn the_end_is_told() {
    for versions in BOTH {
        run(async {
            let (mut server, mut client) = pair(versions).await;
            write_all(&mut client, b"last").await;
            std::future::poll_fn(|cx| client.poll_shutdown(cx)).await.unwrap();
            assert_eq!(read_exactly(&mut server, 4, 9).await, b"last");
            let mut buffer = [0; 9];
            for _ in 0..2 {
                assert_eq!(std::future::poll_fn(|cx| server.poll_read(cx, &mut buffer, None)).await.unwrap(), 0);
            }
            write_all(&mut server, b"still").await;
            assert_eq!(read_exactly(&mut client, 5, 9).await, b"still");
            let late = std::future::poll_fn(|cx| client.poll_write(cx, b"late")).await.unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}

#[test]
fn a_cut_is_no_end() {
    run(async {
        let (mut server, mut client) = pair(BOTH[1]).await;
        write_all(&mut server, b"x").await;
        read_exactly(&mut client, 1, 1).await; // or what was not read would make a reset of it
        drop(client);
        let mut buffer = [0; 9];
        let error = std::future::poll_fn(|cx| server.poll_read(cx, &mut buffer, None)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

/// What comes is not a record, or not one of this session: an alert, an error, and no panic whatever is done then.
#[test]
fn a_broken_stream_ends() {
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5], &[22, 3, 3, 0, 1, 0], &[20; 70]] {
        for versions in BOTH {
            run(async {
                let (mut server, mut client) = pair(versions).await;
                let Raw::Unix(raw) = &mut client.raw else { unreachable!() };
                raw.write_all(junk).await.unwrap();
                let mut buffer = [0; 9];
                for _ in 0..2 {
                    std::future::poll_fn(|cx| server.poll_read(cx, &mut buffer, None)).await.unwrap_err();
                }
                std::future::poll_fn(|cx| server.poll_write(cx, b"more")).await.unwrap_err();
                std::future::poll_fn(|cx| server.poll_shutdown(cx)).await.unwrap();
                let error = std::future::poll_fn(|cx| client.poll_read(cx, &mut buffer, None)).await.unwrap_err();
                assert!(error.to_string().contains("alert"), "{error}");
            });
        }
    }
}

#[test]
fn what_came_before_an_error_is_read() {
    for versions in BOTH {
        run(async {
            let (mut server, mut client) = pair(versions).await;
            let mut records = Records::default();
            client.session.send(&mut [], b"Close", &mut records).unwrap();
            let mut bytes = records.rest().to_vec();
            bytes.extend_from_slice(&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]);
            let Raw::Unix(raw) = &mut client.raw else { unreachable!() };
            raw.write_all(&bytes).await.unwrap();
            assert_eq!(read_exactly(&mut server, 5, 9).await, b"Close");
            let mut buffer = [0; 9];
            std::future::poll_fn(|cx| server.poll_read(cx, &mut buffer, None)).await.unwrap_err();
        });
    }
}

/// The server finds out in the middle of its own messages, and says so; what stands behind the ClientHello is not read.
#[test]
fn an_alert_comes_after_what_was_begun() {
    for versions in BOTH {
        for behind in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[22, 3, 3, 0, 1, 0]] {
            let (server, client) = configs(versions);
            let (mut server, mut client) = (ServerConfig::clone(&server), ClientConfig::clone(&client));
            server.alpn_protocols = vec![b"http/1.1".to_vec()];
            client.alpn_protocols = vec![b"h2".to_vec()];
            let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("a.test").unwrap()).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            hello.extend_from_slice(behind);
            run(async {
                let (near, mut far) = UnixStream::pair().unwrap();
                far.write_all(&hello).await.unwrap();
                let refused = accept(near, Arc::new(server)).await.unwrap_err();
                assert!(matches!(refused, HandshakeError::Tls(rustls::Error::NoApplicationProtocol)), "{refused:?}");
                let mut answer = Vec::new();
                far.read_to_end(&mut answer).await.unwrap();
                client.read_tls(&mut &answer[..]).unwrap();
                let told = client.process_new_packets().unwrap_err();
                let alert = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
                assert_eq!(told, alert);
            });
        }
    }
}

/// A backlog is kept, and the writer told, once the socket is full; nothing is lost.
#[test]
fn a_slow_reader_holds_the_writer_up() {
    run(async {
        let (mut server, mut client) = pair(BOTH[1]).await;
        let (piece, mut sent) = (content(60_000), 0);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(written) = server.poll_write(&mut cx, &piece) {
            assert_eq!(written.unwrap(), piece.len());
            sent += piece.len();
            assert!(sent < 100_000_000, "the socket is never full");
        }
        assert!(server.poll_flush(&mut cx).is_pending());
        let (received, _) =
            tokio::join!(read_exactly(&mut client, sent, 65_536), std::future::poll_fn(|cx| server.poll_flush(cx)));
        assert!(received.chunks(piece.len()).all(|chunk| chunk == piece));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes in place of a ClientHello, in whatever pieces: an error or a wait, never a panic.
    #[test]
    fn any_bytes_for_a_hello(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 20u8..25, cut in 0usize..200) {
        let (server, _) = configs(BOTH[1]);
        run(async {
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut record = vec![kind, 3, 1, 0, bytes.len() as u8];
            record.extend_from_slice(&bytes);
            let early = record[..cut.min(record.len())].to_vec();
            far.write_all(&record[early.len()..]).await.unwrap();
            far.shutdown().await.unwrap();
            let hello = read_hello(Raw::Unix(near), early).await;
            if let Ok(hello) = hello {
                let _ = hello.answer(server);
            }
            let mut answer = Vec::new();
            let _ = far.read_to_end(&mut answer).await;
        });
    }
}
