//! What is known at one moment, for a reader that must not wait.

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::node::Node;

/// The nodes, in the order of trust: a reader tries `live` first, then `cached`, then `fixed`. No client
/// endpoint is in it twice. Within a list the order is stable and means nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// As the sources that can know say now (ZooKeeper, DNS), or said last when they cannot be asked.
    pub live: Vec<Arc<Node>>,
    /// Known earlier (this process's memory, else the cache file) and not in `live`.
    pub cached: Vec<Arc<Node>>,
    /// Given by hand, and what those nodes named; not in the lists above.
    pub fixed: Vec<Arc<Node>>,
    /// All that is registered in ZooKeeper, also nodes that clients reach at the same address.
    pub registered: Vec<Arc<Node>>,
    /// Grows with every change.
    pub generation: u64,
}

impl Snapshot {
    /// All nodes, in the order of trust.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.live.iter().chain(&self.cached).chain(&self.fixed)
    }

    /// How many nodes are known in all.
    pub fn len(&self) -> usize {
        self.live.len() + self.cached.len() + self.fixed.len()
    }

    /// Whether no node is known at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node whose clients connect to `client`.
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
