//! The nodes that nodes name: `connect_urls` of INFO. With one old address alone a component is thereby
//! cluster-aware.
//!
//! Every node of a cluster names the whole cluster, so the latest word of any member replaces the earlier
//! words of the others it names or that named it; a node that has left is gone with the next INFO from
//! anywhere. Pure state, no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::node::{Node, Source};
use crate::upstream::{Credentials, Upstream};

/// What each speaker named last.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    words: BTreeMap<Endpoint, Said>,
}

#[derive(Debug)]
struct Said {
    nodes: Vec<Arc<Node>>,
    /// The speaker, and the speakers whose words this one replaced: it counts while one of them is known from
    /// elsewhere.
    vouched_by: BTreeSet<Endpoint>,
}

impl Said {
    fn names(&self, endpoint: &Endpoint) -> bool {
        self.nodes.iter().any(|node| node.client == *endpoint)
    }
}

/// One INFO's word.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) from: Endpoint,
    /// The speaker was reached with TLS, so those it names are.
    pub(crate) tls: bool,
    pub(crate) inherit: Option<Arc<Credentials>>,
    pub(crate) connect_urls: Vec<String>,
}

impl Gossip {
    /// Takes a word; true when it changed anything.
    pub(crate) fn hear(&mut self, word: &Word, nodes_max: usize) -> bool {
        let named: Vec<Endpoint> = word
            .connect_urls
            .iter()
            .filter_map(|url| endpoint_of(url))
            .take(nodes_max)
            .collect();
        let before: Vec<Arc<Node>> = self.nodes().cloned().collect();
        let was_named = before.iter().any(|node| node.client == word.from);
        let mut vouched_by = BTreeSet::from([word.from.clone()]);
        self.words.retain(|speaker, said| {
            let replaced = *speaker == word.from || named.contains(speaker) || said.names(&word.from);
            if replaced {
                vouched_by.append(&mut said.vouched_by);
            }
            !replaced
        });
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        // A node that speaks is alive, even when it names itself by another address or not at all.
        let itself = was_named.then(|| word.from.clone());
        for client in named.into_iter().chain(itself) {
            if nodes.iter().all(|node| node.client != client) {
                let node = Node {
                    tls: word.tls,
                    credentials: word.inherit.clone(),
                    ..Node::at(client, Source::Gossip)
                };
                nodes.push(Arc::new(node));
            }
        }
        // Every node names itself first: in one order, the words of two members are the same, and nothing has changed.
        nodes.sort_by(|a, b| a.client.cmp(&b.client));
        if !nodes.is_empty() && self.words.len() < nodes_max {
            self.words.insert(word.from.clone(), Said { nodes, vouched_by });
        }
        !self.nodes().eq(before.iter())
    }

    /// Forgets the words for which nobody `known` from elsewhere vouches.
    pub(crate) fn keep_known(&mut self, known: impl Fn(&Endpoint) -> bool) {
        self.words.retain(|_, said| {
            said.vouched_by.retain(&known);
            !said.vouched_by.is_empty()
        });
    }

    /// All nodes named, some perhaps twice.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.words.values().flat_map(|said| &said.nodes)
    }
}

/// `host:port`, or a whole URL as some servers advertise; what cannot be read is left out.
fn endpoint_of(url: &str) -> Option<Endpoint> {
    url.parse::<Upstream>().ok().map(|upstream| upstream.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(gossip: &mut Gossip, from: &str, urls: &[&str]) -> bool {
        let connect_urls = urls.iter().map(ToString::to_string).collect();
        gossip.hear(
            &Word {
                from: from.parse().unwrap(),
                tls: false,
                inherit: None,
                connect_urls,
            },
            8,
        )
    }

    fn named(gossip: &Gossip) -> Vec<String> {
        let mut ids: Vec<String> = gossip.nodes().map(|node| node.id.to_string()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    #[test]
    fn a_node_that_a_later_info_no_longer_names_is_gone() {
        let mut gossip = Gossip::default();
        assert!(hear(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]));
        assert!(!hear(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]));
        assert!(hear(&mut gossip, "b:1", &["a:1", "b:1"]));
        assert_eq!(named(&gossip), ["a:1", "b:1"]);
    }

    #[test]
    fn members_that_name_the_same_nodes_in_their_own_order_change_nothing() {
        let mut gossip = Gossip::default();
        assert!(hear(&mut gossip, "a:1", &["a:1", "b:1"]));
        assert!(!hear(&mut gossip, "b:1", &["b:1", "a:1"]));
        assert!(!hear(&mut gossip, "a:1", &["a:1", "b:1"]));
    }

    #[test]
    fn the_word_of_a_survivor_replaces_that_of_a_dead_node() {
        let mut gossip = Gossip::default();
        hear(&mut gossip, "a:1", &["a:1", "b:1", "c:1"]);
        hear(&mut gossip, "b:1", &["b:1"]);
        assert_eq!(named(&gossip), ["b:1"]);
    }

    #[test]
    fn two_clusters_do_not_replace_each_other() {
        let mut gossip = Gossip::default();
        hear(&mut gossip, "a:1", &["a:1", "a2:1"]);
        hear(&mut gossip, "b:1", &["b:1", "b2:1"]);
        assert_eq!(named(&gossip), ["a2:1", "a:1", "b2:1", "b:1"]);
        gossip.keep_known(|speaker| speaker.host.starts_with('b'));
        assert_eq!(named(&gossip), ["b2:1", "b:1"]);
    }

    #[test]
    fn a_word_counts_while_somebody_known_led_to_its_speaker() {
        let mut gossip = Gossip::default();
        hear(&mut gossip, "a:1", &["a:1", "b:1"]);
        hear(&mut gossip, "b:1", &["b:1", "c:1"]);
        hear(&mut gossip, "c:1", &["c:1"]);
        gossip.keep_known(|speaker| &*speaker.host == "a");
        assert_eq!(named(&gossip), ["c:1"]);
        gossip.keep_known(|_| false);
        assert!(named(&gossip).is_empty());
    }

    #[test]
    fn gossip_is_bounded_and_garbage_is_left_out() {
        let mut gossip = Gossip::default();
        let many: Vec<String> = (1..100).map(|port| format!("h:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        hear(&mut gossip, "a:1", &many);
        assert_eq!(named(&gossip).len(), 8);
        for speaker in 0..100 {
            hear(&mut gossip, &format!("s{speaker}:1"), &[&format!("t{speaker}:1")]);
        }
        assert!(gossip.words.len() <= 8);
        let mut gossip = Gossip::default();
        hear(
            &mut gossip,
            "a:1",
            &["", "http://x", "a b:1", "[::1]:4222", "nats://c:1"],
        );
        assert_eq!(named(&gossip), ["[::1]:4222", "c:1"]);
    }
}
