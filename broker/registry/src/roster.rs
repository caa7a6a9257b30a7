//! What every source said last, folded into a snapshot. Pure state, no I/O: the rules of which word counts
//! when are all here.
//!
//! | list | made of |
//! |---|---|
//! | live | ZooKeeper's last answer and the last answer for each DNS name; an answer is replaced by an answer only |
//! | cached | for a list that says nothing: what it said last (in this process, else by the file), and who had left it shortly before |
//! | fixed | the operator's addresses, and what nodes named |
//!
//! An emptied ZooKeeper thereby moves its nodes from live to cached, and there they stay. A node that is gone
//! while others stay is gone from both; [`Memory`] tells the one from the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Config;
use crate::dns::DnsName;
use crate::endpoint::Endpoint;
use crate::gossip::{Gossip, Word};
use crate::list::{ListName, Lists};
use crate::memory::Memory;
use crate::node::{Node, Source};
use crate::snapshot::Snapshot;
use crate::upstream::Credentials;

/// The state.
pub(crate) struct Roster {
    nodes_max: usize,
    /// What is to be read in ZooKeeper, if anything.
    zookeeper_list: Option<ListName>,
    zookeeper: Vec<Arc<Node>>,
    /// Which list that is: after a change of the settings the one before, until the next has come.
    zookeeper_is: Option<ListName>,
    dns: BTreeMap<DnsName, Vec<Arc<Node>>>,
    fixed: Vec<Arc<Node>>,
    heeds_gossip: bool,
    gossip: Gossip,
    remembered: BTreeMap<ListName, Memory>,
}

impl Roster {
    /// Nothing known but the operator's list and what the cache file `remembered`.
    pub(crate) fn new(config: &Config, remembered: Lists, now: SystemTime) -> Self {
        let mut roster = Self {
            nodes_max: config.nodes_max,
            zookeeper_list: None,
            zookeeper: Vec::new(),
            zookeeper_is: None,
            dns: BTreeMap::new(),
            fixed: Vec::new(),
            heeds_gossip: false,
            gossip: Gossip::default(),
            remembered: remembered
                .into_iter()
                .map(|(list, nodes)| (list, Memory::of(nodes, now)))
                .collect(),
        };
        roster.reconfigure(config);
        roster
    }

    /// Takes over new sources; answers of sources that stay are kept, and the last good lists are in any case
    /// kept until a source of the new settings has given one.
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.nodes_max = config.nodes_max;
        self.zookeeper_list = config.zookeeper.as_ref().map(ListName::from);
        if self.zookeeper_list.is_none() {
            self.zookeeper.clear();
            self.zookeeper_is = None;
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
        if !config.has_knowing_source() {
            self.remembered.clear();
        }
        self.forget_former_lists();
    }

    /// ZooKeeper's answer; ignored when it is no source any more. Returns whether it is of another list than the one before.
    pub(crate) fn set_zookeeper(&mut self, mut nodes: Vec<Arc<Node>>, now: SystemTime) -> bool {
        let Some(list) = &self.zookeeper_list else {
            return false;
        };
        nodes.truncate(self.nodes_max);
        let memory = self.remembered.entry(list.clone()).or_default();
        memory.take(&nodes, self.nodes_max, now);
        self.zookeeper = nodes;
        let before = self.zookeeper_is.replace(list.clone());
        self.forget_former_lists();
        before != self.zookeeper_is
    }

    /// The answer for one DNS name; ignored when the name is no source any more. When there is nothing under the name the last answer
    /// stays live, and who had left it shortly before counts again.
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

    /// What a node named; true when that changed anything.
    pub(crate) fn hear(&mut self, word: &Word) -> bool {
        self.heeds_gossip && self.gossip.hear(word, self.nodes_max)
    }

    /// The lists to keep for a cold start.
    pub(crate) fn remembered(&self) -> Lists {
        let lists = self.remembered.iter();
        lists
            .map(|(list, memory)| (list.clone(), memory.kept()))
            .collect()
    }

    /// How many nodes are known by gossip.
    pub(crate) fn gossip_nodes(&self) -> usize {
        self.gossip.nodes().count()
    }

    /// A list of former settings is kept until one of its source has said something today, or of the other where its source is none any
    /// more.
    fn forget_former_lists(&mut self) {
        let zookeeper_says = self.zookeeper_is == self.zookeeper_list && !self.zookeeper.is_empty();
        let dns_says = self.dns.values().any(|nodes| !nodes.is_empty());
        let dns_lists = self.dns_lists();
        let (has_zookeeper, has_dns) = (self.zookeeper_list.is_some(), !self.dns.is_empty());
        self.remembered.retain(|list, _| {
            let is_replaced = match list.source {
                Source::ZooKeeper if has_zookeeper => zookeeper_says,
                Source::Dns if has_dns => dns_says,
                _ => zookeeper_says || dns_says,
            };
            let is_current = dns_lists.contains(list) || self.zookeeper_list.as_ref() == Some(list);
            is_current || !is_replaced
        });
    }

