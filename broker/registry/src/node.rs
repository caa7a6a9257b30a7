//! A node of the cluster as the registry knows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::upstream::{Credentials, Upstream};

/// Whether a node accepts new clients, according to its record. A node without a record is [`Up`](Self::Up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// The node accepts new clients.
    Up,
    /// The node is about to leave. Clients should move to other nodes.
    Draining,
}

impl NodeState {
    /// Returns the state that a record names. Any other text than `draining` is [`Up`](Self::Up).
    pub(crate) fn of(text: &str) -> Self {
        if text == Self::Draining.as_str() {
            Self::Draining
        } else {
            Self::Up
        }
    }

    /// Returns the state as it is written in the record: `up` or `draining`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
        }
    }
}

/// Source from which a node is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A znode.
    ZooKeeper,
    /// An earlier list, from memory or from the cache file.
    Cache,
    /// A DNS record.
    Dns,
    /// An address in the settings.
    Fixed,
    /// `connect_urls` in the INFO of another node.
    Gossip,
}

impl Source {
    /// Returns the stable name, for metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ZooKeeper => "zookeeper",
            Self::Cache => "cache",
            Self::Dns => "dns",
            Self::Fixed => "fixed",
            Self::Gossip => "gossip",
        }
    }
}

/// A node: its addresses and its description. Its record in ZooKeeper has both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Id from the record. If there is no record, or the record has no id, this is the client address.
    pub id: Arc<str>,
    /// Identifier of the process. Each start of the node has a different one. Empty if the record has none.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub run: Arc<str>,
    /// Address for clients.
    pub client: Endpoint,
    /// Address for other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Endpoint>,
    /// Address of the HTTP listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Endpoint>,
    /// Whether clients must use TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// Zone in which the node runs. Empty if unknown.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub zone: Arc<str>,
    /// Weight of the node in the distribution of clients, relative to other nodes; at least 1.
    pub weight: u32,
    /// Whether the node accepts new clients.
    pub state: NodeState,
    /// Version of the program. Empty if unknown.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub version: Arc<str>,
    /// Source from which the node is known.
    pub source: Source,
    /// Credentials for the node. They are used if the component sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Arc<Credentials>>,
}

fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

impl Node {
    /// Creates the node that this process registers: it is up, with a new `run` and the weight 1. All else is empty.
    pub fn new(id: impl Into<Arc<str>>, client: Endpoint) -> Self {
        Self {
            id: id.into(),
            run: format!("{:016x}", rand::random::<u64>()).into(),
            ..Self::at(client, Source::ZooKeeper)
        }
    }

    /// Creates a node from its client address. Everything else is unknown.
    pub fn at(client: Endpoint, source: Source) -> Self {
        Self {
            id: client.to_string().into(),
            run: "".into(),
            client,
            mesh: None,
            http: None,
            tls: false,
            zone: "".into(),
            weight: 1,
            state: NodeState::Up,
            version: "".into(),
            source,
            credentials: None,
        }
    }
}

impl From<&Upstream> for Node {
    fn from(upstream: &Upstream) -> Self {
        Self {
            tls: upstream.tls,
            credentials: upstream.credentials.clone().map(Arc::new),
            ..Self::at(upstream.endpoint.clone(), Source::Fixed)
        }
    }
}
