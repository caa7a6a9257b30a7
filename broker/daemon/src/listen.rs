//! The sockets on which a program listens, and the addresses of its peers.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// Pause after an error of `accept` that would occur again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds a TCP socket to this address. Does not start to listen.
///
/// # Errors
/// The error of the system.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds a TCP socket as `nats-server` does. 0.0.0.0 is bound in both families, because many programs try `::1` first for
/// `localhost`. On a host without IPv6 it is bound in IPv4 only. Does not start to listen.
///
/// # Errors
/// The error of the system.
pub fn bind_dual_stack(address: SocketAddr) -> io::Result<Socket> {
    if address.ip() != IpAddr::from([0, 0, 0, 0]) {
        return bind(address);
    }
    match dual_stack(address.port()) {
        // Any error but a port in use may mean that IPv6 is missing.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(address),
        bound => bound,
    }
}

fn dual_stack(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// Makes a bound socket listen. Must be called inside a tokio runtime.
///
/// # Errors
/// The error of the system.
pub fn start(socket: Socket, backlog: u32) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Accepts the next connection and converts its stream. After an error, calls `failed`, logs the error with the `kind` of
/// connection, and tries again. Dropping the future loses no connection.
pub async fn accept<S>(
    listener: &TcpListener,
    kind: &str,
    convert: impl Fn(TcpStream) -> io::Result<S>,
    failed: impl Fn(),
) -> (S, SocketAddr) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, peer)| Ok((convert(stream)?, plain(peer)))) {
            Ok(accepted) => return accepted,
            Err(error) => recover(&error, kind, &failed).await,
        }
    }
}

/// Handles an error of `accept`: calls `failed`, logs the error with the `kind` of connection, and pauses.
pub(crate) async fn recover(error: &io::Error, kind: &str, failed: &impl Fn()) {
    // The peer closed the connection before it was accepted.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    failed();
    warn!("cannot accept a {kind}: {error}; when out of file descriptors, raise the limit (ulimit -n)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Returns the bound address of `socket` in the form of `wanted`: with the real port, but 0.0.0.0 stays 0.0.0.0.
///
/// # Errors
/// The error of the system.
pub fn bound_address(socket: &Socket, wanted: SocketAddr) -> io::Result<SocketAddr> {
    let bound = socket.local_addr()?.as_socket();
    let bound = bound.ok_or_else(|| io::Error::other("no IP address"))?;
    Ok(SocketAddr::new(wanted.ip(), bound.port()))
}

/// Returns `address` without the IPv6 form that a dual-stack socket gives an IPv4 peer (`::ffff:10.0.0.1`).
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // The scope of a link-local address is kept.
        IpAddr::V6(_) => address,
    }
}

/// Returns whether a socket that listens on `own` also listens on `other` because `own` is an unspecified address: 0.0.0.0
/// covers all IPv4 addresses, and :: all addresses of both families.
#[must_use]
pub const fn covers(own: IpAddr, other: IpAddr) -> bool {
    own.is_unspecified() && (own.is_ipv6() || other.is_ipv4())
}

/// Returns whether the error means that the host lacks this address or its address family.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    let no_family = Some(Errno::AFNOSUPPORT.raw_os_error());
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == no_family
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{IpAddr, Ipv6Addr, SocketAddr, bind_dual_stack, bound_address, io, plain};

    fn listener(address: &str) -> (TcpListener, SocketAddr) {
        let wanted = address.parse().unwrap();
        let socket = bind_dual_stack(wanted).unwrap();
        socket.listen(8).unwrap();
        let bound = bound_address(&socket, wanted).unwrap();
        (socket.into(), bound)
    }

    #[test]
    fn the_unspecified_address_is_bound_in_both_families() {
        let (listener, address) = listener("0.0.0.0:0");
        assert_eq!(address.ip(), IpAddr::from([0, 0, 0, 0]));
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let _client = TcpStream::connect((ip, address.port())).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(plain(peer).ip(), ip);
        }
    }

    #[test]
    fn any_other_address_is_bound_exactly() {
        let (_listener, address) = listener("127.0.0.1:0");
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).is_err());
        assert!(TcpStream::connect(address).is_ok());
    }

    #[test]
    fn a_port_that_is_in_use_in_one_family_is_in_use() {
        let held = TcpListener::bind("[::1]:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let error = bind_dual_stack(SocketAddr::from(([0, 0, 0, 0], port)))
            .and_then(|socket| socket.listen(1))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_ipv6_address_keeps_its_scope() {
        let scoped: SocketAddr = "[fe80::1%3]:4222".parse().unwrap();
        assert_eq!(plain(scoped), scoped);
        assert_eq!(
            plain("[::ffff:10.0.0.1]:1".parse().unwrap()).to_string(),
            "10.0.0.1:1"
        );
    }
}
