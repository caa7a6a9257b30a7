//! Names of the node lists of sources, and the nodes that are remembered for each list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::config::ZooKeeperConfig;
use crate::dns::DnsName;
use crate::node::{Node, Source};

/// Time for which a node is remembered after it has left its list.
const DEPARTED_KEPT: Duration = Duration::from_secs(60);

/// Name of a list. A source can have several lists, and has new ones when its settings change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ListName {
    pub(crate) source: Source,
    /// ZooKeeper's hosts and path, or the DNS name. Empty if read from a cache file of an old version.
    pub(crate) name: String,
}

/// A node that is on a list, or was on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RememberedNode {
    pub(crate) node: Arc<Node>,
    /// Time at which the node left the list while other nodes remained; `None` while the node is on the list.
    pub(crate) left: Option<SystemTime>,
}

/// The remembered nodes of all lists, for the cache file.
pub(crate) type RememberedLists = BTreeMap<ListName, Vec<RememberedNode>>;

impl RememberedNode {
    /// Returns whether the node is on its list, or left it a short time before `now`.
    pub(crate) fn is_listed_or_left_recently(&self, now: SystemTime) -> bool {
        // If the clock was set back, the age is zero.
        let age = |left| now.duration_since(left).unwrap_or_default();
        self.left.is_none_or(|left| age(left) < DEPARTED_KEPT)
    }
}

impl From<&DnsName> for ListName {
    fn from(name: &DnsName) -> Self {
        Self {
            source: Source::Dns,
            name: name.to_string(),
        }
    }
}

impl From<&ZooKeeperConfig> for ListName {
    fn from(config: &ZooKeeperConfig) -> Self {
        Self {
            source: Source::ZooKeeper,
            name: format!("{} {}", config.hosts, config.path),
        }
    }
}
