//! The state of each known node, and the order in which a session tries the nodes.
//!
//! A source only names nodes. A session, a dial or a probe proves them ([`NodeBook::proved`], [`NodeBook::failed`]).
//! [`NodeBook::candidates`] gives the order in which nodes are tried. The order within a rank is random:
//!
//! | rank | nodes |
//! |---|---|
//! | 0 to 3 | live, cached, fixed, named by other nodes |
//! | 4 | no source names them any more, but a session or a probe proved them |
//! | 5 | failed when they were last tried |
//! | 6 | draining |
//! | 7 | cooling down |
//! | 8 | withdrawn, and failed when they were last tried |
//! | 9 | the node that the session has just lost |
//!
//! A failed node cools down for a random time. The bound of that time doubles with each failure in a row. Until the
//! node is proved again, one session at a time dials it, and not before its retry time. The rate of dials to all
//! failed nodes together is bounded too ([`NodeBook::turn`]). So a thousand waiting sessions cause a few dials a
//! second, and all of them learn from each dial. A node that fails soon after each recovery ([`PROBATION`]) stays under
//! this limit until a session has stood on it for that time. When the last proved node fails, all failed nodes may be
//! dialled at once: they may have recovered since they were last tried.
//!
//! *Architecture invariant:* the node book is read when a session needs a node, never for a message.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;
use standin_registry::{Endpoint, Node, NodeState, Snapshot, Source};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bound of the retry wait after the first failure of a node. It doubles with each failure in a row.
const RETRY_BASE: Duration = Duration::from_millis(20);
/// Upper bound of the retry wait.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Time after an outage of all nodes in which the nodes that are still down are probed at their retry times. Sessions
/// come back spread over this time (`recovery.rs`), so that they find more than the first node that returned. The value
/// is below the least useful `session.settle_ms`, so that subscribers are back in time.
pub(crate) const SPREAD: Duration = Duration::from_millis(500);
/// A node that fails within this time of its recovery has relapsed.
const PROBATION: Duration = Duration::from_millis(250);
/// Relapses in a row from which on a recovered node is dialled as a failed one, until its probation is over.
const RELAPSES_MAX: u32 = 2;
/// Time for which a proved node without sessions is kept after the last source withdrew it.
const WITHDRAWN_KEPT: Duration = Duration::from_secs(600);
/// Withdrawn nodes without sessions that are kept.
const WITHDRAWN_MAX: usize = 256;
/// Rank of proved nodes that no source names any more.
const WITHDRAWN_RANK: u8 = 4;

/// The settings for the choice of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChoiceSettings {
    /// Bound of the first cool-down.
    pub(crate) cooldown_base: Duration,
    /// Upper bound of any cool-down.
    pub(crate) cooldown_max: Duration,
    /// Connections to one node that may be in setup at the same time.
    pub(crate) dials_max: usize,
    /// Dials a second to failed nodes, all such nodes together.
    pub(crate) retries_per_second_max: u32,
    /// Interval between probes of a node without a session.
    pub(crate) idle_probe_interval: Duration,
}

impl ChoiceSettings {
    /// Wait before the next probe of a node that was just proved; jittered, so that probes spread over time.
    fn next_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// Wait before the probe of a node that was never proved or has just failed: about a second with the default
    /// interval.
    fn first_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.02..0.05))
    }
}

/// State of a node beyond its registry record.
#[derive(Debug)]
struct NodeEntry {
    /// The record from the latest snapshot.
    node: Arc<Node>,
    /// Time at which the last source withdrew the node; `None` while a source names it.
    withdrawn_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// Relapses in a row.
    relapses: u32,
    /// Time of the latest recovery.
    recovered_at: Option<Instant>,
    cooling_until: Option<Instant>,
    /// Earliest time of the next dial while `failures` is above 0.
    retry_at: Option<Instant>,
    /// One session or probe is dialling the node, or joining it, to find out whether it has recovered.
    on_trial: bool,
    /// Time and text of the latest failure.
    last_failure: Option<(Instant, String)>,
    /// Time at which a session or a probe last proved the node.
    proved_at: Option<Instant>,
    /// Time at which the node ceased to be proved.
    unproved_at: Option<Instant>,
    /// Time of the next probe if the node has no session by then.
    probe_at: Instant,
    /// Time until which a failed node is probed at each retry time; see [`SPREAD`].
    eager_until: Option<Instant>,
    /// Sessions connected to the node.
    sessions: usize,
    /// Those whose CONNECT it has answered.
    served: usize,
    dials: Arc<Semaphore>,
}

