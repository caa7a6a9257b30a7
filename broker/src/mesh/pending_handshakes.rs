//! Connections to the mesh's port whose handshake is pending: bounded, the oldest is evicted. So a node of the mesh gets through however many
//! others crowd the port.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::task::AbortHandle;

/// Handshakes at the same time.
const HANDSHAKES_MAX: usize = 256;

/// See the file's head. The oldest is first.
#[derive(Debug, Default)]
pub(super) struct PendingHandshakes(VecDeque<(SocketAddr, AbortHandle)>);

impl PendingHandshakes {
    /// Adds a connection from `peer`, whose handshake is this task. Returns the peer that was evicted for it.
    pub(super) fn add(&mut self, peer: SocketAddr, task: AbortHandle) -> Option<SocketAddr> {
        self.0.push_back((peer, task));
        if self.0.len() <= HANDSHAKES_MAX {
            return None;
        }
        let (oldest, task) = self.0.pop_front()?;
        task.abort();
        Some(oldest)
    }

    /// Removes the connection from `peer`: it is a link, or gone.
    pub(super) fn remove(&mut self, peer: SocketAddr) {
        self.0.retain(|(pending, _)| *pending != peer);
    }
}
