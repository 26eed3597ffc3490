//! One end of ours against the `h2` crate's other one, over a socket pair.

use std::future::poll_fn;

use h2::client::SendRequest;
use http::{Request, Response};
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;

use super::*;
use crate::io::{Raw, Stream, run};

const WINDOW: u32 = 65_535;

/// A stream between two ends: ours, and the `h2` crate's.
struct Ends {
    ours: H2,
    send: SendStream<Bytes>,
    receive: RecvStream,
    connection: tokio::task::JoinHandle<()>,
    _requests: SendRequest<Bytes>,
}

async fn ends() -> Ends {
    ends_with(h2::client::Builder::new()).await
}

/// Ours is the client's. Each connection is driven by a task of its own.
async fn ends_with(client: h2::client::Builder) -> Ends {
    let (near, far) = UnixStream::pair().unwrap();
    let transport = |end| Transport::new(Stream::Raw(Raw::Unix(end)), Vec::new());
    let server = h2::server::Builder::new().handshake::<_, Bytes>(transport(far));
    let (server, client) = tokio::join!(server, client.handshake::<_, Bytes>(transport(near)));
    let (mut server, (requests, connection)) = (server.unwrap(), client.unwrap());
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut requests = requests.ready().await.unwrap();
    let (response, send) = requests.send_request(Request::post("http://a.test/").body(()).unwrap(), false).unwrap();
    let (request, mut respond) = server.accept().await.unwrap().unwrap();
    let far_send = respond.send_response(Response::new(()), false).unwrap();
    let connection = tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
    let ours = H2::new(send, response.await.unwrap().into_body());
    Ends { ours, send: far_send, receive: request.into_body(), connection, _requests: requests }
}

async fn read(stream: &mut H2, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, buffer)).await
}

/// Reads until there is nothing for now.
fn read_now(stream: &mut H2, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    stream.poll_read(&mut Context::from_waker(std::task::Waker::noop()), buffer)
}

async fn write_all(stream: &mut H2, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, rest)).await.unwrap();
        rest = &rest[written..];
    }
}

/// Lets the connections' tasks run until they have nothing to do.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn bytes_go_both_ways_through_small_windows() {
    run(async {
        let Ends { mut ours, mut send, mut receive, .. } = ends().await;
        let text: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
        let expected = text.clone();
        let echo = tokio::task::spawn_local(async move {
            while let Some(bytes) = receive.data().await {
                let bytes = bytes.unwrap();
                let _ = receive.flow_control().release_capacity(bytes.len());
                send.send_data(bytes, false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        });
        let mut heard = Vec::new();
        let mut buffer = vec![0; 10_000];
        let mut rest = &text[..];
        poll_fn(|cx| {
            loop {
                let written =
                    if rest.is_empty() { ours.poll_shutdown().map_ok(|()| 0) } else { ours.poll_write(cx, rest) };
                if let Poll::Ready(written) = written {
                    rest = &rest[written.unwrap()..];
                }
                match ready!(ours.poll_read(cx, &mut buffer)).unwrap() {
                    0 => return Poll::Ready(()),
                    read => heard.extend_from_slice(&buffer[..read]),
                }
            }
        })
        .await;
        echo.await.unwrap();
        assert!(heard == expected);
    });
}

#[test]
fn no_more_is_written_than_the_peer_has_room_for() {
    run(async {
        let Ends { mut ours, mut receive, .. } = ends().await;
        let mut written = 0;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            settle().await;
            match ours.poll_write(&mut cx, &[7; 5000]) {
                Poll::Ready(count) => written += count.unwrap(),
                Poll::Pending => break,
            }
        }
        assert_eq!(written, WINDOW as usize);
        let first = receive.data().await.unwrap().unwrap();
        let _ = receive.flow_control().release_capacity(first.len());
        // What the window lets through again depends on when the peer tells of it: some, but not nothing.
        let mut taken = first.len();
        while taken < WINDOW as usize {
            let more = receive.data().await.unwrap().unwrap().len();
            let _ = receive.flow_control().release_capacity(more);
            taken += more;
        }
        assert!(poll_fn(|cx| ours.poll_write(cx, &[7; 5000])).await.unwrap() > 0);
    });
}

