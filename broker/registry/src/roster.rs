//! The last content of all sources, merged into a snapshot. This file has all rules for the three lists of the snapshot. It is pure
//! state, without I/O.
//!
//! | list | nodes |
//! |---|---|
//! | live | the last answer of ZooKeeper, and for each DNS name the last answer with nodes; errors change nothing |
//! | cached | the last nodes (from this process or the cache file) of each source that is empty, not yet read or of former settings; for an emptied source also nodes that had left it a short time before |
//! | fixed | the addresses in the settings, and nodes named in INFO |
//!
//! So if ZooKeeper becomes empty, its nodes move from live to cached, and remain there. But a node that leaves while others
//! remain is removed from both. [`ListMemory`] distinguishes the two cases.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Config;
use crate::dns::DnsName;
use crate::endpoint::Endpoint;
use crate::gossip::{Gossip, InfoReport};
use crate::list::{ListName, RememberedLists};
use crate::list_memory::ListMemory;
use crate::node::{Node, Source};
use crate::snapshot::Snapshot;
use crate::upstream::Credentials;

/// The nodes of all sources.
#[derive(Default)]
pub(crate) struct Roster {
    nodes_max: usize,
    /// Name of the list in ZooKeeper, if ZooKeeper is a source.
    zookeeper_list: Option<ListName>,
    zookeeper: Vec<Arc<Node>>,
    /// Name of the list from which `zookeeper` comes. After a change of the settings this is the former list, until the new one has
    /// been read.
    zookeeper_origin: Option<ListName>,
    dns: BTreeMap<DnsName, Vec<Arc<Node>>>,
    fixed: Vec<Arc<Node>>,
    uses_gossip: bool,
    gossip: Gossip,
    remembered: BTreeMap<ListName, ListMemory>,
}

impl Roster {
    /// Creates the state with the addresses in the settings, the nodes of the cache file, `remembered`, and those that other nodes have
    /// named to the former process.
    pub(crate) fn new(config: &Config, remembered: RememberedLists, gossip: Gossip, now: SystemTime) -> Self {
        let lists = remembered.into_iter();
        let lists = lists.map(|(list, nodes)| (list, ListMemory::of(nodes, now)));
        let mut roster = Self {
            remembered: lists.collect(),
            gossip,
            ..Self::default()
        };
        roster.reconfigure(config);
        roster
    }