    fn dns_lists(&self) -> BTreeSet<ListName> {
        self.dns.keys().map(ListName::from).collect()
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
        let dns_lists = self.dns_lists();
        let is_live = |list| dns_lists.contains(list) || self.zookeeper_is.as_ref() == Some(list);
        let silent = self
            .remembered
            .iter()
            .filter(|(list, memory)| memory.is_silent() || !is_live(list));
        let cached = silent
            .flat_map(|(_, memory)| memory.nodes().take(self.nodes_max))
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
            let remembered = remembered
                .iter()
                .filter(|(list, _)| list.source == Source::Dns)
                .flat_map(|(_, memory)| memory.nodes());
            dns.values()
                .chain([fixed])
                .flatten()
                .chain(remembered)
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
    use crate::list::Remembered;

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

    fn zookeeper_says(roster: &mut Roster, hosts: &[&str]) {
        roster.set_zookeeper(nodes(Source::ZooKeeper, hosts), SystemTime::now());
    }

    fn dns_says(roster: &mut Roster, name: &str, hosts: &[&str]) {
        roster.set_dns(
            &name.parse().unwrap(),
            nodes(Source::Dns, hosts),
            SystemTime::now(),
        );
    }

    fn zookeeper() -> ListName {
        ListName::from(&ZooKeeperConfig::new("h"))
    }

    fn roster(config: Config) -> Roster {
        Roster::new(&config, BTreeMap::new(), SystemTime::now())
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
        let remembered = nodes(Source::ZooKeeper, &["a", "b", "f"]).into_iter();
        let remembered = remembered.map(|node| Remembered { node, left: None });
        let remembered = BTreeMap::from([(zookeeper(), remembered.collect())]);
        let mut roster = Roster::new(&config(), remembered, SystemTime::now());
        let cold = roster.snapshot();
        assert_eq!(
            (hosts(&cold.live), hosts(&cold.cached)),
            (vec![], vec!["a", "b", "f"])
        );
        assert!(cold.cached.iter().all(|node| node.source == Source::Cache));
        assert!(cold.fixed.is_empty(), "f is in the cached list already");

        dns_says(&mut roster, "d:1", &["b", "d"]);
        let mixed = roster.snapshot();
        assert_eq!(hosts(&mixed.live), ["b", "d"]);
        assert_eq!(hosts(&mixed.cached), ["a", "f"]);

        zookeeper_says(&mut roster, &["c", "d"]);
        let warm = roster.snapshot();
        assert_eq!(hosts(&warm.live), ["c", "d", "b"]);
        assert_eq!((hosts(&warm.cached), hosts(&warm.fixed)), (vec![], vec!["f"]));
    }

    #[test]
    fn an_emptied_zookeeper_moves_its_nodes_to_the_cached_list() {
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["a", "b"]);
        zookeeper_says(&mut roster, &["a"]);
        assert_eq!(
            roster.snapshot().len(),
            2,
            "b is gone while a stays: a and the fixed one"
        );
        zookeeper_says(&mut roster, &[]);
        let emptied = roster.snapshot();
        assert_eq!(
            (hosts(&emptied.live), hosts(&emptied.cached)),
            (vec![], vec!["a", "b"])
        );
        let kept = &roster.remembered()[&zookeeper()];
        assert_eq!(kept.len(), 2);
        assert!(
            kept.iter().all(|known| known.left.is_none()),
            "however late it is read"
        );
    }

