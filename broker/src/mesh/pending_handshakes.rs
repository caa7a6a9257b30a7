//! Accepted connections whose handshake is pending. Their number is bounded; the oldest is evicted. So a node can connect although many
//! other connections are open on the port.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::task::AbortHandle;

const HANDSHAKES_MAX: usize = 256;

/// Accepted connections whose handshake is pending, the oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingHandshakes(VecDeque<(SocketAddr, AbortHandle)>);

impl PendingHandshakes {
    /// Adds a connection from `peer`, whose handshake runs in `task`. Returns the peer whose connection was evicted for it.
    pub(super) fn add(&mut self, peer: SocketAddr, task: AbortHandle) -> Option<SocketAddr> {
        self.0.push_back((peer, task));
        if self.0.len() <= HANDSHAKES_MAX {
            return None;
        }
        let (oldest, task) = self.0.pop_front()?;
        task.abort();
        Some(oldest)
    }

    pub(super) fn remove(&mut self, peer: SocketAddr) {
        self.0.retain(|(pending, _)| *pending != peer);
    }
}
