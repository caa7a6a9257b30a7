//! The lists that sources give: which there are, and who is on one of them, or was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::ZooKeeperConfig;
use crate::dns::DnsName;
use crate::node::{Node, Source};

/// Who left the list before its end at most this long ago belongs to what it was.
const DEPARTED_KEPT: Duration = Duration::from_secs(60);

/// Which list it is: a source may have several, and other settings mean another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListName {
    pub(crate) source: Source,
    /// ZooKeeper's hosts and path, or the DNS name; empty in a file that does not tell.
    pub(crate) name: String,
}

/// A node that is on the list, or was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) node: Arc<Node>,
    /// When it left while others stayed.
    pub(crate) left: Option<SystemTime>,
}

/// What there is of a list for a later life.
pub(crate) type Lists = BTreeMap<ListName, Vec<Remembered>>;

impl Remembered {
    pub(crate) fn is_there_or_left_shortly_before(&self, now: SystemTime) -> bool {
        // By a clock that was set back it left just now.
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
