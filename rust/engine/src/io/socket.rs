//! Making and preparing sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, UnixStream};

use super::raw::Raw;
use super::room;
use crate::snapshot::{Bind, Liveness, Target};

const BACKLOG: i32 = 4096;
/// What the kernel takes from us for a client beyond what is on its way. Without a bound it takes up to 4 MiB for each
/// client that reads slowly, and gives us the work of reading them.
const UNSENT: u32 = 128 * 1024;

/// Why a socket could not be bound, in words for the user.
#[derive(Debug)]
pub struct BindError(pub String);

/// Binds and listens; the socket does not block. `leaving` are TCP sockets of ours that may be in the way and will not
/// be for long.
pub fn bind(bind: &Bind, liveness: &Liveness, leaving: &[&Socket]) -> Result<Socket, BindError> {
    let bound = match bind {
        Bind::Tcp(address) => bind_tcp(*address, false)
            .or_else(|error| bind_beside(*address, leaving, error))
            .and_then(|socket| prepare_downstream(&socket, liveness).map(|()| socket)),
        Bind::Unix(path) => bind_unix(path),
    };
    bound.map_err(|error| BindError(explain(bind, &error)))
}

fn explain(bind: &Bind, error: &io::Error) -> String {
    let name = match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    };
    let is_file = matches!(bind, Bind::Unix(path) if !is_socket(path));
    match error.kind() {
        io::ErrorKind::AddrInUse if is_file => format!("cannot bind {name}: there is a file that is no socket"),
        io::ErrorKind::AddrInUse => format!("cannot bind {name}: another process listens there"),
        io::ErrorKind::AddrNotAvailable => format!("cannot bind {name}: this machine has no such address"),
        io::ErrorKind::PermissionDenied => {
            format!("cannot bind {name}: not permitted (ports under 1024 need CAP_NET_BIND_SERVICE)")
        }
        _ => format!("cannot bind {name}: {error}"),
    }
}

/// `0.0.0.0:80` cannot be bound while `127.0.0.1:80` listens, unless both allow it. They must not go on allowing it:
/// another process could take a part of the connections.
fn bind_beside(address: SocketAddr, leaving: &[&Socket], error: io::Error) -> io::Result<Socket> {
    let has_port = |socket: &&&Socket| {
        let bound = socket.local_addr().ok().and_then(|address| address.as_socket());
        bound.is_some_and(|bound| bound.port() == address.port())
    };
    let in_the_way: Vec<_> = leaving.iter().filter(has_port).collect();
    if error.kind() != io::ErrorKind::AddrInUse || in_the_way.is_empty() {
        return Err(error);
    }
    let share = |is_shared| in_the_way.iter().try_for_each(|socket| socket.set_reuse_port(is_shared));
    share(true)?;
    let bound = bind_tcp(address, true);
    share(false)?;
    bound.and_then(|bound| bound.set_reuse_port(false).map(|()| bound))
}

fn bind_tcp(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What every connection from a client wants. Linux hands these options down from the listening socket, which saves
/// five system calls for each connection.
fn prepare_downstream(socket: &Socket, liveness: &Liveness) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    set_liveness(socket, liveness)
}

/// Says how the kernel finds out that a peer has gone: keepalive where the peer is silent, the user timeout (RFC 5482)
/// where it acknowledges nothing, which covers sides that we are not reading.
///
/// # Errors
/// What the system says.
pub fn set_liveness<'s>(socket: impl Into<SockRef<'s>>, liveness: &Liveness) -> io::Result<()> {
    let (socket, timeout) = (socket.into(), liveness.user_timeout.map(Duration::from_millis));
    match liveness.keepalive {
        None => socket.set_keepalive(false)?,
        Some(told) => {
            let (idle, every) = (Duration::from_millis(told.idle), Duration::from_millis(told.every));
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(every);
            // Where there is a user timeout, the kernel goes by that and does not count (tcp(7)): a call saved.
            let counted = if timeout.is_none() { keepalive.with_retries(told.probes) } else { keepalive };
            socket.set_tcp_keepalive(&counted)?;
        }
    }
    socket.set_tcp_user_timeout(timeout)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket file that nobody listens on any more would make the bind fail for ever. Anything else stays: it is not
/// ours, and connecting to it would be refused just the same.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_socket(path) {
        return Ok(());
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Connects to an endpoint.
///
/// # Errors
/// What the system says; `Target::Name` is `NotFound`: the control plane has not resolved it.
pub async fn connect(target: &Target, liveness: Option<&Liveness>) -> io::Result<Raw> {
    match target {
        Target::Tcp(address, port) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let stream = room::claim(socket?)?.connect((*address, *port).into()).await?;
            stream.set_nodelay(true)?;
            liveness.map_or(Ok(()), |liveness| set_liveness(&stream, liveness))?;
            Ok(Raw::Tcp(stream))
        }
        Target::Unix(path) => Ok(Raw::Unix(room::claim(UnixStream::connect(path).await?)?)),
        Target::Name(..) => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::snapshot::Keepalive;

    const USUAL: Liveness =
        Liveness { keepalive: Some(Keepalive { idle: 60_000, every: 10_000, probes: 9 }), user_timeout: Some(60_000) };
    const COUNTED: Liveness =
        Liveness { keepalive: Some(Keepalive { idle: 7_000, every: 3_000, probes: 4 }), user_timeout: None };
    const NEVER: Liveness = Liveness { keepalive: None, user_timeout: None };

    /// What the kernel says of a socket, in the words of a configuration.
    fn told(socket: impl AsFd) -> Liveness {
        let socket = SockRef::from(&socket);
        let milliseconds = |duration: Duration| duration.as_millis() as u64;
        let keepalive = socket.keepalive().unwrap().then(|| Keepalive {
            idle: milliseconds(socket.tcp_keepalive_time().unwrap()),
            every: milliseconds(socket.tcp_keepalive_interval().unwrap()),
            probes: socket.tcp_keepalive_retries().unwrap(),
        });
        Liveness { keepalive, user_timeout: socket.tcp_user_timeout().unwrap().map(milliseconds) }
    }

    /// A listening socket with these settings, and the options of a connection that it has accepted.
    fn accepted(listening: &Socket) -> Liveness {
        let _client = std::net::TcpStream::connect(listening.local_addr().unwrap().as_socket().unwrap()).unwrap();
        listening.set_nonblocking(false).unwrap();
        told(listening.accept().unwrap().0)
    }

    fn listening(liveness: &Liveness) -> Socket {
        bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), liveness, &[]).unwrap()
    }

    #[test]
    fn clients_are_asked_as_the_listener_says() {
        assert_eq!(accepted(&listening(&COUNTED)), COUNTED);
        assert_eq!(accepted(&listening(&NEVER)), NEVER);
        let usual = accepted(&listening(&USUAL));
        assert_eq!((usual.user_timeout, usual.keepalive.unwrap().idle), (Some(60_000), 60_000));
    }

    #[test]
    fn a_listener_that_changes_its_mind_changes_what_comes() {
        let socket = listening(&USUAL);
        for liveness in [COUNTED, NEVER, COUNTED] {
            set_liveness(&socket, &liveness).unwrap();
            assert_eq!(accepted(&socket), liveness);
        }
    }

    #[tokio::test]
    async fn endpoints_are_asked_as_the_upstream_says() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        for liveness in [COUNTED, NEVER] {
            let raw = connect(&Target::Tcp(address.ip(), address.port()), Some(&liveness)).await.unwrap();
            assert_eq!(told(raw), liveness);
        }
    }
}
