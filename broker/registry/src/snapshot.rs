//! All known nodes at one time, for readers that must not wait.

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::node::Node;

/// The known nodes in three lists. A reader tries `live` first, then `cached`, then `fixed`. No client address is in two lists, or
/// twice in one. Within a list the order is stable, but has no meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Nodes in the last answers of ZooKeeper and DNS.
    pub live: Vec<Arc<Node>>,
    /// Nodes known from earlier answers, in memory or in the cache file.
    pub cached: Vec<Arc<Node>>,
    /// Nodes in the settings, and nodes named in INFO.
    pub fixed: Vec<Arc<Node>>,
    /// All nodes registered in ZooKeeper, also several with the same client address.
    pub registered: Vec<Arc<Node>>,
    /// Number of changes since the start.
    pub generation: u64,
}

impl Snapshot {
    /// Iterates over all nodes: `live`, `cached`, `fixed`.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.live.iter().chain(&self.cached).chain(&self.fixed)
    }

    /// Returns the number of nodes in the three lists.
    pub fn len(&self) -> usize {
        self.live.len() + self.cached.len() + self.fixed.len()
    }

    /// Returns whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the node with the client address `client`.
    pub fn find(&self, client: &Endpoint) -> Option<&Arc<Node>> {
        self.iter().find(|node| node.client == *client)
    }

    pub(crate) fn same_nodes(&self, other: &Self) -> bool {
        self.live == other.live
            && self.cached == other.cached
            && self.fixed == other.fixed
            && self.registered == other.registered
    }
}
