//! The book of nodes: which one a session tries next, which are cooling down after a failure, how many are being dialled.
//!
//! Choice: random among the live nodes that are not cooling down; then the cached ones, then the fixed ones; if all are
//! cooling down, all are tried. A cool-down is a random time below a bound that doubles with each failure in a row.
//!
//! *Architecture invariant:* looked at when a session needs a node, never for a message.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use standin_registry::{Endpoint, Node, NodeState, Snapshot};
use tokio::sync::Semaphore;

/// The settings of the choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// Bound of the first cool-down.
    pub(crate) cooldown_base: Duration,
    /// Bound of the longest.
    pub(crate) cooldown_max: Duration,
    /// Connections to one node that may be in the making at the same time.
    pub(crate) dials_max: usize,
}

/// What is known of a node beyond its record.
#[derive(Debug)]
struct Entry {
    failures: u32,
    cooling_until: Option<Instant>,
    last_error: String,
    sessions: usize,
    dials: Arc<Semaphore>,
}

/// What `/nodez` shows of a node beyond its record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) failures: u32,
    pub(crate) cooling: Duration,
    pub(crate) last_error: String,
    pub(crate) sessions: usize,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct NodeBook {
    choice: Mutex<Choice>,
    entries: Mutex<HashMap<Endpoint, Entry>>,
    searching: AtomicUsize,
    /// Where the sidecar itself listens: never a node.
    own: OnceLock<Vec<SocketAddr>>,
    /// Addresses of nodes that turned out to be the sidecar itself. Not tried again: each try would be a component of its own,
    /// which tries the same.
    own_names: Mutex<HashSet<Endpoint>>,
}

impl NodeBook {
    pub(crate) fn new(choice: Choice) -> Self {
        Self {
            choice: Mutex::new(choice),
            entries: Mutex::default(),
            searching: AtomicUsize::new(0),
            own: OnceLock::new(),
            own_names: Mutex::default(),
        }
    }

    /// The sidecar listens there. Told once.
    pub(crate) fn set_own(&self, addresses: &[SocketAddr]) {
        self.own.get_or_init(|| addresses.to_vec());
    }

    /// Whether a connection to `peer` that goes out from `local` ends at the sidecar itself: then it is the same host, and a
    /// port that the sidecar listens on at that address or at all of them.
    pub(crate) fn is_own(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let here = peer.ip() == local.ip() || peer.ip().is_loopback();
        self.own.get().into_iter().flatten().any(|own| {
            own.port() == peer.port() && (own.ip() == peer.ip() || own.ip().is_unspecified() && here)
        })
    }

    /// `node` is the sidecar itself.
    pub(crate) fn met_itself(&self, node: &Endpoint) {
        lock(&self.own_names).insert(node.clone());
    }

    /// Other settings from now on.
    pub(crate) fn set_choice(&self, choice: Choice) {
        let before = std::mem::replace(&mut *lock(&self.choice), choice).dials_max;
        let more = choice.dials_max.checked_sub(before);
        for entry in lock(&self.entries).values_mut() {
            match more {
                // Those who wait for their turn already are served by it.
                Some(more) => entry.dials.add_permits(more),
                // Dials under way keep their place; new ones are counted anew.
                None => entry.dials = Arc::new(Semaphore::new(choice.dials_max)),
            }
        }
    }