#[test]
fn the_peer_may_send_again_what_was_taken_and_no_more() {
    run(async {
        let Ends { mut ours, mut send, .. } = ends().await;
        send.reserve_capacity(200_000);
        settle().await;
        assert_eq!(send.capacity(), WINDOW as usize);
        send.send_data(Bytes::from(vec![1; WINDOW as usize]), false).unwrap();
        settle().await;
        assert_eq!(send.capacity(), 0);
        poll_fn(|cx| {
            ours.take_in(cx);
            Poll::Ready(())
        })
        .await;
        settle().await;
        assert_eq!(send.capacity(), 0, "taken in is not taken");
        let mut buffer = vec![0; WINDOW as usize];
        assert_eq!(read(&mut ours, &mut buffer[..40_000]).await.unwrap(), 40_000);
        settle().await;
        assert_eq!(send.capacity(), 40_000);
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), WINDOW as usize - 40_000);
        assert!(read_now(&mut ours, &mut buffer).is_pending());
    });
}

/// `h2` would end the connection with ENHANCE_YOUR_CALM.
#[test]
fn small_frames_that_wait_do_not_end_the_connection() {
    run(async {
        let mut builder = h2::client::Builder::new();
        builder.data_frame_budget(20_000);
        let Ends { mut ours, mut send, .. } = ends_with(builder).await;
        for _ in 0..1000 {
            send.send_data(Bytes::from_static(b"x"), false).unwrap();
            settle().await;
            poll_fn(|cx| {
                ours.take_in(cx);
                Poll::Ready(())
            })
            .await;
        }
        send.send_data(Bytes::from_static(b"y"), true).unwrap();
        let (mut buffer, mut heard) = (vec![0; 300], Vec::new());
        while let count @ 1.. = read(&mut ours, &mut buffer).await.unwrap() {
            heard.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(heard, [&[b'x'; 1000][..], b"y"].concat());
    });
}

#[test]
fn end_stream_is_the_end_of_one_direction() {
    run(async {
        let Ends { mut ours, mut send, mut receive, .. } = ends().await;
        write_all(&mut ours, b"last").await;
        poll_fn(|_| ours.poll_shutdown()).await.unwrap();
        assert_eq!(receive.data().await.unwrap().unwrap(), "last");
        assert_eq!(receive.data().await.unwrap().unwrap(), "", "the frame that has END_STREAM");
        assert!(receive.data().await.is_none());
        assert!(poll_fn(|cx| ours.poll_write(cx, b"more")).await.is_err());
        send.send_data(Bytes::from_static(b"after"), true).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 5);
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 0);
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 0);
        drop(ours);
        settle().await;
        assert!(receive.data().await.is_none(), "no reset follows");
    });
}

