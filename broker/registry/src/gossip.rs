//! Nodes that other nodes name in `connect_urls` of their INFO. From them, a sidecar that knows one address of a cluster learns
//! all of its nodes.
//!
//! Each node names the whole cluster. So an INFO replaces the earlier INFOs of all nodes that it names, and the INFOs that named
//! its sender. A node that has left the cluster is therefore removed by the next INFO of any other node. This file is pure
//! state, without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::node::{Node, Source};
use crate::upstream::{Credentials, Upstream};

/// The nodes that each node named in its last INFO.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Gossip {
    by_node: BTreeMap<Endpoint, NamedNodes>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NamedNodes {
    nodes: Vec<Arc<Node>>,
    /// The sender of the INFO, and the senders of the INFOs that it replaced. The INFO is kept while one of these nodes is known
    /// from another source.
    vouched_by: BTreeSet<Endpoint>,
}

impl NamedNodes {
    fn names(&self, endpoint: &Endpoint) -> bool {
        self.nodes.iter().any(|node| node.client == *endpoint)
    }
}

/// The nodes named in one INFO.
#[derive(Debug, Clone)]
pub(crate) struct InfoReport {
    pub(crate) from: Endpoint,
    /// Whether the sender was reached with TLS. The nodes that it names are reached in the same way.
    pub(crate) tls: bool,
    pub(crate) credentials: Option<Arc<Credentials>>,
    pub(crate) connect_urls: Vec<String>,
}

impl Gossip {
    /// Takes the nodes of an INFO. Returns whether the named nodes have changed.
    pub(crate) fn take(&mut self, report: &InfoReport, nodes_max: usize) -> bool {
        // An invalid address is ignored. Some servers send a whole URL.
        let upstreams = report
            .connect_urls
            .iter()
            .filter_map(|url| url.parse::<Upstream>().ok());
        let named: Vec<Endpoint> = upstreams.map(|named| named.endpoint).take(nodes_max).collect();
        let before: Vec<Arc<Node>> = self.nodes().cloned().collect();
        let was_named = before.iter().any(|node| node.client == report.from);
        let mut vouched_by = BTreeSet::from([report.from.clone()]);
        self.by_node.retain(|node, named_by_node| {
            let replaced = *node == report.from || named.contains(node) || named_by_node.names(&report.from);
            if replaced {
                vouched_by.append(&mut named_by_node.vouched_by);
            }
            !replaced
        });
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        // The sender is alive, so it stays even if its INFO names it by another address or not at all.
        let itself = was_named.then(|| report.from.clone());
        for client in named.into_iter().chain(itself) {
            if nodes.iter().all(|node| node.client != client) {
                let node = Node {
                    tls: report.tls,
                    credentials: report.credentials.clone(),
                    ..Node::at(client, Source::Gossip)
                };
                nodes.push(Arc::new(node));
            }
        }
        // Each node names itself first. The nodes are sorted, so that the INFOs of two nodes of a cluster are equal.
        nodes.sort_by(|a, b| a.client.cmp(&b.client));
        if !nodes.is_empty() && self.by_node.len() < nodes_max {
            self.by_node
                .insert(report.from.clone(), NamedNodes { nodes, vouched_by });
        }
        !self.nodes().eq(before.iter())
    }

    /// Forgets the INFOs of nodes for which `known` is false, unless they replaced the INFO of a known node.
    pub(crate) fn keep_known(&mut self, known: impl Fn(&Endpoint) -> bool) {
        self.by_node.retain(|_, named_by_node| {
            named_by_node.vouched_by.retain(&known);
            !named_by_node.vouched_by.is_empty()
        });
    }

    /// Iterates over all named nodes. A node may occur several times.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.by_node.values().flat_map(|named| &named.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(gossip: &mut Gossip, from: &str, urls: &[&str]) -> bool {
        let report = InfoReport {
            from: from.parse().unwrap(),
            tls: false,
            credentials: None,
            connect_urls: urls.iter().map(ToString::to_string).collect(),
        };
        gossip.take(&report, 8)
    }

    fn named(gossip: &Gossip) -> Vec<String> {
        let mut ids: Vec<String> = gossip.nodes().map(|node| node.id.to_string()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    #[test]
    fn a_node_that_a_later_info_does_not_name_is_removed() {
        let mut gossip = Gossip::default();
        assert!(take(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]));
        assert!(!take(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]));
        assert!(take(&mut gossip, "b:1", &["a:1", "b:1"]));
        assert_eq!(named(&gossip), ["a:1", "b:1"]);
    }

    #[test]
    fn the_order_of_the_named_nodes_is_ignored() {
        let mut gossip = Gossip::default();
        assert!(take(&mut gossip, "a:1", &["a:1", "b:1"]));
        assert!(!take(&mut gossip, "b:1", &["b:1", "a:1"]));
        assert!(!take(&mut gossip, "a:1", &["a:1", "b:1"]));
    }

    #[test]
    fn the_info_of_a_surviving_node_replaces_that_of_a_dead_one() {
        let mut gossip = Gossip::default();
        take(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]);
        take(&mut gossip, "b:1", &["b:1"]);
        assert_eq!(named(&gossip), ["b:1"]);
    }

    #[test]
    fn two_clusters_do_not_replace_each_other() {
        let mut gossip = Gossip::default();
        take(&mut gossip, "a:1", &["a:1", "a2:1"]);
        take(&mut gossip, "b:1", &["b:1", "b2:1"]);
        assert_eq!(named(&gossip), ["a2:1", "a:1", "b2:1", "b:1"]);
        gossip.keep_known(|node| node.host.starts_with('b'));
        assert_eq!(named(&gossip), ["b2:1", "b:1"]);
    }

    #[test]
    fn an_info_that_replaced_the_info_of_a_known_node_is_kept() {
        let mut gossip = Gossip::default();
        take(&mut gossip, "a:1", &["a:1", "b:1"]);
        take(&mut gossip, "b:1", &["b:1", "c:1"]);
        take(&mut gossip, "c:1", &["c:1"]);
        gossip.keep_known(|node| &*node.host == "a");
        assert_eq!(named(&gossip), ["c:1"]);
        gossip.keep_known(|_| false);
        assert!(named(&gossip).is_empty());
    }

    #[test]
    fn gossip_is_bounded_and_invalid_addresses_are_ignored() {
        let mut gossip = Gossip::default();
        let many: Vec<String> = (1..100).map(|port| format!("h:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        take(&mut gossip, "a:1", &many);
        assert_eq!(named(&gossip).len(), 8);
        for node in 0..100 {
            take(&mut gossip, &format!("s{node}:1"), &[&format!("t{node}:1")]);
        }
        assert!(gossip.by_node.len() <= 8);
        let mut gossip = Gossip::default();
        let urls = ["", "http://x", "a b:1", "[::1]:4222", "nats://c:1"];
        take(&mut gossip, "a:1", &urls);
        assert_eq!(named(&gossip), ["[::1]:4222", "c:1"]);
    }
}