    /// The nodes of `snapshot` in the order in which they are to be tried. `avoid` is tried last of all.
    pub(crate) fn candidates(
        &self,
        snapshot: &Snapshot,
        avoid: Option<&Endpoint>,
        now: Instant,
    ) -> Vec<Arc<Node>> {
        let mut ranked: Vec<(u8, Option<Instant>, f64, &Arc<Node>)> = Vec::new();
        let own_names = lock(&self.own_names);
        let entries = lock(&self.entries);
        let mut rng = rand::rng();
        for (tier, nodes) in [&snapshot.live, &snapshot.cached, &snapshot.fixed]
            .into_iter()
            .enumerate()
        {
            for node in nodes.iter().filter(|node| !own_names.contains(&node.client)) {
                let cooling = entries.get(&node.client).and_then(|entry| entry.cooling_until);
                let cooling = cooling.filter(|until| *until > now);
                let tier = match cooling {
                    _ if avoid == Some(&node.client) => 9,
                    Some(_) => 8,
                    None if node.state == NodeState::Draining => 7,
                    None => tier as u8,
                };
                // The smallest of exponential draws with the weights as rates: a choice by weight.
                let draw = -rng.random::<f64>().max(f64::MIN_POSITIVE).ln() / f64::from(node.weight.max(1));
                ranked.push((tier, cooling, draw, node));
            }
        }
        ranked.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        ranked.into_iter().map(|(.., node)| Arc::clone(node)).collect()
    }

    /// The permits for dialling `node`.
    pub(crate) fn dials(&self, node: &Endpoint) -> Arc<Semaphore> {
        let dials_max = lock(&self.choice).dials_max;
        Arc::clone(&entry(&mut lock(&self.entries), node, dials_max).dials)
    }

    /// Whether `node` is cooling down.
    pub(crate) fn is_cooling(&self, node: &Endpoint, now: Instant) -> bool {
        let until = lock(&self.entries)
            .get(node)
            .and_then(|entry| entry.cooling_until);
        until.is_some_and(|until| until > now)
    }

    /// `node` failed: it cools down. Returns for how long.
    pub(crate) fn failed(&self, node: &Endpoint, error: &str, now: Instant) -> Duration {
        let choice = *lock(&self.choice);
        let mut entries = lock(&self.entries);
        let entry = entry(&mut entries, node, choice.dials_max);
        // Sessions that lose the same node at the same moment tell of one failure.
        if entry.cooling_until.is_some_and(|until| until > now) {
            return Duration::ZERO;
        }
        let bound = choice
            .cooldown_base
            .saturating_mul(1 << entry.failures.min(20))
            .min(choice.cooldown_max);
        let cooling = choice
            .cooldown_base
            .max(bound.mul_f64(rand::rng().random::<f64>()));
        entry.failures += 1;
        entry.cooling_until = Some(now + cooling);
        error.clone_into(&mut entry.last_error);
        cooling
    }

    /// `node` took a session whole.
    pub(crate) fn succeeded(&self, node: &Endpoint) {
        if let Some(entry) = lock(&self.entries).get_mut(node) {
            entry.failures = 0;
            entry.cooling_until = None;
        }
    }

    /// A session uses `node` from now on, or no longer.
    pub(crate) fn count_session(&self, node: &Endpoint, uses: bool) {
        let dials_max = lock(&self.choice).dials_max;
        let mut entries = lock(&self.entries);
        let sessions = &mut entry(&mut entries, node, dials_max).sessions;
        *sessions = if uses {
            *sessions + 1
        } else {
            sessions.saturating_sub(1)
        };
    }

    /// Forgets nodes that no source names any more and no session uses.
    pub(crate) fn forget_gone(&self, snapshot: &Snapshot, now: Instant) {
        let named = |node: &Endpoint| {
            let mut all = snapshot
                .live
                .iter()
                .chain(&snapshot.cached)
                .chain(&snapshot.fixed);
            all.any(|known| known.client == *node)
        };
        lock(&self.entries).retain(|node, entry| {
            entry.sessions > 0 || entry.cooling_until.is_some_and(|until| until > now) || named(node)
        });
    }

    /// What is known of `node` beyond its record.
    pub(crate) fn standing(&self, node: &Endpoint, now: Instant) -> Standing {
        lock(&self.entries)
            .get(node)
            .map_or_else(Standing::default, |entry| Standing {
                failures: entry.failures,
                cooling: entry
                    .cooling_until
                    .map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
                last_error: entry.last_error.clone(),
                sessions: entry.sessions,
            })
    }

