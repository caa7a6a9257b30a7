//! The node book: the state of each known node, and the order in which a session tries the nodes.
//!
//! A source only names nodes. A session or a probe proves that a node works ([`NodeBook::proved`]). A session, a dial or a
//! probe may find that it does not ([`NodeBook::failed`]).
//!
//! | file | holds |
//! |---|---|
//! | this one | the book: proofs and failures, and which nodes are kept |
//! | [`node_entry`] | the state of one node: failures, cool-down, proofs |
//! | [`order`] | the order in which a session tries the nodes |
//! | [`permit`] | the limits on dials |
//! | [`searcher`] | the number of sessions that look for a node |
//! | [`probes`] | when nodes without a session are probed |
//! | [`self_check`] | how the sidecar recognises itself among the nodes |
//! | [`node_status`] | the state of all nodes for pages and metrics |
//!
//! *Architecture invariant:* the node book is read when a session needs a node, never for a message.

mod node_entry;
mod node_status;
mod order;
mod permit;
mod probes;
mod searcher;
mod self_check;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use standin_registry::{AllowedNodes, Endpoint, Node, Snapshot};
use tokio::sync::{Notify, Semaphore};
use tracing::warn;

use node_entry::NodeEntry;
use node_status::is_away;
pub(crate) use node_status::{BalancedNode, NodeStatus};
pub(crate) use permit::Permit;
use permit::TokenBucket;
pub(crate) use probes::SPREAD;
pub(crate) use searcher::Searcher;
pub(crate) use self_check::SelfCheck;

use crate::settings::Settings;
use crate::state_fields::time;

/// Time for which a proved node without sessions is kept after the last source withdrew it.
const WITHDRAWN_KEPT: Duration = Duration::from_secs(600);
/// Maximum number of withdrawn nodes that are kept without a session.
const WITHDRAWN_MAX: usize = 256;

/// Reason why a node is not dialled although a source names it.
pub(crate) const NOT_ALLOWED: &str = "not in nodes.allowed_nodes";

/// State of all known nodes.
#[derive(Debug)]
pub(crate) struct NodeBook {
    settings: ArcSwap<Settings>,
    entries: Mutex<HashMap<Endpoint, NodeEntry>>,
    /// Limit on the rate of dials to all failed nodes together.
    retries: Mutex<TokenBucket>,
    started: Instant,
    /// Number of sessions that look for a node.
    searching: AtomicUsize,
    /// Wakes sessions without a node when a failed node has recovered.
    recovered: Notify,
    pub(crate) self_check: SelfCheck,
    /// The nodes that the settings allow.
    allowed: ArcSwap<AllowedNodes>,
}

impl NodeBook {
    /// Creates the book of a sidecar that listens on `addresses`.
    #[cfg(test)]
    pub(crate) fn new(settings: Arc<Settings>, addresses: &[SocketAddr]) -> Self {
        Self::going_on(settings, addresses, None, None)
    }

    /// Creates the book of a sidecar that listens on `addresses`. It goes on with the `record` and the `mark` of the former
    /// program, if there was one.
    pub(crate) fn going_on(
        settings: Arc<Settings>,
        addresses: &[SocketAddr],
        record: Option<NodesRecord>,
        mark: Option<&str>,
    ) -> Self {
        let now = Instant::now();
        let dials_max = settings.dial.dials_concurrent_max;
        let started = record.as_ref().map_or(now, |record| record.started);
        let entries = record.into_iter().flat_map(|record| record.entries);
        let entries = entries.map(|entry| (entry.node.client.clone(), entry.restored(dials_max)));
        Self {
            retries: Mutex::new(TokenBucket::new(settings.dial.retries_per_second_max, now)),
            allowed: ArcSwap::from_pointee(settings.allowed_nodes()),
            settings: ArcSwap::new(settings),
            entries: Mutex::new(entries.collect()),
            started,
            searching: AtomicUsize::new(0),
            recovered: Notify::new(),
            self_check: SelfCheck::new(addresses, mark),
        }
    }

    /// Returns the book for the next program.
    pub(crate) fn record(&self) -> NodesRecord {
        NodesRecord {
            entries: lock(&self.entries).values().cloned().collect(),
            started: self.started,
        }
    }