impl NodeEntry {
    fn new(node: Arc<Node>, choice: &ChoiceSettings, now: Instant) -> Self {
        Self {
            node,
            withdrawn_at: None,
            failures: 0,
            relapses: 0,
            recovered_at: None,
            cooling_until: None,
            retry_at: None,
            on_trial: false,
            last_failure: None,
            proved_at: None,
            unproved_at: None,
            probe_at: now + choice.first_probe(),
            eager_until: None,
            sessions: 0,
            served: 0,
            dials: Arc::new(Semaphore::new(choice.dials_max)),
        }
    }

    fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.is_some_and(|until| until > now)
    }

    fn is_on_probation(&self, now: Instant) -> bool {
        self.recovered_at.is_some_and(|at| now < at + PROBATION)
    }

    fn is_eager(&self, now: Instant) -> bool {
        self.failures > 0 && self.eager_until.is_some_and(|until| until > now)
    }

    /// Returns whether dials to the node are limited.
    fn is_limited(&self, now: Instant) -> bool {
        self.failures > 0 || self.relapses >= RELAPSES_MAX && self.is_on_probation(now)
    }

    /// Returns the time until which the last proof counts: two probe intervals plus the longest cool-down after it,
    /// and at least until now while the node serves a session. Returns `None` if the node is not proved or has failed
    /// since.
    fn proved_until(&self, choice: &ChoiceSettings, now: Instant) -> Option<Instant> {
        let proved_at = self.proved_at.filter(|_| self.failures == 0)?;
        let aged = proved_at + choice.idle_probe_interval * 2 + choice.cooldown_max;
        Some(if self.served > 0 { aged.max(now) } else { aged })
    }

    fn is_proved(&self, choice: &ChoiceSettings, now: Instant) -> bool {
        self.proved_until(choice, now).is_some_and(|until| until >= now)
    }

    fn state(&self, choice: &ChoiceSettings, now: Instant) -> &'static str {
        match self.node.state {
            _ if self.is_cooling(now) => "cooling",
            _ if self.failures > 0 => "down",
            NodeState::Draining => "draining",
            NodeState::Up if self.is_proved(choice, now) => "up",
            NodeState::Up => "unproved",
        }
    }
}

/// What decides the order of a node: its rank, that it was never proved, the end of its cool-down, and chance.
type Order = (u8, bool, Option<Instant>, f64);

/// One node as shown on `/nodez` and in the metrics.
#[derive(Debug, Clone)]
pub(crate) struct NodeStatus {
    pub(crate) node: Arc<Node>,
    /// `up`, `unproved`, `draining`, `cooling` or `down`.
    pub(crate) state: &'static str,
    /// A session or a probe has proved the node recently.
    pub(crate) proved: bool,
    /// No source names the node any more.
    pub(crate) withdrawn: bool,
    pub(crate) failures: u32,
    /// Remaining time of the cool-down.
    pub(crate) cooling: Duration,
    /// Age and text of the latest failure; `None` once the node has recovered.
    pub(crate) last_failure: Option<(Duration, String)>,
    pub(crate) sessions: usize,
}

/// Permission to dial a node. It is held until the node has taken the session or failed.
#[derive(Debug)]
pub(crate) struct Permit {
    trial: Option<Trial>,
    /// Bounds the connections to one node that are in setup.
    _dial: OwnedSemaphorePermit,
}

