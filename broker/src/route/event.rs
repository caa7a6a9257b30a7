//! What happens on one route that is the node's business: from the route to the keeper of all routes.

use super::hello::Peer;
use crate::closing::Reason;

/// See the file's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteEvent {
    /// The route takes messages.
    Stands,
    /// The peer was told all there is.
    Told,
    /// The peer has told all its interest.
    Synced,
    /// The peer names other nodes.
    Peers(Vec<Peer>),
    /// The peer takes clients from now on.
    Serving,
    /// The peer takes no clients any more.
    Draining,
    /// The peer leaves.
    Goodbye,
    /// The peer has shown that it lives since its id was claimed.
    Lives,
    /// The route is gone.
    Lost {
        peer: String,
        reason: Reason,
        /// The peer had said that it leaves.
        leaves: bool,
        unsent_bytes: usize,
        undelivered: u64,
    },
}
