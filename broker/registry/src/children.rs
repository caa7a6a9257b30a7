//! The znodes of all nodes, as one ZooKeeper session sees them. They are listed, read and watched.
//!
//! Each read sets a watch on the data of the child. A child is read again only after its watch has fired or the audit found a
//! difference, so that there is at most one watch per child. These watches report at once that a node has begun to drain, because
//! the state of the node is in the data of its znode.
//!
//! Anybody may be able to write below the path, so memory is bounded whatever is there: at most `nodes_max` children are read, and of
//! each at most [`RECORD_BYTES_MAX`] bytes. Nodes that are known already are not displaced by new children.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::client::{CallError, Changes, ChildData, Client};
use crate::node::Node;
use crate::record::{RECORD_BYTES_MAX, too_large, truncated};
use crate::registrars;
use crate::znode_path;

/// Maximum number of reads in flight. The request queue of the client library has room for 64 requests.
const READS_IN_FLIGHT_MAX: usize = 32;

/// Longest reason that is kept for an unreadable record, in bytes. The reason quotes the record.
const REASON_BYTES_MAX: usize = 256;

/// All registered nodes at one point in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Records that could not be read or parsed.
    pub(crate) unreadable: Vec<UnreadableRecord>,
    /// Number of children that were ignored because there are more than `nodes_max`.
    pub(crate) over_limit: usize,
    /// Whether the parent znode does not exist.
    pub(crate) missing: bool,
}

/// A record that could not be read or parsed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnreadableRecord {
    pub(crate) znode: String,
    pub(crate) mzxid: i64,
    pub(crate) reason: String,
}

/// One child, as it was read last.
struct Entry {
    /// Transaction id of the last change of its data. `None` if the ACL forbids reading the record: it has no watch then, and each
    /// audit marks it to be read again.
    mzxid: Option<i64>,
    /// The node; `None` if the record says that the node does not serve clients. An error says why the record could not be read
    /// or parsed.
    node: Result<Option<Arc<Node>>, String>,
}

/// The known children, and which of them must be read again.
#[derive(Default)]
pub(crate) struct Children {
    path: String,
    nodes_max: usize,
    known: BTreeMap<String, Entry>,
    over_limit: usize,
    missing: bool,
    list_is_stale: bool,
    stale: BTreeSet<String>,
}

impl Children {
    /// Creates the state without children. The first [`refresh`](Self::refresh) reads all of them.
    pub(crate) fn new(path: String, nodes_max: usize) -> Self {
        Self {
            path,
            nodes_max,
            list_is_stale: true,
            ..Self::default()
        }
    }

    /// Marks the list as out of date.
    pub(crate) fn list_again(&mut self) {
        self.list_is_stale = true;
    }

    /// Marks what has changed to be read again: the list, or single children.
    pub(crate) fn mark_stale(&mut self, changes: Changes) {
        self.list_is_stale |= changes.list;
        self.stale.extend(changes.children);
    }

    /// Reads what is marked, and new children. Each read sets its watch again. Returns the nodes.
    pub(crate) async fn refresh(&mut self, client: &Arc<Client>) -> Result<Listing, CallError> {
        if std::mem::take(&mut self.list_is_stale) {
            self.list(client).await?;
        }
        let mut wanted = std::mem::take(&mut self.stale);
        wanted.retain(|name| self.known.contains_key(name));
        self.read(client, wanted).await?;
        Ok(self.listing())
    }

    async fn list(&mut self, client: &Arc<Client>) -> Result<(), CallError> {
        let mut found = None;
        if client.exists(&self.path).await?.is_some() {
            found = client.children_watched(&self.path).await?;
        }
        if found.is_none() && client.exists_watched(&self.path).await?.is_some() {
            // The parent was created between the two calls. The watch just set does not report new children, so the children are
            // listed now, with a watch that does.
            found = client.children_watched(&self.path).await?;
        }
        self.take_list(client, found).await
    }

