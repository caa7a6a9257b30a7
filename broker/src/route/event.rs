//! The events that a route reports to the keeper of all routes.

use super::hello::Peer;
use crate::close_reason::CloseReason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteEvent {
    /// The route is established and accepts messages.
    Established,
    /// The peer was sent this node's complete interest.
    SnapshotSent,
    /// The peer has sent its complete interest.
    Synced,
    /// The peer names other nodes.
    Peers(Vec<Peer>),
    Serving,
    /// The peer accepts no more clients.
    Draining,
    Goodbye,
    /// The peer has answered the PING that was sent because another node claims its id.
    ClaimAnswered,
    Lost {
        peer: String,
        reason: CloseReason,
        /// The peer had sent GOODBYE.
        sent_goodbye: bool,
        unsent_bytes: usize,
        /// Messages from the peer that had no recipient here.
        undelivered: u64,
    },
}
