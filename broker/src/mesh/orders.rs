//! The node's orders to the keeper of its routes, and the status that the keeper reports.

use tokio::sync::oneshot;

/// Status of this node in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClusterStatus {
    /// The registry was read, or there is none.
    pub(crate) has_read: bool,
    /// Addresses for which a starting node waits, as returned by `Membership::awaited`.
    pub(crate) awaited: Vec<String>,
    /// Another node with this node's id is known to keep the id (`true`), or exists but may give it up (`false`).
    pub(crate) namesake_precedes: Option<bool>,
    /// The other node with this node's id is known to be alive.
    pub(crate) has_living_namesake: bool,
    /// This node must give up its id to another node.
    pub(crate) is_displaced: bool,
    /// Address of a registered node whose route was refused, and the reason. `None` if there is any route.
    pub(crate) refusal: Option<(String, String)>,
    pub(crate) routes: usize,
}

/// Order of the node to its keeper.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the present snapshot of the registry, then signal the sender.
    ReadRegistry(oneshot::Sender<()>),
    /// Tell the peers that this node accepts clients.
    Serve,
    /// Tell the peers that this node accepts no more clients.
    Drain,
    /// Close all routes and end the keeper.
    Leave,
}
