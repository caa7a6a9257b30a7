//! The other end of a component's connection, as logs and pages show it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::net::unix::UCred;

use crate::proxy_header::Addresses;

/// The other end of a component's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peer {
    /// The address of a TCP connection.
    Tcp(SocketAddr),
    /// The addresses of a TCP connection that a load balancer passes on.
    Proxied(Addresses),
    /// The process on a Unix socket, with its user and group at the time of the connect.
    Unix { uid: u32, gid: u32, pid: Option<i32> },
}

impl Peer {
    /// Returns the address in INFO. A process on a Unix socket is on this host.
    pub(crate) fn ip(&self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.ip(),
            Self::Proxied(addresses) => addresses.client.ip(),
            Self::Unix { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<UCred> for Peer {
    fn from(peer: UCred) -> Self {
        Self::Unix {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Proxied(addresses) => addresses.client.fmt(formatter),
            Self::Unix { uid, gid, pid } => {
                write!(formatter, "unix:uid={uid},gid={gid}")?;
                pid.map_or(Ok(()), |pid| write!(formatter, ",pid={pid}"))
            }
        }
    }
}
