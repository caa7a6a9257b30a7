//! The settings of a node, under the names of `nats-server`, with its defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::auth::Access;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `server_name`; empty: the server's id.
    pub server_name: String,
    /// Who may connect.
    pub access: Access,
    /// Worker threads; 0: one for each core.
    pub workers: usize,
    /// `max_payload`, in bytes.
    pub payload_bytes_max: usize,
    /// `max_control_line`, in bytes.
    pub control_line_bytes_max: usize,
    /// `max_connections`.
    pub connections_max: usize,
    /// `max_subscriptions` of one client; 0: no limit.
    pub subscriptions_max: usize,
    /// `max_pending`: bytes that may wait for one client.
    pub pending_bytes_max: usize,
    /// `write_deadline`: a client that takes nothing for so long is closed.
    pub write_deadline: Duration,
    /// `ping_interval` of a silent client.
    pub ping_interval: Duration,
    /// `ping_max`: PINGs without an answer after which it is closed.
    pub ping_max: u32,
    /// Time for CONNECT where credentials are asked for.
    pub auth_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4222)),
            server_name: String::new(),
            access: Access::Open,
            workers: 0,
            payload_bytes_max: 1024 * 1024,
            control_line_bytes_max: 4096,
            connections_max: 64 * 1024,
            subscriptions_max: 0,
            pending_bytes_max: 64 * 1024 * 1024,
            write_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            auth_timeout: Duration::from_secs(2),
        }
    }
}