    /// A session that lost its node looks for another: kept as long as it does, so that many at once spread out.
    pub(crate) fn searcher(self: &Arc<Self>) -> Searcher {
        let others = self.searching.fetch_add(1, Ordering::Relaxed);
        Searcher {
            book: Arc::clone(self),
            others,
        }
    }
}

/// One session without a node.
#[derive(Debug)]
pub(crate) struct Searcher {
    book: Arc<NodeBook>,
    others: usize,
}

impl Searcher {
    /// A random wait before the first dial, longer the more sessions search. As many as may dial at the same time need not
    /// wait for each other, and their components hear again some milliseconds sooner.
    pub(crate) fn spread(&self, per_session: Duration, max: Duration) -> Duration {
        let dials_max = lock(&self.book.choice).dials_max;
        let waiting = u32::try_from(self.others.saturating_sub(dials_max)).unwrap_or(u32::MAX);
        per_session
            .saturating_mul(waiting)
            .min(max)
            .mul_f64(rand::rng().random::<f64>())
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        self.book.searching.fetch_sub(1, Ordering::Relaxed);
    }
}

fn entry<'e>(entries: &'e mut HashMap<Endpoint, Entry>, node: &Endpoint, dials_max: usize) -> &'e mut Entry {
    entries.entry(node.clone()).or_insert_with(|| Entry {
        failures: 0,
        cooling_until: None,
        last_error: String::new(),
        sessions: 0,
        dials: Arc::new(Semaphore::new(dials_max)),
    })
}

