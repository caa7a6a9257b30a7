//! Options of a TCP connection that carries messages.
//!
//! Within one host, congestion control only costs time: nothing is lost there, and no queue builds up on a link. BBR, the
//! default of many hosts, paces each write with a timer; that takes about a third of the sidecar's CPU time per message
//! (`tests/bench sidecar`). So connections within the host use Reno, which every Linux kernel has and which does not pace.

use std::io;

use socket2::{SockAddr, SockRef};

use crate::listen::plain;

/// Sends each write at once (`TCP_NODELAY`), and without pacing if the peer is on this host.
///
/// # Errors
/// The error of the system.
pub fn send_at_once(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if is_within_host(socket) {
        // If the kernel refuses, the connection is only slower.
        let _ = socket.set_tcp_congestion(b"reno");
    }
    Ok(())
}

/// Returns whether both ends of the connection are on this host. `false` if the peer has reset it: its address is gone then.
fn is_within_host(socket: &SockRef<'_>) -> bool {
    let ip = |address: SockAddr| address.as_socket().map(|address| plain(address).ip());
    let (own, peer) = (
        socket.local_addr().ok().and_then(ip),
        socket.peer_addr().ok().and_then(ip),
    );
    peer.is_some_and(|peer| peer.is_loopback() || own == Some(peer))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_within_the_host_is_not_paced() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = SockRef::from(&stream);
            send_at_once(&socket).unwrap();
            let congestion = socket.tcp_congestion().unwrap();
            assert!(congestion.starts_with(b"reno"), "{address}: {congestion:?}");
            assert!(socket.tcp_nodelay().unwrap());
        }
    }
}