impl Permit {
    /// Returns whether the node failed when it was last tried, so that this dial shows whether it has recovered.
    pub(crate) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }
}

/// The only dial to a failed node. Another dial is possible when this value is dropped.
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

/// A token bucket that holds the tokens of one second at most.
#[derive(Debug)]
struct TokenBucket {
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
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

/// The state of all known nodes.
#[derive(Debug)]
pub(crate) struct NodeBook {
    choice: Mutex<ChoiceSettings>,
    entries: Mutex<HashMap<Endpoint, NodeEntry>>,
    retries: Mutex<TokenBucket>,
    started: Instant,
    searching: AtomicUsize,
    /// Wakes sessions without a node when a failed node has recovered.
    recovered: Notify,
    /// This sidecar's mark, sent in every INFO.
    mark: Arc<str>,
    /// Addresses on which the sidecar itself listens. None of them is a node.
    own: OnceLock<Vec<SocketAddr>>,
    /// Node addresses that turned out to be the sidecar itself. They are not tried again: each dial would add a
    /// component to this sidecar, whose session would dial the same address.
    own_names: Mutex<HashSet<Endpoint>>,
}

impl NodeBook {
    pub(crate) fn new(choice: ChoiceSettings) -> Self {
        let now = Instant::now();
        Self {
            choice: Mutex::new(choice),
            entries: Mutex::default(),
            retries: Mutex::new(TokenBucket {
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

    /// Returns this sidecar's mark, sent in every INFO. The sidecar recognises itself behind other sidecars by this
    /// mark.
    pub(crate) fn mark(&self) -> &Arc<str> {
        &self.mark
    }

    /// Sets the addresses on which the sidecar listens. Only the first call has an effect.
    pub(crate) fn set_own(&self, addresses: &[SocketAddr]) {
        self.own.get_or_init(|| addresses.to_vec());
    }

    /// Returns whether a connection from `local` to `peer` ends at the sidecar itself. This is the case if the
    /// sidecar listens on `peer`'s port, at `peer`'s address or at all addresses of this host.
    pub(crate) fn is_own(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let here = peer.ip() == local.ip() || peer.ip().is_loopback();
        self.own.get().into_iter().flatten().any(|own| {
            own.port() == peer.port() && (own.ip() == peer.ip() || own.ip().is_unspecified() && here)
        })
    }

    /// Records that `node` is the sidecar itself.
    pub(crate) fn met_itself(&self, node: &Endpoint) {
        lock(&self.own_names).insert(node.clone());
    }

    /// Replaces the settings.
    pub(crate) fn set_choice(&self, choice: ChoiceSettings) {
        let before = std::mem::replace(&mut *lock(&self.choice), choice).dials_max;
        let more = choice.dials_max.checked_sub(before);
        for entry in lock(&self.entries).values_mut() {
            match more {
                // Sessions that already wait for a permit get the added ones.
                Some(more) => entry.dials.add_permits(more),
                // Dials under way keep their permits; new dials use a new semaphore.
                None => entry.dials = Arc::new(Semaphore::new(choice.dials_max)),
            }
        }
    }

    /// Returns the known nodes in the order in which they are to be tried. `avoid` comes last. Within a rank the
    /// order is random; with `evenly`, nodes with fewer sessions come first.
    pub(crate) fn candidates(
        &self,
        snapshot: &Snapshot,
        avoid: Option<&Endpoint>,
        evenly: bool,
        now: Instant,
    ) -> Vec<Arc<Node>> {
        let mut ranked: Vec<(Order, Arc<Node>)> = Vec::new();
        let own_names = lock(&self.own_names);
        let entries = lock(&self.entries);
        let mut rng = rand::rng();
        let named: HashSet<&Endpoint> = snapshot.iter().map(|node| &node.client).collect();
        let withdrawn = entries
            .values()
            .filter(|entry| entry.proved_at.is_some() && !named.contains(&entry.node.client))
            .map(|entry| (WITHDRAWN_RANK, &entry.node));
        for (rank, node) in ranked_lists(snapshot).chain(withdrawn) {
            if own_names.contains(&node.client) {
                continue;
            }
            let entry = entries.get(&node.client);
            let cooling = entry
                .and_then(|entry| entry.cooling_until)
                .filter(|until| *until > now);
            let has_failed = entry.is_some_and(|entry| entry.failures > 0);
            let rank = match cooling {
                _ if avoid == Some(&node.client) => 9,
                _ if has_failed && rank == WITHDRAWN_RANK => 8,
                Some(_) => 7,
                None if node.state == NodeState::Draining => 6,
                None if has_failed => 5,
                None => rank,
            };
            // Retries are few, and a node that was reachable once is the likelier to be so again.
            let never_proved = has_failed && entry.is_some_and(|entry| entry.proved_at.is_none());
            let weight = f64::from(node.weight.max(1));
            // The smallest of exponential draws with the weights as rates is a random choice by weight.
            let draw = -rng.random::<f64>().max(f64::MIN_POSITIVE).ln() / weight;
            let load = entry.map_or(0, |entry| entry.sessions) as f64 / weight;
            let draw = if evenly { load + draw.min(1.0) / 2.0 } else { draw };
            ranked.push(((rank, never_proved, cooling, draw), Arc::clone(node)));
        }
        ranked.sort_by(|(a, _), (b, _)| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)).then(a.3.total_cmp(&b.3)));
        ranked.into_iter().map(|(_, node)| node).collect()
    }

    /// Waits until `node` may be dialled. Returns `None` if the node failed when it was last tried and may not be
    /// retried yet.
    pub(crate) async fn permit(self: &Arc<Self>, node: &Arc<Node>) -> Option<Permit> {
        let dials = self.with_entry(node, |entry, _| Arc::clone(&entry.dials));
        // Checked before and after the wait for the semaphore: many sessions may wait when the first of them finds
        // the node down.
        self.may_be_dialled(&node.client, Instant::now()).then_some(())?;
        // The semaphore is never closed.
        let dial = dials.acquire_owned().await.ok()?;
        let trial = self.turn(&node.client, Instant::now())?;
        Some(Permit { trial, _dial: dial })
    }

    fn may_be_dialled(&self, node: &Endpoint, now: Instant) -> bool {
        lock(&self.entries).get(node).is_none_or(|entry| {
            !entry.is_limited(now) || !entry.on_trial && entry.retry_at.is_none_or(|at| at <= now)
        })
    }

    /// Takes the turn to dial `node` now. A failed node has one turn at a time.
    fn turn(self: &Arc<Self>, node: &Endpoint, now: Instant) -> Option<Option<Trial>> {
        let per_second = lock(&self.choice).retries_per_second_max;
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(node).filter(|entry| entry.is_limited(now)) else {
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

    /// Records a failure of `node` and starts its cool-down. Returns whether this is its first failure in a row.
    /// Sessions that lose the same node at the same moment count as one failure. A failed trial always counts.
    pub(crate) fn failed(&self, node: &Arc<Node>, error: &str, trial: bool, now: Instant) -> bool {
        let (is_first, was_proved) = self.with_entry(node, |entry, choice| {
            if entry.is_cooling(now) && !trial {
                return (false, false);
            }
            let was_proved = entry.is_proved(choice, now);
            if was_proved {
                entry.unproved_at = Some(now);
            }
            if entry.failures == 0 {
                entry.relapses = if entry.is_on_probation(now) {
                    entry.relapses + 1
                } else {
                    0
                };
            }
            let bound =
                |base: Duration, max: Duration| base.saturating_mul(1 << entry.failures.min(20)).min(max);
            let mut rng = rand::rng();
            let cooling = bound(choice.cooldown_base, choice.cooldown_max).mul_f64(rng.random::<f64>());
            let retry = bound(RETRY_BASE, RETRY_MAX).mul_f64(rng.random_range(0.5..1.0));
            entry.failures += 1;
            let cooled_at = now + cooling.max(choice.cooldown_base);
            entry.cooling_until = Some(cooled_at);
            entry.retry_at = Some(now + retry);
            entry.probe_at = if entry.is_eager(now) {
                now + retry
            } else {
                cooled_at.max(now + choice.first_probe())
            };
            entry.last_failure = Some((now, error.to_owned()));
            (entry.failures == 1, was_proved)
        });
        if was_proved && self.none_proved_since(now).is_some() {
            let mut entries = lock(&self.entries);
            let others = entries
                .values_mut()
                .filter(|entry| entry.node.client != node.client);
            others.for_each(|entry| entry.retry_at = None);
        }
        is_first
    }

    /// Records that `node` took a session completely or answered a probe. Returns whether the node had failed before.
    pub(crate) fn proved(&self, node: &Arc<Node>, now: Instant) -> bool {
        let had_failed = self.with_entry(node, |entry, choice| {
            entry.proved_at = Some(now);
            entry.cooling_until = None;
            entry.retry_at = None;
            entry.last_failure = None;
            entry.eager_until = None;
            entry.probe_at = now + choice.next_probe();
            let had_failed = std::mem::take(&mut entry.failures) > 0;
            if had_failed {
                entry.recovered_at = Some(now);
            }
            had_failed
        });
        if had_failed {
            self.recovered.notify_waiters();
        }
        had_failed
    }

    /// Ends the cool-downs, because an outage of all nodes is over: the other nodes may be back as well. They are probed
    /// at once, and then at their retry times for [`SPREAD`].
    pub(crate) fn end_cooldowns(&self, now: Instant) {
        let mut entries = lock(&self.entries);
        for entry in entries.values_mut().filter(|entry| entry.failures > 0) {
            entry.failures = 1;
            entry.cooling_until = None;
            entry.retry_at = None;
            entry.probe_at = now;
            entry.eager_until = Some(now + SPREAD);
        }
    }

    /// Returns whether failed nodes are probed at their retry times.
    pub(crate) fn probes_eagerly(&self, now: Instant) -> bool {
        lock(&self.entries).values().any(|entry| entry.is_eager(now))
    }

    /// Waits until a failed node is proved again.
    pub(crate) async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// Counts a session that begins (`uses`) or ceases to use `node`.
    pub(crate) fn count_session(&self, node: &Arc<Node>, uses: bool) {
        self.with_entry(node, |entry, _| {
            entry.sessions = match uses {
                true => entry.sessions + 1,
                false => entry.sessions.saturating_sub(1),
            };
        });
    }

    /// Counts a session that `node` begins or ceases (`serves` is false) to serve.
    pub(crate) fn count_served(&self, node: &Endpoint, serves: bool, now: Instant) {
        let choice = *lock(&self.choice);
        if let Some(entry) = lock(&self.entries).get_mut(node) {
            if !serves && entry.is_proved(&choice, now) {
                // The session proved the node up to now.
                entry.proved_at = Some(now);
            }
            entry.served = match serves {
                true => entry.served + 1,
                false => entry.served.saturating_sub(1),
            };
        }
    }

    /// Returns whether `node` failed when it was last tried.
    pub(crate) fn has_failed(&self, node: &Endpoint) -> bool {
        lock(&self.entries)
            .get(node)
            .is_some_and(|entry| entry.failures > 0)
    }

    /// Returns whether each of `nodes` has failed since `since`.
    pub(crate) fn all_failed_since(&self, nodes: &[Arc<Node>], since: Instant) -> bool {
        let entries = lock(&self.entries);
        let failed = |node: &Arc<Node>| {
            let failure = entries
                .get(&node.client)
                .and_then(|entry| entry.last_failure.as_ref());
            failure.is_some_and(|(at, _)| *at >= since)
        };
        nodes.iter().all(failed)
    }

    /// Returns whether `node` is proved.
    pub(crate) fn is_proved(&self, node: &Endpoint, now: Instant) -> bool {
        let choice = *lock(&self.choice);
        lock(&self.entries)
            .get(node)
            .is_some_and(|entry| entry.is_proved(&choice, now))
    }

    /// Returns whether any known node failed when it was last tried.
    pub(crate) fn any_failed(&self) -> bool {
        lock(&self.entries).values().any(|entry| entry.failures > 0)
    }

    /// Returns the time since which no node is proved, if each of `nodes` has failed since then.
    pub(crate) fn none_reachable_since(&self, nodes: &[Arc<Node>], now: Instant) -> Option<Instant> {
        self.none_proved_since(now)
            .filter(|since| self.all_failed_since(nodes, *since))
    }

    /// Returns the time since which no node is proved; `None` while one is.
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

    /// Updates the entries from a snapshot. A withdrawn node is kept while a session is on it, and for
    /// [`WITHDRAWN_KEPT`] if it was proved before. Other withdrawn nodes are removed.
    pub(crate) fn take_snapshot(&self, snapshot: &Snapshot, now: Instant) {
        let choice = *lock(&self.choice);
        let mut entries = lock(&self.entries);
        for node in snapshot.iter() {
            let entry = entries
                .entry(node.client.clone())
                .or_insert_with(|| NodeEntry::new(Arc::clone(node), &choice, now));
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

    /// Returns the nodes that no session proves and whose probe is due, and sets their next probe time. Failed nodes
    /// are left to the sessions without a node, if there are any.
    pub(crate) fn due_probes(&self, now: Instant) -> Vec<Arc<Node>> {
        let choice = *lock(&self.choice);
        let interval = choice.idle_probe_interval;
        let own_names = lock(&self.own_names).clone();
        let mut due = Vec::new();
        let mut entries = lock(&self.entries);
        let none_proved = !entries.values().any(|entry| entry.is_proved(&choice, now));
        let sessions_search = none_proved && self.searching.load(Ordering::Relaxed) > 0;
        for entry in entries.values_mut() {
            let is_idle = entry.served == 0 || entry.failures > 0 || entry.proved_at.is_none();
            let is_idle = is_idle && !(entry.failures > 0 && sessions_search);
            let failed_at = entry.last_failure.as_ref().map(|(at, _)| *at);
            // Also without other nodes and sessions that find out, whatever the cool-down.
            let is_due =
                entry.probe_at <= now || none_proved && failed_at.is_some_and(|at| now >= at + interval / 30);
            if is_idle && !entry.on_trial && is_due && !own_names.contains(&entry.node.client) {
                // A failed node may have no permit now: all retries together are limited.
                entry.probe_at = now + if entry.failures > 0 { RETRY_MAX } else { interval };
                due.push(Arc::clone(&entry.node));
            }
        }
        due
    }

    /// Returns the status of all known nodes, sorted by address.
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

    /// Counts a session that lost its node and looks for another. The count ends when the returned value is dropped.
    pub(crate) fn searcher(self: &Arc<Self>) -> Searcher {
        let others = self.searching.fetch_add(1, Ordering::Relaxed);
        Searcher {
            book: Arc::clone(self),
            others,
        }
    }

    /// Calls `change` with the entry of `node`. Creates the entry if there is none.
    fn with_entry<T>(
        &self,
        node: &Arc<Node>,
        change: impl FnOnce(&mut NodeEntry, &ChoiceSettings) -> T,
    ) -> T {
        let choice = *lock(&self.choice);
        let mut entries = lock(&self.entries);
        let entry = entries
            .entry(node.client.clone())
            .or_insert_with(|| NodeEntry::new(Arc::clone(node), &choice, Instant::now()));
        change(entry, &choice)
    }
}

/// Returns the nodes of the snapshot with their ranks.
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
    /// Returns a random wait before the first dial. The wait grows with the number of sessions that search. It is
    /// zero while no more sessions search than may dial one node at the same time, so that their components wait some
    /// milliseconds less.
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

/// Locks `mutex`, also after a panic elsewhere: a panic must not end the other sessions, and the data are counters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "nodes/tests.rs"]
mod tests;