/// A panic elsewhere must not take the other sessions down: the data are counters, good enough after any of them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::node;

    fn book() -> NodeBook {
        let choice = Choice {
            cooldown_base: Duration::from_millis(100),
            cooldown_max: Duration::from_secs(1),
            dials_max: 2,
        };
        NodeBook::new(choice)
    }

    fn snapshot(live: &[&str], cached: &[&str], fixed: &[&str]) -> Snapshot {
        let nodes = |names: &[&str]| names.iter().map(|name| Arc::new(node(name))).collect();
        Snapshot {
            live: nodes(live),
            cached: nodes(cached),
            fixed: nodes(fixed),
            registered: Vec::new(),
            generation: 1,
        }
    }

    fn first(book: &NodeBook, snapshot: &Snapshot, now: Instant) -> String {
        book.candidates(snapshot, None, now)[0].client.to_string()
    }

    #[test]
    fn the_number_of_dials_changes_for_nodes_met_before_too() {
        let book = book();
        let node = node("a:1").client;
        let dials = |max| {
            let choice = *lock(&book.choice);
            book.set_choice(Choice {
                dials_max: max,
                ..choice
            });
            book.dials(&node).available_permits()
        };
        assert_eq!(book.dials(&node).available_permits(), 2);
        let waiting_for = book.dials(&node);
        assert_eq!(dials(16), 16);
        assert_eq!(
            waiting_for.available_permits(),
            16,
            "those who wait are served too"
        );
        assert_eq!(dials(1), 1);
        assert_eq!(dials(3), 3);
    }

    #[test]
    fn the_sidecar_knows_its_own_addresses() {
        let own = |listens: &str, local: &str, peer: &str| {
            let book = book();
            book.set_own(&[listens.parse().unwrap()]);
            book.is_own(local.parse().unwrap(), peer.parse().unwrap())
        };
        assert!(own("127.0.0.1:4222", "127.0.0.1:50000", "127.0.0.1:4222"));
        assert!(own("0.0.0.0:4222", "10.0.0.1:50000", "10.0.0.1:4222"));
        assert!(own("0.0.0.0:4222", "127.0.0.1:50000", "127.0.0.2:4222"));
        assert!(!own("127.0.0.1:4222", "127.0.0.1:50000", "127.0.0.1:4223"));
        assert!(!own("127.0.0.1:4222", "10.0.0.1:50000", "10.0.0.1:4222"));
        assert!(!own("0.0.0.0:4222", "10.0.0.1:50000", "10.0.0.2:4222"));
    }

    #[test]
    fn every_live_node_is_chosen_before_any_other() {
        let (book, now) = (book(), Instant::now());
        let nodes = snapshot(&["a:1", "b:1", "c:1"], &["d:1"], &["e:1"]);
        let mut chosen = std::collections::BTreeMap::new();
        for _ in 0..600 {
            *chosen.entry(first(&book, &nodes, now)).or_insert(0) += 1;
        }
        assert_eq!(chosen.keys().collect::<Vec<_>>(), ["a:1", "b:1", "c:1"]);
        assert!(
            chosen.values().all(|times| (120..=280).contains(times)),
            "{chosen:?}"
        );
        let order = book.candidates(&nodes, None, now);
        assert_eq!(order.len(), 5);
        assert_eq!(order[3].client.to_string(), "d:1");
        assert_eq!(order[4].client.to_string(), "e:1");
    }

    #[test]
    fn a_node_that_failed_cools_down_and_is_tried_when_all_do() {
        let (book, now) = (book(), Instant::now());
        let nodes = snapshot(&["a:1", "b:1"], &[], &["c:1"]);
        let a = nodes.live[0].client.clone();
        assert!(book.failed(&a, "refused", now) >= Duration::from_millis(100));
        for _ in 0..50 {
            assert_eq!(first(&book, &nodes, now), "b:1");
        }
        assert_eq!(book.candidates(&nodes, None, now).last().unwrap().client, a);
        book.failed(&nodes.live[1].client, "refused", now);
        assert_eq!(first(&book, &nodes, now), "c:1");
        assert_eq!(
            book.candidates(&nodes, None, now + Duration::from_secs(2)).len(),
            3
        );
        book.succeeded(&a);
        assert_eq!(first(&book, &nodes, now), "a:1");
    }

    #[test]
    fn cool_downs_double_up_to_their_bound() {
        let book = book();
        let node = node("a:1").client;
        let mut now = Instant::now();
        for failure in 0..20 {
            let cooling = book.failed(&node, "x", now);
            let bound = Duration::from_millis(100 << failure.min(4)).min(Duration::from_secs(1));
            assert!(
                cooling <= bound && cooling >= Duration::from_millis(100),
                "{failure} {cooling:?}"
            );
            assert_eq!(
                book.failed(&node, "x", now),
                Duration::ZERO,
                "one failure told twice"
            );
            now += cooling;
        }
    }

    #[test]
    fn a_node_to_be_left_comes_last_and_a_draining_one_after_the_fixed() {
        let (book, now) = (book(), Instant::now());
        let mut nodes = snapshot(&["a:1", "b:1"], &[], &["c:1"]);
        let mut draining = node("b:1");
        draining.state = NodeState::Draining;
        nodes.live[1] = Arc::new(draining);
        let a = nodes.live[0].client.clone();
        let order: Vec<_> = book
            .candidates(&nodes, Some(&a), now)
            .iter()
            .map(|node| node.client.to_string())
            .collect();
        assert_eq!(order, ["c:1", "b:1", "a:1"]);
    }

    #[test]
    fn the_more_sessions_search_beyond_those_that_may_dial_the_longer_they_spread() {
        let book = Arc::new(book());
        let searchers: Vec<_> = (0..100).map(|_| book.searcher()).collect();
        let (each, max) = (Duration::from_micros(50), Duration::from_millis(500));
        for searcher in &searchers[..=2] {
            assert_eq!(searcher.spread(each, max), Duration::ZERO);
        }
        assert!(searchers[99].spread(each, max) <= Duration::from_millis(5));
        drop(searchers);
        assert_eq!(book.searching.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nodes_that_nobody_names_are_forgotten() {
        let (book, now) = (book(), Instant::now());
        let nodes = snapshot(&["a:1"], &[], &[]);
        book.count_session(&node("a:1").client, true);
        book.failed(&node("b:1").client, "x", now);
        book.forget_gone(&nodes, now + Duration::from_secs(9));
        assert_eq!(lock(&book.entries).len(), 1);
    }
}
