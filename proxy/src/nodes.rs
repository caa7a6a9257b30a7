//! What is known of each node, and which one a session tries next.
//!
//! A source only names nodes; a session, a dial or a probe proves them ([`NodeBook::proved`], [`NodeBook::failed`]).
//! [`NodeBook::candidates`] gives the order in which nodes are tried, at random within a rank:
//!
//! | rank | nodes |
//! |---|---|
//! | 0 to 3 | live, cached, fixed, named by other nodes |
//! | 4 | no source names them any more, but a session or a probe proved them |
//! | 5 | failed when they were last tried |
//! | 6 | draining |
//! | 7 | cooling down |
//! | 8 | the node that the session has just lost |
//!
//! A node that failed cools down for a random time below a bound that doubles with each failure in a row. Until it is proved
//! again it is dialled by one session at a time, and not before its retry time; the sum over all such nodes is bounded too
//! ([`NodeBook::turn`]). So a thousand waiting sessions make a few dials a second, and all of them learn from each.
//!
//! *Architecture invariant:* looked at when a session needs a node, never for a message.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use standin_registry::{Endpoint, Node, NodeState, Snapshot, Source};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bound of the wait before a node that failed once is dialled again; doubles with each failure in a row.
const RETRY_BASE: Duration = Duration::from_millis(20);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How long a proved node that no source names any more is kept without a session on it.
const WITHDRAWN_KEPT: Duration = Duration::from_secs(600);
/// Nodes kept that no source names any more and no session is on.
const WITHDRAWN_MAX: usize = 256;

/// The settings of the choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// Bound of the first cool-down.
    pub(crate) cooldown_base: Duration,
    /// Bound of the longest.
    pub(crate) cooldown_max: Duration,
    /// Connections to one node that may be in the making at the same time.
    pub(crate) dials_max: usize,
    /// Dials in a second to nodes that failed when they were last tried, all such nodes together.
    pub(crate) retries_per_second_max: u32,
    /// How often a node without a session is probed.
    pub(crate) idle_probe_interval: Duration,
}

impl Choice {
    /// When a node is probed that was proved now: jittered, so that probes spread over time.
    fn next_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// When a node is probed that was never proved, or has just failed: about a second with the default interval.
    fn first_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.02..0.05))
    }
}

/// What is known of a node beyond its record.
#[derive(Debug)]
struct Entry {
    /// As a source named it last.
    node: Arc<Node>,
    /// Since when no source names it; `None` while one does.
    withdrawn_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    cooling_until: Option<Instant>,
    /// Not dialled again before this, while `failures` is above 0.
    retry_at: Option<Instant>,
    /// One session or probe is dialling it, or joins it, to see whether it has recovered.
    on_trial: bool,
    /// The failure behind `failures`.
    last_failure: Option<(Instant, String)>,
    /// When a session or a probe last proved it.
    proved_at: Option<Instant>,
    /// When it ceased to be proved.
    unproved_at: Option<Instant>,
    /// When it is probed next if it has no session by then.
    probe_at: Instant,
    sessions: usize,
    dials: Arc<Semaphore>,
}

impl Entry {
    fn new(node: Arc<Node>, choice: &Choice, now: Instant) -> Self {
        Self {
            node,
            withdrawn_at: None,
            failures: 0,
            cooling_until: None,
            retry_at: None,
            on_trial: false,
            last_failure: None,
            proved_at: None,
            unproved_at: None,
            probe_at: now + choice.first_probe(),
            sessions: 0,
            dials: Arc::new(Semaphore::new(choice.dials_max)),
        }
    }

    fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.is_some_and(|until| until > now)
    }

    /// Until when the last proof counts: as long as a session is on the node, else for two probes' time.
    fn proved_until(&self, choice: &Choice, now: Instant) -> Option<Instant> {
        let proved_at = self.proved_at.filter(|_| self.failures == 0)?;
        let aged = proved_at + choice.idle_probe_interval * 2 + choice.cooldown_max;
        Some(if self.sessions > 0 { aged.max(now) } else { aged })
    }

    fn is_proved(&self, choice: &Choice, now: Instant) -> bool {
        self.proved_until(choice, now).is_some_and(|until| until >= now)
    }

    fn state(&self, choice: &Choice, now: Instant) -> &'static str {
        match self.node.state {
            _ if self.is_cooling(now) => "cooling",
            _ if self.failures > 0 => "down",
            NodeState::Draining => "draining",
            NodeState::Up if self.is_proved(choice, now) => "up",
            NodeState::Up => "unproved",
        }
    }
}

/// One node as `/nodez` and the metrics show it.
#[derive(Debug, Clone)]
pub(crate) struct NodeStatus {
    pub(crate) node: Arc<Node>,
    /// `up`, `unproved`, `draining`, `cooling` or `down`.
    pub(crate) state: &'static str,
    /// A session or a probe has proved it lately.
    pub(crate) proved: bool,
    /// No source names it any more.
    pub(crate) withdrawn: bool,
    pub(crate) failures: u32,
    /// What is left of its cool-down.
    pub(crate) cooling: Duration,
    /// Age and text of the failure that it has not recovered from.
    pub(crate) last_failure: Option<(Duration, String)>,
    pub(crate) sessions: usize,
}

/// Leave to dial a node; kept until the node has taken the session, or failed.
#[derive(Debug)]
pub(crate) struct Permit {
    trial: Option<Trial>,
    /// Bounds the connections to one node that are in the making.
    _dial: OwnedSemaphorePermit,
}

impl Permit {
    /// Whether the node failed when it was last tried, and this dial is to show whether it has recovered.
    pub(crate) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }
}

/// The only dial to a node that failed; another is possible when it is dropped.
#[derive(Debug)]
struct Trial {
    book: Arc<NodeBook>,
    node: Endpoint,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.book.entries).get_mut(&self.node) {
            entry.on_trial = false;
        }
    }
}

/// A token bucket of one second.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let per_second = f64::from(per_second);
        let grown = now.saturating_duration_since(self.filled_at).as_secs_f64() * per_second;
        self.filled_at = now;
        self.tokens = (self.tokens + grown).min(per_second);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct NodeBook {
    choice: Mutex<Choice>,
    entries: Mutex<HashMap<Endpoint, Entry>>,
    retries: Mutex<Bucket>,
    started: Instant,
    searching: AtomicUsize,
    /// Tells sessions without a node that one has recovered.
    recovered: Notify,
    /// This sidecar's mark in every INFO that it sends.
    mark: Arc<str>,
    /// Where the sidecar itself listens: never a node.
    own: OnceLock<Vec<SocketAddr>>,
    /// Addresses of nodes that turned out to be the sidecar itself. Not tried again: each try would be a component of its own,
    /// which tries the same.
    own_names: Mutex<HashSet<Endpoint>>,
}

impl NodeBook {
    pub(crate) fn new(choice: Choice) -> Self {
        let now = Instant::now();
        Self {
            choice: Mutex::new(choice),
            entries: Mutex::default(),
            retries: Mutex::new(Bucket {
                tokens: f64::from(choice.retries_per_second_max),
                filled_at: now,
            }),
            started: now,
            searching: AtomicUsize::new(0),
            recovered: Notify::new(),
            mark: format!("{:08x}", rand::random::<u32>()).into(),
            own: OnceLock::new(),
            own_names: Mutex::default(),
        }
    }

