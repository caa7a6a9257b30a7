//! Figures about the cluster, as this node sees it, for `/metrics`.

use standin_registry::SourceState;

/// Figures about the cluster, as this node sees it. The keeper of the routes updates them ten times a second. A node without a cluster has
/// the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClusterFigures {
    /// State of the connection to ZooKeeper.
    pub(crate) registry: SourceState,
    /// Nodes that are registered in ZooKeeper.
    pub(crate) registered_nodes: usize,
    /// This node is registered in ZooKeeper.
    pub(crate) is_registered: bool,
    /// Known other nodes without a route.
    pub(crate) unlinked_nodes: usize,
}
