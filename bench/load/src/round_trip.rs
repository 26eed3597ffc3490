//! Every kind of load against the upstream itself, directly and through the relay, over real sockets.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use crate::drive::Plan;
use crate::responder::Responder;
use crate::socket::Dialler;
use crate::upgrade::Place;
use crate::{echo, handshake, idle, probe, relay, request, serve, socket, tcp};

fn listener() -> (OwnedFd, SocketAddrV4) {
    let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    match socket::local_address(&listener).unwrap() {
        SocketAddr::V4(address) => (listener, address),
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

/// The upstream and a relay before it. Their threads end with the test process.
fn targets() -> [SocketAddrV4; 2] {
    targets_of(Responder::new)
}

fn targets_of(respond: fn() -> Responder) -> [SocketAddrV4; 2] {
    let ((upstream, upstream_address), (front, front_address)) = (listener(), listener());
    thread::spawn(move || serve::run(upstream, respond).map_err(|error| error.to_string()));
    thread::spawn(move || relay::run(front, upstream_address).map_err(|error| error.to_string()));
    [upstream_address, front_address]
}

#[test]
fn echoes_come_back() {
    for target in targets() {
        for size in [1, 128, 16 << 10, 1 << 20] {
            assert!(echo::run(&Plan::brief(target, 4), size).unwrap().operations > 0);
        }
    }
}

#[test]
fn short_lives_end_cleanly() {
    for target in targets() {
        assert!(handshake::run(&Plan::brief(target, 4)).unwrap().operations > 10);
    }
}

#[test]
fn raw_bytes_come_back() {
    for target in targets_of(Responder::raw) {
        for size in [1, 128, 1 << 20] {
            assert!(tcp::run(&Plan::brief(target, 4), size).unwrap().operations > 0);
        }
        assert!(tcp::run_lives(&Plan::brief(target, 4)).unwrap().operations > 10);
    }
}

#[test]
fn requests_are_answered() {
    for target in targets() {
        for size in [0, 64 << 10] {
            assert!(request::run(&Plan::brief(target, 4), size).unwrap().operations > 10);
        }
    }
}

#[test]
fn idle_connections_open() {
    let place = Place { host: "a".into(), path: "/any".into() };
    for target in targets() {
        assert_eq!(idle::open(&mut Dialler::new(target, None), &place, 300).unwrap().len(), 300);
    }
}

#[test]
fn probes_keep_their_pace() {
    let place = Place { host: "a".into(), path: "/any".into() };
    for target in targets() {
        let mut dialler = Dialler::new(target, None);
        let mut probes: Vec<_> = (0..3).map(|_| probe::open(&mut dialler, &place, 128).unwrap()).collect();
        let report = probe::run(&mut probes, Duration::from_millis(2), Duration::from_millis(100)).unwrap();
        assert_eq!(report.operations, 50);
        assert!(report.seconds >= 0.098, "the last instant is 2 ms before the end");
    }
}

#[test]
fn a_target_that_is_not_there_is_an_error() {
    let (closed, address) = listener();
    drop(closed);
    assert!(echo::run(&Plan::brief(address, 1), 1).is_err());
}
