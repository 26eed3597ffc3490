//! Load over HTTP/2 against a server that the `h2` crate makes.

use std::net::{SocketAddr, SocketAddrV4};
use std::thread;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::drive::Plan;
use crate::responder::{Responder, body};
use crate::socket::Dialler;
use crate::upgrade::Place;
use crate::{echo, idle, request};

/// The server's address. Its thread ends with the test process.
fn target() -> SocketAddrV4 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("bound to IPv4") };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

async fn serve(stream: TcpStream) {
    let mut builder = server::Builder::new();
    builder.enable_connect_protocol().initial_window_size(10_000).initial_connection_window_size(70_000);
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        match *request.method() {
            Method::CONNECT => tokio::spawn(echo(request, respond)),
            _ => tokio::spawn(answer(request, respond)),
        };
    }
}

async fn echo(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut receive = request.into_body();
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let mut responder = Responder::upgraded();
    while let Some(Ok(bytes)) = receive.data().await {
        let mut out = Vec::new();
        responder.receive(&mut bytes.to_vec(), &mut out).unwrap();
        // Both fail once the load has gone.
        let _ = receive.flow_control().release_capacity(bytes.len());
        let _ = send.send_data(out.into(), false);
    }
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let size = request.uri().path().strip_prefix("/bytes/").map_or(0, |size| size.parse().unwrap());
    if let Ok(mut send) = respond.send_response(Response::new(()), false) {
        let _ = send.send_data(body(size).into(), true);
    }
}

#[test]
fn echoes_come_back() {
    let target = target();
    for size in [1, 128, 16 << 10, 90_000] {
        assert!(echo::run_streams(&Plan::brief(target, 2), 3, size).unwrap().operations > 0);
    }
}

#[test]
fn idle_ones_open() {
    let place = Place { host: "a".into(), path: "/any".into() };
    let held = idle::open_streams(&mut Dialler::new(target(), None), &place, 120, 50).unwrap();
    assert_eq!(held.len(), 3);
}

#[test]
fn requests_are_answered() {
    let target = target();
    for size in [0, 64 << 10] {
        assert!(request::run_streams(&Plan::brief(target, 2), 5, size).unwrap().operations > 10);
    }
}

#[test]
fn a_server_that_speaks_something_else_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("bound to IPv4") };
    thread::spawn(move || {
        use std::io::Write;
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    assert!(request::run_streams(&Plan::brief(address, 1), 1, 0).is_err());
}