    /// Returns this node as the book has it, if it is equal. So sessions of the former program share their nodes again.
    pub(crate) fn shared(&self, node: &Arc<Node>) -> Arc<Node> {
        let entries = lock(&self.entries);
        let known = entries.get(&node.client).map(|entry| &entry.node);
        Arc::clone(known.filter(|known| *known == node).unwrap_or(node))
    }

    /// Replaces the settings.
    pub(crate) fn set_settings(&self, settings: Arc<Settings>) {
        // Under the lock, so that each entry is made either from the former settings or from the new ones.
        let mut entries = lock(&self.entries);
        self.allowed.store(Arc::new(settings.allowed_nodes()));
        let dials_max = settings.dial.dials_concurrent_max;
        let before = self.settings.swap(settings).dial.dials_concurrent_max;
        let more = dials_max.checked_sub(before);
        for entry in entries.values_mut() {
            match more {
                // Sessions that already wait for a permit get the added ones.
                Some(more) => entry.dials.add_permits(more),
                // Dials under way keep their permits; new dials use a new semaphore.
                None => entry.dials = Arc::new(Semaphore::new(dials_max)),
            }
        }
    }

    /// Records a failure of `node` and starts its cool-down. Returns whether this is its first failure in a row. `trial`
    /// is true if a dial under a trial [`Permit`] failed. When the last proved node fails, all other nodes may
    /// be dialled immediately, because they may have recovered since they were last tried.
    pub(crate) fn failed(&self, node: &Arc<Node>, error: &str, trial: bool, now: Instant) -> bool {
        let (is_first, was_proved) =
            self.with_entry(node, |entry, settings| entry.failed(error, trial, settings, now));
        if was_proved && self.none_proved_since(now).is_some() {
            let mut entries = lock(&self.entries);
            let others = entries
                .values_mut()
                .filter(|entry| entry.node.client != node.client);
            others.for_each(|entry| entry.retry_at = None);
        }
        is_first
    }

    /// Records that `node` has taken a session or answered a probe. Returns whether it had failed when it was last tried.
    pub(crate) fn proved(&self, node: &Arc<Node>, now: Instant) -> bool {
        let had_failed = self.with_entry(node, |entry, settings| entry.proved(settings, now));
        if had_failed {
            self.recovered.notify_waiters();
        }
        had_failed
    }

    /// Records that `node` has announced its shutdown to a session.
    pub(crate) fn leaves(&self, node: &Arc<Node>, now: Instant) {
        self.with_entry(node, |entry, settings| entry.leaves(settings, now));
    }

    /// Sets whether an operator wants no sessions of this sidecar on `node`. Returns whether the node is known.
    pub(crate) fn set_drained(&self, node: &Endpoint, is_drained: bool) -> bool {
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(node);
        entry.map(|entry| entry.is_drained = is_drained).is_some()
    }

    /// Waits until a failed node is proved again.
    pub(crate) async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// Adds a session connected to `node`, or removes one if `uses` is false.
    pub(crate) fn count_session(&self, node: &Arc<Node>, uses: bool) {
        self.with_entry(node, |entry, _| {
            entry.sessions = entry.sessions.saturating_add_signed(if uses { 1 } else { -1 });
        });
    }

    /// Adds a session that `node` serves, or removes one if `serves` is false.
    pub(crate) fn count_served(&self, node: &Endpoint, serves: bool, now: Instant) {
        let settings = self.settings.load();
        if let Some(entry) = lock(&self.entries).get_mut(node) {
            if !serves && entry.is_proved(&settings, now) {
                // The session proved the node up to now.
                entry.proved_at = Some(now);
            }
            entry.served = entry.served.saturating_add_signed(if serves { 1 } else { -1 });
        }
    }

    /// Returns whether `node` failed when it was last tried.
    pub(crate) fn has_failed(&self, node: &Endpoint) -> bool {
        lock(&self.entries).get(node).is_some_and(NodeEntry::has_failed)
    }

    /// Returns whether the node has failed, is draining, or is drained.
    pub(crate) fn is_away(&self, node: &Endpoint) -> bool {
        let (settings, now) = (self.settings.load(), Instant::now());
        let entries = lock(&self.entries);
        entries
            .get(node)
            .is_some_and(|entry| is_away(entry.state(&settings, now)))
    }

