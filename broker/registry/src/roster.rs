//! What every source said last, folded into a snapshot. Pure state, no I/O: the rules of which word counts
//! when are all here.
//!
//! | list | made of |
//! |---|---|
//! | live | ZooKeeper's last answer and the last answer for each DNS name; an answer is replaced by an answer only |
//! | cached | for a source whose answer is empty or missing: its last one that was not (in this process, else from the file), and who had left it shortly before |
//! | fixed | the operator's addresses, and what nodes named |
//!
//! An emptied ZooKeeper thereby moves its nodes from live to cached, and there they stay. A node that is gone
//! while others stay is gone from both; [`Memory`] tells the one from the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::dns::DnsName;
use crate::endpoint::Endpoint;
use crate::gossip::{Gossip, Word};
use crate::memory::Memory;
use crate::node::{Node, Source};
use crate::snapshot::Snapshot;
use crate::upstream::Credentials;

/// The state.
pub(crate) struct Roster {
    nodes_max: usize,
    has_zookeeper: bool,
    zookeeper: Vec<Arc<Node>>,
    dns: BTreeMap<DnsName, Vec<Arc<Node>>>,
    fixed: Vec<Arc<Node>>,
    heeds_gossip: bool,
    gossip: Gossip,
    remembered: BTreeMap<Source, Memory>,
}

impl Roster {
    /// Nothing known but the operator's list and what the cache file `remembered`.
    pub(crate) fn new(config: &Config, remembered: BTreeMap<Source, Vec<Arc<Node>>>) -> Self {
        let mut roster = Self {
            nodes_max: config.nodes_max,
            has_zookeeper: false,
            zookeeper: Vec::new(),
            dns: BTreeMap::new(),
            fixed: Vec::new(),
            heeds_gossip: false,
            gossip: Gossip::default(),
            remembered: remembered
                .into_iter()
                .map(|(source, nodes)| (source, Memory::of(nodes)))
                .collect(),
        };
        roster.reconfigure(config);
        roster
    }

