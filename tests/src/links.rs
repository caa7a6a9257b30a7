//! A node's view of its cluster: its routes, the interest received over each, and the interest of its own clients.
//!
//! It is read from `/varz`, `/routez` and `/connz`, which `standin-broker` and `nats-server` share. A `nats-server` keeps a pool of
//! connections to each peer, and one more for its system account. The interest of an account uses one connection of the pool.

use crate::http::Endpoint;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Clients on one page of `/connz`, the default of both servers.
const ROWS_PER_PAGE: usize = 1024;

const SYSTEM_ACCOUNT: &str = "$SYS";

/// Routes of one node at one moment.
#[derive(Clone, Debug)]
pub struct Links {
    /// The node's id, new at each of its starts.
    pub id: String,
    connections_needed: u64,
    peers: BTreeMap<String, Peer>,
}

/// A peer of a node, as the node's own pages show it.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Id of the peer.
    pub id: String,
    /// Name of the peer.
    pub name: String,
    /// Number of connections to the peer.
    pub connections: u64,
    /// Number of entries of interest received from the peer: one for each subject, and one for each subject with a queue group.
    pub interest: u64,
    /// The subjects of these entries, sorted, as far as the page lists them.
    pub subjects: Vec<String>,
}

impl Links {
    /// Reads the routes of a node from its HTTP pages; `None` if it does not serve them.
    pub async fn read(http: &Endpoint) -> Option<Self> {
        let settings = http.get_json("/varz").await?;
        let page = http.get_json("/routez?subs=1").await?;
        let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
        for route in page["routes"].as_array()? {
            let id = route["remote_id"].as_str()?;
            let peer = peers.entry(id.to_owned()).or_default();
            id.clone_into(&mut peer.id);
            route["remote_name"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut peer.name);
            peer.connections += 1;
            if route["account"] != SYSTEM_ACCOUNT {
                peer.interest += route["subscriptions"].as_u64().unwrap_or_default();
                peer.subjects.extend(strings(&route["subscriptions_list"]));
            }
        }
        for peer in peers.values_mut() {
            peer.subjects.sort_unstable();
        }
        let pool = settings["cluster"]["pool_size"].as_u64();
        Some(Self {
            id: settings["server_id"].as_str()?.to_owned(),
            connections_needed: pool.map_or(1, |size| size + 1),
            peers,
        })
    }

    /// Returns the nodes to which there is at least one connection.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Returns the node with this id, if there is a connection to it.
    pub fn to(&self, id: &str) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Returns whether all connections that this node keeps to a peer are open.
    pub fn is_complete(&self, peer: &Peer) -> bool {
        peer.connections >= self.connections_needed
    }
}

/// Interest of the clients of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnInterest {
    /// Each pair (subject, queue group or nothing) once, as the node sends it to other nodes.
    pub entries: BTreeSet<(String, String)>,
    /// Number of the clients' subscriptions.
    pub subscriptions: usize,
}

impl OwnInterest {
    /// Reads the interest of a node's clients from its HTTP pages; `None` if it does not serve them.
    pub async fn read(http: &Endpoint) -> Option<Self> {
        let mut interest = Self::default();
        for first in (0..).step_by(ROWS_PER_PAGE) {
            let query = format!("/connz?subs=detail&offset={first}&limit={ROWS_PER_PAGE}");
            let page = http.get_json(&query).await?;
            let clients = page["connections"].as_array()?;
            let lists = clients
                .iter()
                .filter_map(|client| client["subscriptions_list_detail"].as_array());
            for subscription in lists.flatten() {
                let word = |key: &str| subscription[key].as_str().unwrap_or_default().to_owned();
                interest.entries.insert((word("subject"), word("qgroup")));
                interest.subscriptions += 1;
            }
            if clients.len() < ROWS_PER_PAGE {
                break;
            }
        }
        Some(interest)
    }

    /// Compares with the interest that another node has received. `peer` is this node, as the other node shows it. Returns an error
    /// unless both are equal.
    pub fn known_as(&self, peer: &Peer) -> Result<(), String> {
        let mut subjects: Vec<&str> = self.entries.iter().map(|(subject, _)| &**subject).collect();
        subjects.sort_unstable();
        // A page may list fewer entries than it counts, or none.
        let listed = peer.subjects.len() as u64 == peer.interest;
        if peer.interest != subjects.len() as u64 || (listed && peer.subjects != subjects) {
            return Err(format!(
                "{} has {} entries of interest {:?}, but another node received {}: {:?}",
                peer.name,
                subjects.len(),
                shortened(&subjects),
                peer.interest,
                shortened(&peer.subjects),
            ));
        }
        Ok(())
    }
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|entry| entry.as_str().map(str::to_owned))
}

/// Returns the start of a list, long enough for a failure message.
fn shortened<T>(list: &[T]) -> &[T] {
    &list[..list.len().min(10)]
}