    /// Changes the sources. Keeps the answers of sources that remain, and the former lists until they are replaced; see
    /// [`forget_former_lists`](Self::forget_former_lists).
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.nodes_max = config.nodes_max;
        self.zookeeper_list = config.zookeeper.as_ref().map(ListName::from);
        if self.zookeeper_list.is_none() {
            self.zookeeper.clear();
            self.zookeeper_origin = None;
        }
        let mut earlier = std::mem::take(&mut self.dns);
        let names = config.dns.iter();
        let names = names.map(|name| (name.clone(), earlier.remove(name).unwrap_or_default()));
        self.dns = names.collect();
        let fixed = config.fixed.iter().map(Node::from);
        self.fixed = fixed.map(Arc::new).collect();
        self.uses_gossip = config.gossip;
        if !config.gossip {
            self.gossip = Gossip::default();
        }
        // With fixed addresses only, no answer would ever replace the former lists.
        if config.zookeeper.is_none() && config.dns.is_empty() {
            self.remembered.clear();
        }
        self.forget_former_lists();
    }

    /// Takes an answer of ZooKeeper. Does nothing if ZooKeeper is no longer a source. Returns whether this is the first answer
    /// from the present list.
    pub(crate) fn set_zookeeper(&mut self, mut nodes: Vec<Arc<Node>>, now: SystemTime) -> bool {
        let Some(list) = &self.zookeeper_list else {
            return false;
        };
        nodes.truncate(self.nodes_max);
        let memory = self.remembered.entry(list.clone()).or_default();
        memory.take(&nodes, self.nodes_max, now);
        self.zookeeper = nodes;
        let before = self.zookeeper_origin.replace(list.clone());
        self.forget_former_lists();
        before != self.zookeeper_origin
    }

    /// Takes the answer for a DNS name. Does nothing if the name is no longer a source. If the name has no records, the nodes of
    /// the last answer remain live, and nodes that left a short time before are cached.
    pub(crate) fn set_dns(&mut self, name: &DnsName, mut nodes: Vec<Arc<Node>>, now: SystemTime) {
        nodes.truncate(self.nodes_max);
        let Some(answer) = self.dns.get_mut(name) else {
            return;
        };
        let memory = self.remembered.entry(name.into()).or_default();
        memory.take(&nodes, self.nodes_max, now);
        if !nodes.is_empty() {
            *answer = nodes;
        }
        self.forget_former_lists();
    }

    /// Takes the nodes of an INFO. Returns whether the named nodes have changed.
    pub(crate) fn take_info_report(&mut self, report: &InfoReport) -> bool {
        self.uses_gossip && self.gossip.take(report, self.nodes_max)
    }

    /// Returns the nodes that other nodes have named.
    pub(crate) fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    /// Returns the lists for the cache file.
    pub(crate) fn remembered(&self) -> RememberedLists {
        let lists = self.remembered.iter();
        lists
            .map(|(list, memory)| (list.clone(), memory.remembered()))
            .collect()
    }

    /// Forgets the lists of former settings that have been replaced. A list is replaced when its source has nodes with the new
    /// settings. If its source is no longer used, it is replaced when any source has nodes.
    fn forget_former_lists(&mut self) {
        let zookeeper_has_nodes = self.zookeeper_origin == self.zookeeper_list && !self.zookeeper.is_empty();
        let dns_has_nodes = self.dns.values().any(|nodes| !nodes.is_empty());
        let dns_lists = self.dns_lists();
        let (has_zookeeper, has_dns) = (self.zookeeper_list.is_some(), !self.dns.is_empty());
        self.remembered.retain(|list, _| {
            let is_replaced = match list.source {
                Source::ZooKeeper if has_zookeeper => zookeeper_has_nodes,
                Source::Dns if has_dns => dns_has_nodes,
                _ => zookeeper_has_nodes || dns_has_nodes,
            };
            let is_current = dns_lists.contains(list) || self.zookeeper_list.as_ref() == Some(list);
            is_current || !is_replaced
        });
    }

    fn dns_lists(&self) -> BTreeSet<ListName> {
        self.dns.keys().map(ListName::from).collect()
    }

    /// Returns the snapshot.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let mut seen = HashSet::new();
        let configured: HashMap<Endpoint, Arc<Credentials>> = self
            .fixed
            .iter()
            .filter_map(|node| Some((node.client.clone(), node.credentials.clone()?)))
            .collect();
        // A node of any source that has no credentials gets those in the settings for its address.
        let with_credentials = |node: &Arc<Node>| match configured.get(&node.client) {
            Some(credentials) if node.credentials.is_none() => Arc::new(Node {
                credentials: Some(Arc::clone(credentials)),
                ..Node::clone(node)
            }),
            _ => Arc::clone(node),
        };
        let mut unseen = |node: &&Arc<Node>| seen.insert(node.client.clone());

        let live = self.zookeeper.iter().chain(self.dns.values().flatten());
        let live: Vec<_> = live.filter(&mut unseen).map(with_credentials).collect();
        let dns_lists = self.dns_lists();
        let is_live = |list| dns_lists.contains(list) || self.zookeeper_origin.as_ref() == Some(list);
        let remembered_only = self
            .remembered
            .iter()
            .filter(|(list, memory)| memory.is_empty_or_unknown() || !is_live(list));
        let cached = remembered_only
            .flat_map(|(_, memory)| memory.nodes().take(self.nodes_max))
            .filter(&mut unseen)
            .map(with_credentials);
        let source = Source::Cache;
        let as_cached = |node: Arc<Node>| Node {
            source,
            ..Node::clone(&node)
        };
        let cached: Vec<_> = cached.map(as_cached).map(Arc::new).collect();
        let in_settings: Vec<_> = self.fixed.iter().filter(&mut unseen).cloned().collect();

        // An INFO is used only if its sender, or the sender of an INFO that it replaced, is from DNS or the settings. With ZooKeeper,
        // the operator decides by registration which nodes are used. That another node names a node is not enough.
        let (dns, fixed, remembered) = (&self.dns, &self.fixed, &self.remembered);
        self.gossip.keep_known(|sender| {
            let remembered = remembered
                .iter()
                .filter(|(list, _)| list.source == Source::Dns)
                .flat_map(|(_, memory)| memory.nodes());
            dns.values()
                .chain([fixed])
                .flatten()
                .chain(remembered)
                .any(|node| node.client == *sender)
        });
        let named = self
            .gossip
            .nodes()
            .filter(&mut unseen)
            .take(self.nodes_max)
            .map(with_credentials);
        let fixed = in_settings.into_iter().chain(named).collect();
        Snapshot {
            live,
            cached,
            fixed,
            registered: self.zookeeper.clone(),
            generation: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ZooKeeperConfig;
    use crate::list::RememberedNode;

    fn nodes(source: Source, hosts: &str) -> Vec<Arc<Node>> {
        let hosts = hosts.split_whitespace();
        let nodes = hosts.map(|host| Node::at(Endpoint::new(host, 1), source));
        nodes.map(Arc::new).collect()
    }

    fn config() -> Config {
        Config {
            zookeeper: Some(ZooKeeperConfig::new("h")),
            dns: vec!["d:1".parse().unwrap()],
            fixed: vec!["u:p@f:1".parse().unwrap()],
            ..Config::default()
        }
    }

    fn zookeeper() -> ListName {
        ListName::from(&ZooKeeperConfig::new("h"))
    }

    fn roster(config: Config) -> Roster {
        Roster::new(&config, BTreeMap::new(), Gossip::default(), SystemTime::now())
    }

    impl Roster {
        fn zookeeper_answers(&mut self, hosts: &str) {
            self.set_zookeeper(nodes(Source::ZooKeeper, hosts), SystemTime::now());
        }

        fn dns_answers(&mut self, name: &str, hosts: &str) {
            let nodes = nodes(Source::Dns, hosts);
            self.set_dns(&name.parse().unwrap(), nodes, SystemTime::now());
        }

        fn info(&mut self, from: &str, urls: &[&str]) -> bool {
            self.take_info_report(&InfoReport {
                from: from.parse().unwrap(),
                tls: false,
                credentials: None,
                connect_urls: urls.iter().map(ToString::to_string).collect(),
            })
        }

        /// Returns the hosts in the lists of the snapshot: `live | cached | fixed`, each `-` if it is empty.
        fn lists(&mut self) -> String {
            let Snapshot {
                live, cached, fixed, ..
            } = self.snapshot();
            let lists = [live, cached, fixed].map(|nodes| {
                let hosts: Vec<&str> = nodes.iter().map(|node| &*node.client.host).collect();
                if hosts.is_empty() {
                    "-".to_owned()
                } else {
                    hosts.join(" ")
                }
            });
            lists.join(" | ")
        }
    }

    #[test]
    fn a_node_is_in_the_first_of_the_lists_live_cached_and_fixed() {
        let remembered = nodes(Source::ZooKeeper, "a b f").into_iter();
        let remembered = remembered.map(|node| RememberedNode { node, left: None });
        let remembered = BTreeMap::from([(zookeeper(), remembered.collect())]);
        let mut roster = Roster::new(&config(), remembered, Gossip::default(), SystemTime::now());
        assert_eq!(roster.lists(), "- | a b f | -");
        let at_start = roster.snapshot();
        assert!(at_start.cached.iter().all(|node| node.source == Source::Cache));
        roster.dns_answers("d:1", "b d");
        assert_eq!(roster.lists(), "b d | a f | -");
        roster.zookeeper_answers("c d");
        assert_eq!(roster.lists(), "c d b | - | f");
    }

    #[test]
    fn nodes_of_an_emptied_zookeeper_are_cached() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a b");
        roster.zookeeper_answers("a");
        assert_eq!(roster.lists(), "a | - | f", "b has left while a remained");
        assert_eq!(roster.snapshot().len(), 2);
        roster.zookeeper_answers("");
        assert_eq!(roster.lists(), "- | a b | f");
        let kept = &roster.remembered()[&zookeeper()];
        assert_eq!(kept.len(), 2);
        assert!(
            kept.iter().all(|known| known.left.is_none()),
            "these nodes do not expire in the cache file"
        );
    }

    #[test]
    fn the_last_list_is_kept_until_a_new_source_has_returned_nodes() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a");
        let dns_only = Config {
            zookeeper: None,
            ..config()
        };
        roster.reconfigure(&dns_only);
        assert_eq!(roster.lists(), "- | a | f");
        roster.dns_answers("d:1", "d");
        assert_eq!(roster.lists(), "d | - | f");
        roster.reconfigure(&Config {
            dns: vec![],
            ..dns_only
        });
        // If there are only fixed addresses, no node of a former cluster may precede them.
        assert_eq!(roster.lists(), "- | - | f");
    }

    #[test]
    fn nodes_named_only_by_a_registered_node_are_not_used() {
        let mut roster = roster(config());
        roster.zookeeper_answers("z");
        roster.info("z:1", &["z:1", "not-registered:1"]);
        assert_eq!(roster.lists(), "z | - | f");
    }

    #[test]
    fn nodes_named_by_a_fixed_node_are_used_while_gossip_is_on() {
        let mut roster = roster(config());
        assert!(roster.info("f:1", &["f:1", "g:1"]));
        assert!(!roster.info("f:1", &["f:1", "g:1"]));
        assert_eq!(roster.lists(), "- | - | f g");
        assert_eq!(roster.snapshot().fixed[1].source, Source::Gossip);
        assert!(roster.info("stranger:1", &["s:1"]));
        assert_eq!(
            roster.lists(),
            "- | - | f g",
            "the INFO of an unknown node is ignored"
        );
        roster.reconfigure(&Config {
            gossip: false,
            ..config()
        });
        assert_eq!(roster.lists(), "- | - | f");
        assert!(!roster.info("f:1", &["g:1"]));
    }

    #[test]
    fn credentials_in_the_settings_are_used_for_a_node_of_any_source() {
        let mut roster = roster(config());
        roster.zookeeper_answers("f x");
        let live = roster.snapshot().live;
        assert_eq!(live[0].credentials.as_ref().unwrap().user.as_deref(), Some("u"));
        assert_eq!(live[1].credentials, None);
    }

    #[test]
    fn the_nodes_of_each_source_are_bounded() {
        let mut roster = roster(Config {
            nodes_max: 2,
            ..config()
        });
        roster.zookeeper_answers("a b c");
        assert_eq!(roster.lists(), "a b | - | f");
    }

    #[test]
    fn the_removal_of_a_duplicate_node_is_a_change_of_the_snapshot() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a a");
        let before = roster.snapshot();
        assert_eq!((before.live.len(), before.registered.len()), (1, 2));
        roster.zookeeper_answers("a");
        let after = roster.snapshot();
        assert_eq!(before.live, after.live);
        assert!(!after.same_nodes(&before));
    }

    #[test]
    fn unchanged_settings_forget_no_node() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a b c");
        roster.zookeeper_answers("b c");
        roster.reconfigure(&config());
        roster.zookeeper_answers("c");
        roster.zookeeper_answers("");
        assert_eq!(roster.lists(), "- | c b a | f");
    }

    #[test]
    fn nodes_that_had_left_a_former_path_are_not_remembered() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a b");
        roster.zookeeper_answers("b");
        let mut elsewhere = config();
        elsewhere.zookeeper.as_mut().unwrap().path = "/new".to_owned();
        roster.reconfigure(&elsewhere);
        assert_eq!(roster.lists(), "b | - | f", "the new path is not read yet");
        roster.zookeeper_answers("");
        assert_eq!(roster.lists(), "- | b | f");
        roster.zookeeper_answers("x");
        roster.zookeeper_answers("");
        assert_eq!(roster.lists(), "- | x | f");
    }

    #[test]
    fn a_name_without_records_keeps_its_last_answer_and_the_nodes_that_left_shortly_before() {
        let mut roster = roster(config());
        roster.dns_answers("d:1", "a b c");
        roster.dns_answers("d:1", "c");
        assert_eq!(roster.lists(), "c | - | f");
        roster.dns_answers("d:1", "");
        assert_eq!(roster.lists(), "c | a b | f");
    }

    #[test]
    fn the_nodes_of_the_cache_file_are_used_until_a_name_has_been_resolved() {
        let two = Config {
            zookeeper: None,
            dns: vec!["d:1".parse().unwrap(), "e:1".parse().unwrap()],
            ..config()
        };
        let mut first = roster(two.clone());
        first.dns_answers("d:1", "a");
        first.dns_answers("e:1", "b");
        let mut next = Roster::new(&two, first.remembered(), Gossip::default(), SystemTime::now());
        next.dns_answers("d:1", "a");
        assert_eq!(next.lists(), "a | b | f");
        assert_eq!(next.remembered().values().flatten().count(), 2);
    }

    #[test]
    fn the_former_list_is_kept_while_the_new_path_is_empty_whatever_dns_answers() {
        let mut roster = roster(config());
        roster.zookeeper_answers("a b");
        roster.dns_answers("d:1", "d");
        let elsewhere = Config {
            zookeeper: Some(ZooKeeperConfig::new("localhost")),
            ..config()
        };
        for (answer, lists) in [("", "d | a b | f"), ("x", "x d | - | f")] {
            roster.reconfigure(&elsewhere);
            roster.zookeeper_answers(answer);
            assert_eq!(roster.lists(), lists);
        }
    }
}