    #[test]
    fn new_sources_do_not_lose_the_last_good_list_before_they_have_given_one() {
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["a"]);
        let dns_only = Config {
            zookeeper: None,
            ..config()
        };
        roster.reconfigure(&dns_only);
        assert_eq!(hosts(&roster.snapshot().cached), ["a"]);
        dns_says(&mut roster, "d:1", &["d"]);
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
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["z"]);
        roster.hear(&word("z:1", &["z:1", "not-registered:1"]));
        let snapshot = roster.snapshot();
        assert_eq!(hosts(&snapshot.live), ["z"]);
        assert_eq!(hosts(&snapshot.fixed), ["f"]);
    }

    #[test]
    fn nodes_named_by_a_fixed_one_are_known_while_gossip_is_on() {
        let mut roster = roster(config());
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
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["f", "x"]);
        let live = roster.snapshot().live;
        assert_eq!(live[0].credentials.as_ref().unwrap().user.as_deref(), Some("u"));
        assert_eq!(live[1].credentials, None);
    }

    #[test]
    fn each_source_is_bounded() {
        let mut roster = roster(Config {
            nodes_max: 2,
            ..config()
        });
        zookeeper_says(&mut roster, &["a", "b", "c"]);
        assert_eq!(hosts(&roster.snapshot().live), ["a", "b"]);
    }

    #[test]
    fn a_change_among_nodes_of_one_address_is_a_change() {
        let mut roster = roster(config());
        let mut both = nodes(Source::ZooKeeper, &["a", "a"]);
        roster.set_zookeeper(both.clone(), SystemTime::now());
        let before = roster.snapshot();
        assert_eq!((before.live.len(), before.registered.len()), (1, 2));
        both.pop();
        roster.set_zookeeper(both, SystemTime::now());
        let after = roster.snapshot();
        assert_eq!(before.live, after.live);
        assert!(!after.same_nodes(&before));
    }

    #[test]
    fn settings_taken_over_unchanged_forget_nobody() {
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["a", "b", "c"]);
        zookeeper_says(&mut roster, &["b", "c"]);
        roster.reconfigure(&config());
        zookeeper_says(&mut roster, &["c"]);
        zookeeper_says(&mut roster, &[]);
        assert_eq!(hosts(&roster.snapshot().cached), ["c", "b", "a"]);
    }

    #[test]
    fn another_path_brings_back_nobody_who_had_left_the_one_before() {
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["a", "b"]);
        zookeeper_says(&mut roster, &["b"]);
        let mut elsewhere = ZooKeeperConfig::new("h");
        elsewhere.path = "/new".to_owned();
        roster.reconfigure(&Config {
            zookeeper: Some(elsewhere),
            ..config()
        });
        assert_eq!(hosts(&roster.snapshot().live), ["b"], "until there is an answer");
        zookeeper_says(&mut roster, &[]);
        let snapshot = roster.snapshot();
        assert_eq!(
            (hosts(&snapshot.live), hosts(&snapshot.cached)),
            (vec![], vec!["b"])
        );
        zookeeper_says(&mut roster, &["x"]);
        zookeeper_says(&mut roster, &[]);
        assert_eq!(hosts(&roster.snapshot().cached), ["x"]);
    }

    #[test]
    fn a_name_without_records_keeps_its_last_answer_and_has_those_back_who_left_shortly_before() {
        let mut roster = roster(config());
        dns_says(&mut roster, "d:1", &["a", "b", "c"]);
        dns_says(&mut roster, "d:1", &["c"]);
        assert!(roster.snapshot().cached.is_empty());
        dns_says(&mut roster, "d:1", &[]);
        let snapshot = roster.snapshot();
        assert_eq!(
            (hosts(&snapshot.live), hosts(&snapshot.cached)),
            (vec!["c"], vec!["a", "b"])
        );
    }

    #[test]
    fn a_name_that_has_not_answered_yet_keeps_what_the_file_knew() {
        let two = Config {
            zookeeper: None,
            dns: vec!["d:1".parse().unwrap(), "e:1".parse().unwrap()],
            ..config()
        };
        let mut first = roster(two.clone());
        dns_says(&mut first, "d:1", &["a"]);
        dns_says(&mut first, "e:1", &["b"]);
        let mut next = Roster::new(&two, first.remembered(), SystemTime::now());
        dns_says(&mut next, "d:1", &["a"]);
        let snapshot = next.snapshot();
        assert_eq!(
            (hosts(&snapshot.live), hosts(&snapshot.cached)),
            (vec!["a"], vec!["b"])
        );
        assert_eq!(next.remembered().values().flatten().count(), 2);
    }

    #[test]
    fn another_path_that_says_nothing_keeps_the_list_before_whatever_dns_says() {
        let mut roster = roster(config());
        zookeeper_says(&mut roster, &["a", "b"]);
        dns_says(&mut roster, "d:1", &["d"]);
        let elsewhere = Config {
            zookeeper: Some(ZooKeeperConfig::new("localhost")),
            ..config()
        };
        for answer in [&[][..], &["x"]] {
            roster.reconfigure(&elsewhere);
            zookeeper_says(&mut roster, answer);
            let cached: &[&str] = if answer.is_empty() { &["a", "b"] } else { &[] };
            assert_eq!(hosts(&roster.snapshot().cached), cached);
        }
    }
}