    /// Returns the nodes that may be dialled, for the check of a node's resolved addresses.
    pub(crate) fn allowed(&self) -> Arc<AllowedNodes> {
        self.allowed.load_full()
    }

    /// Returns whether `node` is never dialled: the settings do not allow its address, or it is the sidecar itself.
    pub(crate) fn is_excluded(&self, node: &Endpoint) -> bool {
        self.self_check.has_met(node) || self.allowed.load().refuses(node)
    }

    /// Returns whether each of `nodes` has failed since `since`.
    pub(crate) fn all_failed_since(&self, nodes: &[Arc<Node>], since: Instant) -> bool {
        let entries = lock(&self.entries);
        let failed = |node: &Arc<Node>| {
            let failure = entries
                .get(&node.client)
                .and_then(|entry| entry.last_failure.as_ref());
            failure.is_some_and(|failure| failure.at >= since)
        };
        nodes.iter().all(failed)
    }

    /// Returns whether `node` is proved.
    pub(crate) fn is_proved(&self, node: &Endpoint, now: Instant) -> bool {
        let settings = self.settings.load();
        lock(&self.entries)
            .get(node)
            .is_some_and(|entry| entry.is_proved(&settings, now))
    }

    /// Returns whether any known node failed when it was last tried.
    pub(crate) fn any_failed(&self) -> bool {
        lock(&self.entries).values().any(NodeEntry::has_failed)
    }

    /// Returns the time since which no node is proved, if each of `nodes` has failed since then.
    pub(crate) fn none_reachable_since(&self, nodes: &[Arc<Node>], now: Instant) -> Option<Instant> {
        self.none_proved_since(now)
            .filter(|since| self.all_failed_since(nodes, *since))
    }

    /// Returns the time since which no node is proved; `None` while one is.
    pub(crate) fn none_proved_since(&self, now: Instant) -> Option<Instant> {
        let settings = self.settings.load();
        let mut since = self.started;
        for entry in lock(&self.entries).values() {
            if entry.is_proved(&settings, now) {
                return None;
            }
            let aged = entry.proved_until(&settings, now);
            since = since.max(entry.unproved_at.max(aged).unwrap_or(since));
        }
        Some(since)
    }

    /// Updates the entries from a snapshot. A withdrawn node is kept while a session is connected to it. Without
    /// sessions it is kept for [`WITHDRAWN_KEPT`] if it was ever proved, and otherwise only until a trial of it ends.
    pub(crate) fn take_snapshot(&self, snapshot: &Snapshot, now: Instant) {
        let mut entries = lock(&self.entries);
        let (settings, allowed) = (self.settings.load(), self.allowed.load());
        let mut refused = Vec::new();
        for node in snapshot.iter() {
            let entry = entries.entry(node.client.clone()).or_insert_with(|| {
                if allowed.refuses(&node.client) {
                    refused.push(&node.client);
                }
                NodeEntry::new(Arc::clone(node), &settings, now)
            });
            entry.node = Arc::clone(node);
            entry.withdrawn_at = None;
        }
        if let Some(first) = refused.first() {
            let count = refused.len();
            warn!(%first, count, "nodes are not used: {NOT_ALLOWED}");
        }
        let named: HashSet<&Endpoint> = snapshot.iter().map(|node| &node.client).collect();
        let mut withdrawn: Vec<(Instant, Endpoint)> = Vec::new();
        entries.retain(|endpoint, entry| {
            if named.contains(endpoint) {
                return true;
            }
            let since = entry.withdrawn(&settings, now);
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

    /// Calls `change` with the entry of `node`. Creates the entry if there is none.
    fn with_entry<T>(&self, node: &Arc<Node>, change: impl FnOnce(&mut NodeEntry, &Settings) -> T) -> T {
        let mut entries = lock(&self.entries);
        let settings = self.settings.load();
        let entry = entries
            .entry(node.client.clone())
            .or_insert_with(|| NodeEntry::new(Arc::clone(node), &settings, Instant::now()));
        change(entry, &settings)
    }
}

/// The book for the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodesRecord {
    entries: Vec<NodeEntry>,
    #[serde(with = "time")]
    started: Instant,
}

/// Locks `mutex` even if it is poisoned: one panic must not end the other sessions.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