    /// Takes over new sources; answers of sources that stay are kept, and the last good lists are in any case
    /// kept until a source of the new settings has given one.
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.nodes_max = config.nodes_max;
        self.has_zookeeper = config.zookeeper.is_some();
        if !self.has_zookeeper {
            self.zookeeper.clear();
        }
        let mut earlier = std::mem::take(&mut self.dns);
        self.dns = config
            .dns
            .iter()
            .map(|name| (name.clone(), earlier.remove(name).unwrap_or_default()))
            .collect();
        self.fixed = config
            .fixed
            .iter()
            .map(|upstream| Arc::new(Node::from(upstream)))
            .collect();
        self.heeds_gossip = config.gossip;
        if !config.gossip {
            self.gossip = Gossip::default();
        }
        self.remembered
            .values_mut()
            .for_each(Memory::is_of_former_settings);
        if !config.has_knowing_source() {
            self.remembered.clear();
        }
        self.forget_former_sources();
    }

    /// ZooKeeper's answer.
    pub(crate) fn set_zookeeper(&mut self, mut nodes: Vec<Arc<Node>>, now: Instant) {
        nodes.truncate(self.nodes_max);
        let memory = self.remembered.entry(Source::ZooKeeper).or_default();
        memory.take(&nodes, self.nodes_max, now);
        self.zookeeper = nodes;
        self.forget_former_sources();
    }

    /// The answer for one DNS name; ignored when the name is no source any more.
    pub(crate) fn set_dns(&mut self, name: &DnsName, mut nodes: Vec<Arc<Node>>, now: Instant) {
        nodes.truncate(self.nodes_max);
        let Some(answer) = self.dns.get_mut(name) else {
            return;
        };
        *answer = nodes;
        let all: Vec<Arc<Node>> = self.dns.values().flatten().cloned().collect();
        let memory = self.remembered.entry(Source::Dns).or_default();
        memory.take(&all, self.nodes_max, now);
        self.forget_former_sources();
    }

    /// What a node named; true when that changed anything.
    pub(crate) fn hear(&mut self, word: &Word) -> bool {
        self.heeds_gossip && self.gossip.hear(word, self.nodes_max)
    }

    /// The lists to keep for a cold start.
    pub(crate) fn remembered(&self) -> BTreeMap<Source, Vec<Arc<Node>>> {
        let lists = self.remembered.iter();
        lists
            .map(|(source, memory)| (*source, memory.nodes().to_vec()))
            .collect()
    }

    /// How many nodes are known by gossip.
    pub(crate) fn gossip_nodes(&self) -> usize {
        self.gossip.nodes().count()
    }

    fn forget_former_sources(&mut self) {
        if self.zookeeper.is_empty() && self.dns.values().all(Vec::is_empty) {
            return;
        }
        let (has_zookeeper, has_dns) = (self.has_zookeeper, !self.dns.is_empty());
        self.remembered.retain(|source, _| match source {
            Source::ZooKeeper => has_zookeeper,
            Source::Dns => has_dns,
            _ => false,
        });
    }

    fn has_answer(&self, source: Source) -> bool {
        match source {
            Source::ZooKeeper => !self.zookeeper.is_empty(),
            Source::Dns => self.dns.values().any(|nodes| !nodes.is_empty()),
            _ => false,
        }
    }

    /// All of it as one snapshot, no endpoint twice.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let mut seen = HashSet::new();
        let by_hand: HashMap<Endpoint, Arc<Credentials>> = self
            .fixed
            .iter()
            .filter_map(|node| Some((node.client.clone(), node.credentials.clone()?)))
            .collect();
        // Credentials given by hand for an address are meant for the node there, whoever names it.
        let with_credentials = |node: &Arc<Node>| match by_hand.get(&node.client) {
            Some(credentials) if node.credentials.is_none() => Arc::new(Node {
                credentials: Some(Arc::clone(credentials)),
                ..Node::clone(node)
            }),
            _ => Arc::clone(node),
        };
        let mut unseen = |node: &&Arc<Node>| seen.insert(node.client.clone());

        let live = self.zookeeper.iter().chain(self.dns.values().flatten());
        let live: Vec<_> = live.filter(&mut unseen).map(with_credentials).collect();
        let silent = self
            .remembered
            .iter()
            .filter(|(source, _)| !self.has_answer(**source));
        let cached = silent
            .flat_map(|(_, memory)| memory.nodes())
            .filter(&mut unseen)
            .map(with_credentials);
        let cached: Vec<_> = cached
            .map(|node| {
                Arc::new(Node {
                    source: Source::Cache,
                    ..Node::clone(&node)
                })
            })
            .collect();
        let fixed_here: Vec<_> = self.fixed.iter().filter(&mut unseen).cloned().collect();

        // Only nodes from DNS or given by hand speak for others. Who registers in ZooKeeper decides there which nodes are used:
        // one that is not registered, or no longer, must not come in by another's word.
        let (dns, fixed, remembered) = (&self.dns, &self.fixed, &self.remembered);
        self.gossip.keep_known(|speaker| {
            dns.values()
                .chain([fixed])
                .flatten()
                .chain(remembered.get(&Source::Dns).map_or(&[][..], Memory::nodes))
                .any(|node| node.client == *speaker)
        });
        let named = self
            .gossip
            .nodes()
            .filter(&mut unseen)
            .take(self.nodes_max)
            .map(with_credentials);
        let fixed = fixed_here.into_iter().chain(named).collect();
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

    fn nodes(source: Source, hosts: &[&str]) -> Vec<Arc<Node>> {
        hosts
            .iter()
            .map(|host| Arc::new(Node::at(Endpoint::new(*host, 1), source)))
            .collect()
    }

    fn hosts(nodes: &[Arc<Node>]) -> Vec<&str> {
        nodes.iter().map(|node| &*node.client.host).collect()
    }

    fn config() -> Config {
        Config {
            zookeeper: Some(ZooKeeperConfig::new("h")),
            dns: vec!["d:1".parse().unwrap()],
            fixed: vec!["u:p@f:1".parse().unwrap()],
            ..Config::default()
        }
    }

    fn word(from: &str, urls: &[&str]) -> Word {
        let connect_urls = urls.iter().map(ToString::to_string).collect();
        Word {
            from: from.parse().unwrap(),
            tls: false,
            inherit: None,
            connect_urls,
        }
    }

    #[test]
    fn the_order_is_live_then_cached_then_fixed_and_no_endpoint_is_twice() {
        let remembered = BTreeMap::from([(Source::ZooKeeper, nodes(Source::ZooKeeper, &["a", "b", "f"]))]);
        let mut roster = Roster::new(&config(), remembered);
        let cold = roster.snapshot();
        assert_eq!(
            (hosts(&cold.live), hosts(&cold.cached)),
            (vec![], vec!["a", "b", "f"])
        );
        assert!(cold.cached.iter().all(|node| node.source == Source::Cache));
        assert!(cold.fixed.is_empty(), "f is in the cached list already");

        roster.set_dns(
            &"d:1".parse().unwrap(),
            nodes(Source::Dns, &["b", "d"]),
            Instant::now(),
        );
        let mixed = roster.snapshot();
        assert_eq!(hosts(&mixed.live), ["b", "d"]);
        assert_eq!(hosts(&mixed.cached), ["a", "f"]);

        roster.set_zookeeper(nodes(Source::ZooKeeper, &["c", "d"]), Instant::now());
        let warm = roster.snapshot();
        assert_eq!(hosts(&warm.live), ["c", "d", "b"]);
        assert_eq!((hosts(&warm.cached), hosts(&warm.fixed)), (vec![], vec!["f"]));
    }

    #[test]
    fn an_emptied_zookeeper_moves_its_nodes_to_the_cached_list() {
        let mut roster = Roster::new(&config(), BTreeMap::new());
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["a", "b"]), Instant::now());
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["a"]), Instant::now());
        assert_eq!(
            roster.snapshot().len(),
            2,
            "b is gone while a stays: a and the fixed one"
        );
        roster.set_zookeeper(vec![], Instant::now());
        let emptied = roster.snapshot();
        assert_eq!(
            (hosts(&emptied.live), hosts(&emptied.cached)),
            (vec![], vec!["a", "b"])
        );
        assert_eq!(hosts(&roster.remembered()[&Source::ZooKeeper]), ["a", "b"]);
    }

    #[test]
    fn new_sources_do_not_lose_the_last_good_list_before_they_have_given_one() {
        let mut roster = Roster::new(&config(), BTreeMap::new());
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["a"]), Instant::now());
        let dns_only = Config {
            zookeeper: None,
            ..config()
        };
        roster.reconfigure(&dns_only);
        assert_eq!(hosts(&roster.snapshot().cached), ["a"]);
        roster.set_dns(
            &"d:1".parse().unwrap(),
            nodes(Source::Dns, &["d"]),
            Instant::now(),
        );
        let after = roster.snapshot();
        assert_eq!((hosts(&after.live), hosts(&after.cached)), (vec!["d"], vec![]));
        roster.reconfigure(&Config {
            dns: vec![],
            ..dns_only
        });
        assert!(
            roster.snapshot().cached.is_empty(),
            "with a fixed list alone an old cluster must not come before it"
        );
    }

    #[test]
    fn nodes_named_by_a_registered_one_only_are_not_used() {
        let mut roster = Roster::new(&config(), BTreeMap::new());
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["z"]), Instant::now());
        roster.hear(&word("z:1", &["z:1", "not-registered:1"]));
        let snapshot = roster.snapshot();
        assert_eq!(hosts(&snapshot.live), ["z"]);
        assert_eq!(hosts(&snapshot.fixed), ["f"]);
    }

    #[test]
    fn nodes_named_by_a_fixed_one_are_known_while_gossip_is_on() {
        let mut roster = Roster::new(&config(), BTreeMap::new());
        assert!(roster.hear(&word("f:1", &["f:1", "g:1"])));
        assert!(!roster.hear(&word("f:1", &["f:1", "g:1"])));
        let snapshot = roster.snapshot();
        assert_eq!(hosts(&snapshot.fixed), ["f", "g"]);
        assert_eq!(snapshot.fixed[1].source, Source::Gossip);
        assert!(roster.hear(&word("stranger:1", &["s:1"])));
        assert_eq!(
            hosts(&roster.snapshot().fixed),
            ["f", "g"],
            "the word of an unknown node does not count"
        );
        roster.reconfigure(&Config {
            gossip: false,
            ..config()
        });
        assert_eq!(hosts(&roster.snapshot().fixed), ["f"]);
        assert!(!roster.hear(&word("f:1", &["g:1"])));
    }

    #[test]
    fn credentials_given_by_hand_hold_whoever_names_the_node() {
        let mut roster = Roster::new(&config(), BTreeMap::new());
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["f", "x"]), Instant::now());
        let live = roster.snapshot().live;
        assert_eq!(live[0].credentials.as_ref().unwrap().user.as_deref(), Some("u"));
        assert_eq!(live[1].credentials, None);
    }

    #[test]
    fn each_source_is_bounded() {
        let mut roster = Roster::new(
            &Config {
                nodes_max: 2,
                ..config()
            },
            BTreeMap::new(),
        );
        roster.set_zookeeper(nodes(Source::ZooKeeper, &["a", "b", "c"]), Instant::now());
        assert_eq!(hosts(&roster.snapshot().live), ["a", "b"]);
    }
}
