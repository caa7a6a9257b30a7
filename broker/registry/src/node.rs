//! A node of the cluster as the registry knows it.

use std::fmt;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::upstream::{Credentials, Upstream};

/// Whether a node takes new clients, by its own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It does.
    Up,
    /// It is about to leave; clients should go elsewhere.
    Draining,
}

impl NodeState {
    /// As the record writes it: `up`, `draining`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
        }
    }
}

/// Who told us of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A znode.
    ZooKeeper,
    /// An earlier list, from memory or from the cache file.
    Cache,
    /// A DNS record.
    Dns,
    /// An address given by hand.
    Fixed,
    /// Another node, in its `connect_urls`.
    Gossip,
}

impl Source {
    /// A stable name, for metric labels and logs.
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node: where it is, and what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The id in its record; its client endpoint for a node without a record of ours.
    pub id: Arc<str>,
    /// Which life of that id it is: another at each start of the process. Empty when the record tells none.
    pub run: Arc<str>,
    /// Where clients connect.
    pub client: Endpoint,
    /// Where other nodes connect.
    pub mesh: Option<Endpoint>,
    /// Where it is monitored.
    pub http: Option<Endpoint>,
    /// Clients must speak TLS.
    pub tls: bool,
    /// Where it runs, as far as that is told; else empty.
    pub zone: Arc<str>,
    /// Its share of the clients, compared with the other nodes; at least 1.
    pub weight: u32,
    /// Whether it takes new clients.
    pub state: NodeState,
    /// Its program's version, as far as that is told; else empty.
    pub version: Arc<str>,
    /// Who told us.
    pub source: Source,
    /// What to show it when the component shows nothing itself.
    pub credentials: Option<Arc<Credentials>>,
}

impl Node {
    /// A node of which nothing but the address is known.
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