#[test]
fn dropped_before_its_end_it_is_reset() {
    run(async {
        let Ends { mut ours, mut send, mut receive, .. } = ends().await;
        write_all(&mut ours, b"half").await;
        settle().await;
        drop(ours);
        assert_eq!(poll_fn(|cx| send.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        assert_eq!(receive.data().await.unwrap().unwrap(), "half");
        assert_eq!(receive.data().await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    });
}

#[test]
fn a_reset_is_an_error_behind_what_came_before_it() {
    run(async {
        let Ends { mut ours, mut send, .. } = ends().await;
        send.send_data(Bytes::from_static(b"before"), false).unwrap();
        settle().await;
        send.send_reset(Reason::CANCEL);
        settle().await;
        let mut buffer = [0; 100];
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 6);
        let error = read(&mut ours, &mut buffer).await.unwrap_err();
        assert_eq!(reason(&error), Some(Reason::CANCEL));
        assert!(poll_fn(|cx| ours.poll_write(cx, b"more")).await.is_err());
        assert!(poll_fn(|cx| ours.poll_reset(cx)).now_or_never());
    });
}

#[test]
fn a_writer_that_waits_hears_of_a_reset() {
    run(async {
        let Ends { mut ours, mut send, .. } = ends().await;
        write_all(&mut ours, &[0; WINDOW as usize]).await;
        let waits = tokio::task::spawn_local(async move { poll_fn(|cx| ours.poll_write(cx, b"more")).await });
        settle().await;
        assert!(!waits.is_finished());
        send.send_reset(Reason::INTERNAL_ERROR);
        assert!(waits.await.unwrap().is_err());
    });
}

#[test]
fn a_lost_connection_is_no_end() {
    run(async {
        let Ends { mut ours, mut send, receive, connection, .. } = ends().await;
        send.send_data(Bytes::from_static(b"part"), false).unwrap();
        settle().await;
        connection.abort();
        drop((send, receive));
        let mut buffer = [0; 100];
        assert_eq!(read(&mut ours, &mut buffer).await.unwrap(), 4);
        assert!(read(&mut ours, &mut buffer).await.is_err());
    });
}

/// Whether a future is ready at once.
trait NowOrNever: Future + Sized {
    fn now_or_never(self) -> bool {
        let mut future = std::pin::pin!(self);
        future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }
}

impl<F: Future> NowOrNever for F {}

/// Both ends of a TLS session over a socket pair.
async fn tls_pair() -> (Stream, Stream) {
    let (server, client) = crate::io::tls::tests::pair(&[&rustls::version::TLS13]).await;
    (Stream::Tls(Box::new(server)), Stream::Tls(Box::new(client)))
}

fn write_now(transport: &mut Transport, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let written = std::pin::Pin::new(&mut *transport).poll_write(&mut cx, bytes);
    assert!(std::pin::Pin::new(transport).poll_flush(&mut cx).is_ready());
    written
}

#[test]
fn deferred_writes_wait_for_their_driver() {
    run(async {
        let (near, mut far) = tls_pair().await;
        let mut transport = Transport::new(near, Vec::new());
        assert!(matches!(write_now(&mut transport, b"at once, "), Poll::Ready(Ok(9))));
        let mut heard = Vec::new();
        far.read_more(&mut heard).await.unwrap();
        transport.defer();
        assert!(matches!(write_now(&mut transport, b"later, "), Poll::Ready(Ok(7))));
        assert!(matches!(write_now(&mut transport, b"together"), Poll::Ready(Ok(8))));
        settle().await;
        assert!(far.poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut [0; 64]).is_pending());
        poll_fn(|cx| {
            transport.poll_send(cx);
            Poll::Ready(())
        })
        .await;
        far.read_more(&mut heard).await.unwrap();
        assert_eq!(heard, b"at once, later, together");
    });
}

#[test]
fn no_more_than_a_batch_waits() {
    run(async {
        let (near, mut far) = tls_pair().await;
        let transport = Transport::new(near, Vec::new());
        transport.defer();
        let mut written = 0;
        while let Poll::Ready(count) = write_now(&mut transport.clone(), &[7; 20_000]) {
            written += count.unwrap();
            assert!(written < 8 << 20, "the socket takes it all");
        }
        // What the socket took, what the session holds, and one batch; all of it arrives, in the end.
        let (sender, mut heard) = (transport.clone(), Vec::new());
        let reading = async { while heard.len() < written && far.read_more(&mut heard).await.unwrap() > 0 {} };
        let sending = poll_fn(|cx| {
            sender.poll_send(cx);
            Poll::<()>::Pending
        });
        tokio::select! {
            () = reading => {}
            () = sending => {}
        }
        assert!(heard.len() == written && heard.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn last_words_go_out_when_the_stream_is_taken() {
    run(async {
        let (near, mut far) = tls_pair().await;
        let mut transport = Transport::new(near, Vec::new());
        transport.defer();
        assert!(write_now(&mut transport, b"goodbye").is_ready());
        let stream = transport.take_stream();
        let mut heard = Vec::new();
        far.read_more(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
        drop(stream);
        assert!(matches!(write_now_raw(&mut transport), Poll::Ready(Err(_))), "nothing is left of it");
    });
}

fn write_now_raw(transport: &mut Transport) -> Poll<io::Result<()>> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let _ = std::pin::Pin::new(&mut *transport).poll_write(&mut cx, b"x");
    transport.poll_send(&mut cx);
    std::pin::Pin::new(transport).poll_flush(&mut cx)
}
