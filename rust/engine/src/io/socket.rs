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
use crate::snapshot::{Bind, Target};

/// Longest wait for an acknowledgement before the kernel gives a peer up; covers sides that we are not reading.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
const BACKLOG: i32 = 4096;

/// Why a socket could not be bound, in words for the user.
#[derive(Debug)]
pub struct BindError(pub String);

/// Binds and listens; the socket does not block. `leaving` are TCP sockets of ours that may be in the way and will not
/// be for long.
pub fn bind(bind: &Bind, leaving: &[&Socket]) -> Result<Socket, BindError> {
    let bound = match bind {
        Bind::Tcp(address) => bind_tcp(*address, false).or_else(|error| bind_beside(*address, leaving, error)),
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
    prepare_downstream(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What every connection from a client wants. Linux hands these options down from the listening socket, which saves
/// four system calls for each connection.
fn prepare_downstream(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    prepare_liveness(SockRef::from(socket))
}

fn prepare_liveness(socket: SockRef<'_>) -> io::Result<()> {
    // How many probes may fail is not said: the user timeout decides that (tcp(7)).
    let keepalive = TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket file that nobody listens on any more would make the bind fail for ever. Anything else stays: it is not ours,
/// and connecting to it would be refused just the same.
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
pub async fn connect(target: &Target) -> io::Result<Raw> {
    match target {
        Target::Tcp(address, port) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let stream = room::claim(socket?)?.connect((*address, *port).into()).await?;
            stream.set_nodelay(true)?;
            prepare_liveness(SockRef::from(&stream))?;
            Ok(Raw::Tcp(stream))
        }
        Target::Unix(path) => Ok(Raw::Unix(room::claim(UnixStream::connect(path).await?)?)),
        Target::Name(..) => Err(io::ErrorKind::NotFound.into()),
    }
}