    async fn take_list(&mut self, client: &Arc<Client>, found: Option<Vec<String>>) -> Result<(), CallError> {
        self.missing = found.is_none();
        let found = found.unwrap_or_default();
        self.over_limit = found.len().saturating_sub(self.nodes_max);
        let mut names = self.selected(found);
        self.known.retain(|name, _| names.contains(name));
        names.retain(|name| !self.known.contains_key(name));
        self.read(client, names).await
    }

    /// Returns the children to be read: at most `nodes_max`, those first that are known as nodes, then in the order of their names.
    fn selected(&self, mut names: Vec<String>) -> BTreeSet<String> {
        let is_node = |name: &String| self.known.get(name).is_some_and(|entry| entry.node.is_ok());
        names.sort_unstable();
        // Stable, so that the names stay sorted within both parts.
        names.sort_by_key(|name| !is_node(name));
        names.truncate(self.nodes_max);
        names.into_iter().collect()
    }

    async fn read(&mut self, client: &Arc<Client>, names: BTreeSet<String>) -> Result<(), CallError> {
        let mut names = names.into_iter();
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < READS_IN_FLIGHT_MAX {
                let Some(name) = names.next() else { break };
                let (client, path) = (Arc::clone(client), self.path.clone());
                reads.spawn(async move {
                    let answer = client.data_watched(&path, &name, RECORD_BYTES_MAX).await;
                    (name, answer)
                });
            }
            let Some(read) = reads.join_next().await else {
                return Ok(());
            };
            // Fails only if the task panicked (a bug). The next audit then marks the child again.
            let Ok((name, answer)) = read else { continue };
            self.take(name, answer)?;
        }
    }

    fn take(&mut self, name: String, answer: Result<ChildData, CallError>) -> Result<(), CallError> {
        let entry = match answer {
            Ok(ChildData::Read(data, stat)) => Entry {
                mzxid: Some(stat.mzxid),
                node: registrars::parse(&data)
                    .map(|node| node.map(Arc::new))
                    .map_err(shortened),
            },
            Ok(ChildData::TooLarge(size, stat)) => Entry {
                mzxid: Some(stat.mzxid),
                node: Err(too_large(size)),
            },
            Ok(ChildData::Missing) => {
                self.known.remove(&name);
                return Ok(());
            }
            Err(error @ CallError::NoAuth { .. }) => Entry {
                mzxid: None,
                node: Err(shortened(error.to_string())),
            },
            Err(error) => return Err(error),
        };
        self.known.insert(name, entry);
        Ok(())
    }

    /// Compares the known children with the server, in case a watch was lost. Marks the differences for the next
    /// [`refresh`](Self::refresh), and returns their number. Records that the ACL forbids reading are marked, but not counted.
    pub(crate) async fn audit(&mut self, client: &Arc<Client>) -> Result<usize, CallError> {
        let names = client.children(&self.path).await?.unwrap_or_default();
        self.list_is_stale = !self.selected(names).iter().eq(self.known.keys());
        let mut differences = usize::from(self.list_is_stale);
        for (name, entry) in &self.known {
            let znode = znode_path::child(&self.path, name);
            let now = client.exists(&znode).await?.map(|stat| stat.mzxid);
            if entry.mzxid.is_none() || now != entry.mzxid {
                differences += usize::from(entry.mzxid.is_some());
                self.stale.insert(name.clone());
            }
        }
        Ok(differences)
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing {
            over_limit: self.over_limit,
            missing: self.missing,
            ..Listing::default()
        };
        for (name, entry) in &self.known {
            match &entry.node {
                Ok(node) => listing.nodes.extend(node.clone()),
                Err(reason) => listing.unreadable.push(UnreadableRecord {
                    znode: znode_path::child(&self.path, name),
                    mzxid: entry.mzxid.unwrap_or_default(),
                    reason: reason.clone(),
                }),
            }
        }
        listing
    }
}

/// Returns `reason` with at most [`REASON_BYTES_MAX`] bytes.
fn shortened(reason: String) -> String {
    truncated(&reason, REASON_BYTES_MAX).to_owned()
}