    /// This sidecar's mark in every INFO that it sends, by which it knows itself behind other sidecars.
    pub(crate) fn mark(&self) -> &Arc<str> {
        &self.mark
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

    /// The known nodes in the order in which they are to be tried. `avoid` is tried last of all. With `evenly`, nodes with
    /// fewer sessions come first within a rank, instead of chance.
    pub(crate) fn candidates(
        &self,
        snapshot: &Snapshot,
        avoid: Option<&Endpoint>,
        evenly: bool,
        now: Instant,
    ) -> Vec<Arc<Node>> {
        let mut ranked: Vec<(u8, Option<Instant>, f64, Arc<Node>)> = Vec::new();
        let own_names = lock(&self.own_names);
        let entries = lock(&self.entries);
        let mut rng = rand::rng();
        let named: HashSet<&Endpoint> = snapshot.iter().map(|node| &node.client).collect();
        let withdrawn = entries
            .values()
            .filter(|entry| entry.proved_at.is_some() && !named.contains(&entry.node.client))
            .map(|entry| (4, &entry.node));
        for (rank, node) in ranked_lists(snapshot).chain(withdrawn) {
            if own_names.contains(&node.client) {
                continue;
            }
            let entry = entries.get(&node.client);
            let cooling = entry
                .and_then(|entry| entry.cooling_until)
                .filter(|until| *until > now);
            let rank = match cooling {
                _ if avoid == Some(&node.client) => 8,
                Some(_) => 7,
                None if node.state == NodeState::Draining => 6,
                None if entry.is_some_and(|entry| entry.failures > 0) => 5,
                None => rank,
            };
            let weight = f64::from(node.weight.max(1));
            // The smallest of exponential draws with the weights as rates: a choice by weight.
            let draw = -rng.random::<f64>().max(f64::MIN_POSITIVE).ln() / weight;
            let load = entry.map_or(0, |entry| entry.sessions) as f64 / weight;
            let draw = if evenly { load + draw.min(1.0) / 2.0 } else { draw };
            ranked.push((rank, cooling, draw, Arc::clone(node)));
        }
        ranked.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        ranked.into_iter().map(|(.., node)| node).collect()
    }

    /// Waits until `node` may be dialled. `None`: it failed when it was last tried, and its turn has not come.
    pub(crate) async fn permit(self: &Arc<Self>, node: &Arc<Node>) -> Option<Permit> {
        let dials = self.with_entry(node, |entry, _| Arc::clone(&entry.dials));
        // Looked at before and behind the queue: many may wait there when the node fails the first of them.
        self.may_be_dialled(&node.client, Instant::now()).then_some(())?;
        // The semaphore is never closed.
        let dial = dials.acquire_owned().await.ok()?;
        let trial = self.turn(&node.client, Instant::now())?;
        Some(Permit { trial, _dial: dial })
    }

    fn may_be_dialled(&self, node: &Endpoint, now: Instant) -> bool {
        lock(&self.entries).get(node).is_none_or(|entry| {
            entry.failures == 0 || !entry.on_trial && entry.retry_at.is_none_or(|at| at <= now)
        })
    }

    /// Takes the turn to dial `node` now; for one that failed, the only one.
    fn turn(self: &Arc<Self>, node: &Endpoint, now: Instant) -> Option<Option<Trial>> {
        let per_second = lock(&self.choice).retries_per_second_max;
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(node).filter(|entry| entry.failures > 0) else {
            return Some(None);
        };
        let is_due = !entry.on_trial && entry.retry_at.is_none_or(|at| at <= now);
        if !is_due || !lock(&self.retries).take(per_second, now) {
            return None;
        }
        entry.on_trial = true;
        Some(Some(Trial {
            book: Arc::clone(self),
            node: node.clone(),
        }))
    }

    /// `node` failed: it cools down. Returns whether this is its first failure in a row. Sessions that lose the same
    /// node at the same moment count as one failure; a failed trial always counts.
    pub(crate) fn failed(&self, node: &Arc<Node>, error: &str, trial: bool, now: Instant) -> bool {
        self.with_entry(node, |entry, choice| {
            if entry.is_cooling(now) && !trial {
                return false;
            }
            if entry.is_proved(choice, now) {
                entry.unproved_at = Some(now);
            }
            let bound =
                |base: Duration, max: Duration| base.saturating_mul(1 << entry.failures.min(20)).min(max);
            let mut rng = rand::rng();
            let cooling = bound(choice.cooldown_base, choice.cooldown_max).mul_f64(rng.random::<f64>());
            let retry = bound(RETRY_BASE, RETRY_MAX).mul_f64(rng.random_range(0.5..1.0));
            entry.failures += 1;
            entry.cooling_until = Some(now + cooling.max(choice.cooldown_base));
            entry.retry_at = Some(now + retry);
            entry.probe_at = now + cooling.max(choice.first_probe());
            entry.last_failure = Some((now, error.to_owned()));
            entry.failures == 1
        })
    }

    /// `node` took a session whole, or answered a probe. Returns whether it had failed before.
    pub(crate) fn proved(&self, node: &Arc<Node>, now: Instant) -> bool {
        let had_failed = self.with_entry(node, |entry, choice| {
            entry.proved_at = Some(now);
            entry.cooling_until = None;
            entry.retry_at = None;
            entry.last_failure = None;
            entry.probe_at = now + choice.next_probe();
            std::mem::take(&mut entry.failures) > 0
        });
        if had_failed {
            self.recovered.notify_waiters();
        }
        had_failed
    }

    /// Waits until a node that had failed is proved again.
    pub(crate) async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// A session uses `node` from now on, or no longer.
    pub(crate) fn count_session(&self, node: &Arc<Node>, uses: bool) {
        self.with_entry(node, |entry, choice| {
            if uses {
                entry.sessions += 1;
            } else {
                let now = Instant::now();
                if entry.is_proved(choice, now) {
                    // Up to now by this session.
                    entry.proved_at = Some(now);
                }
                entry.sessions = entry.sessions.saturating_sub(1);
            }
        });
    }

    /// Whether `node` is proved.
    pub(crate) fn is_proved(&self, node: &Endpoint, now: Instant) -> bool {
        let choice = *lock(&self.choice);
        lock(&self.entries)
            .get(node)
            .is_some_and(|entry| entry.is_proved(&choice, now))
    }

    /// Whether any known node failed when it was last tried.
    pub(crate) fn any_failed(&self) -> bool {
        lock(&self.entries).values().any(|entry| entry.failures > 0)
    }

    /// Whether every known node failed when it was last tried, and there is one.
    pub(crate) fn all_failed(&self, snapshot: &Snapshot) -> bool {
        let entries = lock(&self.entries);
        let failed = |node: &Arc<Node>| entries.get(&node.client).is_some_and(|entry| entry.failures > 0);
        !snapshot.is_empty() && snapshot.iter().all(failed)
    }

    /// Since when no node is proved; `None` while one is.
    pub(crate) fn none_proved_since(&self, now: Instant) -> Option<Instant> {
        let choice = *lock(&self.choice);
        let mut since = self.started;
        for entry in lock(&self.entries).values() {
            if entry.is_proved(&choice, now) {
                return None;
            }
            let aged = entry.proved_until(&choice, now);
            since = since.max(entry.unproved_at.max(aged).unwrap_or(since));
        }
        Some(since)
    }

    /// Takes over what the sources name. Nodes that no source names any more are kept while a session is on them, and
    /// for a while when they were proved; the others are forgotten.
    pub(crate) fn take_snapshot(&self, snapshot: &Snapshot, now: Instant) {
        let choice = *lock(&self.choice);
        let mut entries = lock(&self.entries);
        for node in snapshot.iter() {
            let entry = entries
                .entry(node.client.clone())
                .or_insert_with(|| Entry::new(Arc::clone(node), &choice, now));
            entry.node = Arc::clone(node);
            entry.withdrawn_at = None;
        }
        let named: HashSet<&Endpoint> = snapshot.iter().map(|node| &node.client).collect();
        let mut withdrawn: Vec<(Instant, Endpoint)> = Vec::new();
        entries.retain(|endpoint, entry| {
            if named.contains(endpoint) {
                return true;
            }
            let since = *entry.withdrawn_at.get_or_insert(now);
            if entry.sessions > 0 {
                return true;
            }
            let kept = entry.proved_at.is_some() && now < since + WITHDRAWN_KEPT;
            if kept {
                withdrawn.push((since, endpoint.clone()));
            }
            kept || entry.on_trial
        });
        withdrawn.sort_unstable_by_key(|(since, _)| Reverse(*since));
        for (_, endpoint) in withdrawn.into_iter().skip(WITHDRAWN_MAX) {
            entries.remove(&endpoint);
        }
    }

    /// The nodes whose probe is due: no session proves them. Each is due again after its time. Those that failed are left to
    /// the sessions without a node, if there are any.
    pub(crate) fn due_probes(&self, now: Instant) -> Vec<Arc<Node>> {
        let sessions_search = self.searching.load(Ordering::Relaxed) > 0;
        let interval = lock(&self.choice).idle_probe_interval;
        let own_names = lock(&self.own_names).clone();
        let mut due = Vec::new();
        for entry in lock(&self.entries).values_mut() {
            let is_idle = entry.sessions == 0 || entry.failures > 0 || entry.proved_at.is_none();
            let is_idle = is_idle && !(entry.failures > 0 && sessions_search);
            if is_idle && !entry.on_trial && entry.probe_at <= now && !own_names.contains(&entry.node.client)
            {
                entry.probe_at = now + interval;
                due.push(Arc::clone(&entry.node));
            }
        }
        due
    }

    /// All nodes known, sorted by address.
    pub(crate) fn status(&self, now: Instant) -> Vec<NodeStatus> {
        let choice = *lock(&self.choice);
        let entries = lock(&self.entries);
        let mut all: Vec<NodeStatus> = entries
            .values()
            .map(|entry| NodeStatus {
                node: Arc::clone(&entry.node),
                state: entry.state(&choice, now),
                proved: entry.is_proved(&choice, now),
                withdrawn: entry.withdrawn_at.is_some(),
                failures: entry.failures,
                cooling: entry
                    .cooling_until
                    .map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
                last_failure: entry
                    .last_failure
                    .as_ref()
                    .map(|(at, error)| (now.saturating_duration_since(*at), error.clone())),
                sessions: entry.sessions,
            })
            .collect();
        all.sort_unstable_by(|a, b| a.node.client.cmp(&b.node.client));
        all
    }

    /// A session that lost its node looks for another: kept as long as it does, so that many at once spread out.
    pub(crate) fn searcher(self: &Arc<Self>) -> Searcher {
        let others = self.searching.fetch_add(1, Ordering::Relaxed);
        Searcher {
            book: Arc::clone(self),
            others,
        }
    }

    /// Calls `change` with the entry of `node`, which is made if there is none.
    fn with_entry<T>(&self, node: &Arc<Node>, change: impl FnOnce(&mut Entry, &Choice) -> T) -> T {
        let choice = *lock(&self.choice);
        let mut entries = lock(&self.entries);
        let entry = entries
            .entry(node.client.clone())
            .or_insert_with(|| Entry::new(Arc::clone(node), &choice, Instant::now()));
        change(entry, &choice)
    }
}

/// The nodes of the snapshot with their ranks.
fn ranked_lists(snapshot: &Snapshot) -> impl Iterator<Item = (u8, &Arc<Node>)> {
    let live = snapshot.live.iter().map(|node| (0, node));
    let cached = snapshot.cached.iter().map(|node| (1, node));
    let fixed = snapshot
        .fixed
        .iter()
        .map(|node| (2 + u8::from(node.source == Source::Gossip), node));
    live.chain(cached).chain(fixed)
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

/// A panic elsewhere must not take the other sessions down: the data are counters, good enough after any of them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "nodes/tests.rs"]
mod tests;
