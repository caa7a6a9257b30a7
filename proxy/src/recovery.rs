//! What happens between the loss of a node and the moment when the publishes held meanwhile go out again.
//!
//! A held publish that goes out before its subscribers are back reaches nobody, and nobody counts it. So (promise S10):
//!
//! - After an outage of all nodes it waits until every session of this sidecar that was without a node is back
//!   ([`BACK_WAIT_MAX`] at most), and `session.settle_ms` longer for subscribers behind other sidecars.
//! - After the loss of one node of several it waits for the sidecar's other sessions on that node
//!   ([`GROUP_WAIT_MAX`] at most).
//!
//! A session is *back* when its node has answered the replay and all frames before the first held publish. An outage begins
//! when a session, or the prober, has tried every known node in vain while no session has a node; it ends when a node takes
//! the first session.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use standin_registry::Endpoint;
use tokio::sync::Notify;

use crate::card::{Card, Errand};
use crate::doubt::InDoubtCount;

/// How long after the end of an outage held publishes wait for sessions that are not back.
const BACK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a session that is back waits for others that lost the same node.
const GROUP_WAIT_MAX: Duration = Duration::from_millis(50);
/// Over how long the sessions come back after an outage when some known nodes are still down: else all of them would be
/// on the first node that returns. Below the least useful `session.settle_ms`, so that subscribers are back in time.
const SPREAD: Duration = Duration::from_millis(500);

/// A session that has lost its node, or never had one, and whose held publishes have not gone out.
#[derive(Debug)]
struct Away {
    card: Arc<Card>,
    /// The node it lost.
    node: Option<Endpoint>,
    /// It was without a node in the present outage.
    in_outage: bool,
    /// When it had its subscriptions back.
    back_at: Option<Instant>,
    in_doubt: InDoubtCount,
}

/// An outage of all nodes, until the last session of it has sent what it held.
#[derive(Debug)]
struct Outage {
    began: Instant,
    ended: Option<Instant>,
    /// When the last session was back.
    all_back_at: Option<Instant>,
    /// Most sessions that waited at one time.
    sessions: usize,
    held_bytes: u64,
    in_doubt: InDoubtCount,
    /// Publishes that sessions still held when they ended.
    abandoned: u64,
    /// Sessions closed for want of a node since the last report.
    expired: usize,
    begin_told: bool,
}

#[derive(Debug, Default)]
struct State {
    away: HashMap<u64, Away>,
    /// Those of `away` that are not back: in the present outage, and by the node they lost.
    missing_in_outage: usize,
    missing_by_node: HashMap<Endpoint, usize>,
    outage: Option<Outage>,
    nodes: HashMap<Endpoint, OnNode>,
}

/// Sessions that one node serves. Each loss begins another epoch, so that those who may not have noticed it yet are told
/// from those who are on the node again.
#[derive(Debug, Default)]
struct OnNode {
    epoch: u64,
    current: usize,
    earlier: usize,
}

/// That a node serves a session; given back when it does no longer.
#[derive(Debug)]
pub(crate) struct Served {
    node: Endpoint,
    epoch: u64,
}

/// What the log says of outages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutageReport {
    /// No node is reachable.
    Began {
        /// Sessions without a node.
        sessions_waiting: usize,
    },
    /// Sessions were closed because they had no node for `session.outage_secs`.
    Expired {
        /// How many since the last such report.
        sessions: usize,
    },
    /// A node is reachable again, and all that was held has gone out.
    Ended {
        /// From its beginning to the first session that a node took.
        lasted: Duration,
        /// Most sessions that waited at one time.
        sessions: usize,
        /// Bytes of components that were held when it ended.
        held_bytes: u64,
        /// Publishes in doubt sent again, by the sessions that waited.
        resent: u64,
        /// Publishes in doubt dropped, and publishes held by sessions that ended.
        lost: u64,
    },
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    state: Mutex<State>,
    /// There may be something to report.
    news: Notify,
}

impl Recovery {
    /// The session of `card` lost `node`, which may have served it. It is waited for when `awaited`: it did not leave
    /// the node by itself, and has said CONNECT.
    pub(crate) fn lost(
        &self,
        card: &Arc<Card>,
        node: &Endpoint,
        served: Option<Served>,
        awaited: bool,
        in_doubt: InDoubtCount,
    ) {
        let mut state = self.lock();
        state.leave(served, awaited);
        if awaited {
            let mut away = state.take(card);
            away.back_at = None;
            away.node = Some(node.clone());
            away.in_doubt += in_doubt;
            state.put(card.id, away);
            if let Some(outage) = state.outage.as_mut().filter(|outage| outage.ended.is_none()) {
                outage.in_doubt += in_doubt;
            }
        } else {
            state.call_group(Some(node));
        }
    }

    /// The session of `card` has tried every known node in vain; `waits`: its component has said something.
    pub(crate) fn in_vain(&self, card: &Arc<Card>, waits: bool, now: Instant) {
        let mut state = self.lock();
        if waits {
            let away = state.take(card);
            state.put(card.id, away);
        }
        if state.begin_outage(now) {
            self.news.notify_one();
        }
    }

    /// A probe of every known node failed.
    pub(crate) fn all_probes_failed(&self, now: Instant) {
        if self.lock().begin_outage(now) {
            self.news.notify_one();
        }
    }

    /// Whether the session of `card` was without a node, and has not sent what it held.
    pub(crate) fn is_away(&self, card: &Card) -> bool {
        self.lock().away.contains_key(&card.id)
    }

    /// Whether the session of `card`, to which a node has just connected, must hold its publishes: there are others to wait
    /// for.
    pub(crate) fn must_hold(&self, card: &Card, settle: Duration) -> bool {
        let state = self.lock();
        let Some(away) = state.away.get(&card.id) else {
            return false;
        };
        if away.in_outage {
            return !settle.is_zero() || state.missing_in_outage > 1;
        }
        away.node.as_ref().is_some_and(|node| {
            state
                .missing_by_node
                .get(node)
                .is_some_and(|missing| *missing > 1)
                || state.may_not_have_noticed(node)
        })
    }

    /// `node` has taken a session.
    pub(crate) fn served(&self, node: &Endpoint, now: Instant) -> Served {
        self.reachable(now);
        let mut state = self.lock();
        let on_node = state.nodes.entry(node.clone()).or_default();
        on_node.current += 1;
        Served {
            node: node.clone(),
            epoch: on_node.epoch,
        }
    }

    /// A node has taken a session or answered a probe.
    pub(crate) fn reachable(&self, now: Instant) {
        let mut state = self.lock();
        if state.outage.as_ref().is_some_and(|outage| outage.ended.is_none()) {
            state.end_outage(now);
            self.news.notify_one();
        }
    }

    /// The session of `card` has its subscriptions back.
    pub(crate) fn back(&self, card: &Card, now: Instant) {
        let mut state = self.lock();
        if let Some(mut away) = state.remove(card.id) {
            away.back_at = Some(now);
            let node = away.node.clone();
            state.put(card.id, away);
            state.look_for_all_back(node.as_ref(), now);
        }
    }

    /// When the session of `card`, which is back, may send what it held.
    pub(crate) fn release_at(&self, card: &Card, settle: Duration, now: Instant) -> Instant {
        let state = self.lock();
        let Some(away) = state.away.get(&card.id) else {
            return now;
        };
        let ended = state.outage.as_ref().and_then(|outage| outage.ended);
        match (&away.node, ended) {
            (_, Some(ended)) if away.in_outage => {
                let all_back = state.outage.as_ref().and_then(|outage| outage.all_back_at);
                all_back.unwrap_or(ended + BACK_WAIT_MAX) + settle
            }
            (Some(node), _)
                if state.may_not_have_noticed(node) || state.missing_by_node.contains_key(node) =>
            {
                away.back_at.unwrap_or(now) + GROUP_WAIT_MAX
            }
            _ => now,
        }
    }

    /// The session of `card` sends what it held.
    pub(crate) fn released(&self, card: &Card, now: Instant) {
        let mut state = self.lock();
        let Some(away) = state.remove(card.id) else { return };
        state.look_for_all_back(away.node.as_ref(), now);
        self.news.notify_one();
    }

    /// The session of `card` is over, with so many publishes that no node has taken; `expired`: for want of a node.
    pub(crate) fn ended(
        &self,
        card: &Card,
        served: Option<Served>,
        expired: bool,
        abandoned: u64,
        now: Instant,
    ) {
        let mut state = self.lock();
        state.leave(served, false);
        let Some(away) = state.remove(card.id) else { return };
        if away.in_outage
            && let Some(outage) = &mut state.outage
        {
            outage.abandoned += abandoned;
            outage.expired += usize::from(expired);
        }
        state.look_for_all_back(away.node.as_ref(), now);
        self.news.notify_one();
    }

    /// Until when sessions that were without a node come back one after another; see [`SPREAD`].
    pub(crate) fn spread_until(&self, now: Instant) -> Option<Instant> {
        let ended = self.lock().outage.as_ref()?.ended?;
        Some(ended + SPREAD).filter(|until| *until > now)
    }

    /// Waits until there may be something to report.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// What is to be logged now.
    pub(crate) fn report(&self) -> Option<OutageReport> {
        let mut state = self.lock();
        let waiting = state.away.values().filter(|away| away.in_outage).count();
        let outage = state.outage.as_mut()?;
        if outage.expired > 0 && outage.begin_told {
            let sessions = std::mem::take(&mut outage.expired);
            return Some(OutageReport::Expired { sessions });
        }
        let Some(ended) = outage.ended else {
            return (!std::mem::replace(&mut outage.begin_told, true)).then_some(OutageReport::Began {
                sessions_waiting: waiting,
            });
        };
        if waiting > 0 {
            return None;
        }
        let report = OutageReport::Ended {
            lasted: ended.saturating_duration_since(outage.began),
            sessions: outage.sessions,
            held_bytes: outage.held_bytes,
            resent: outage.in_doubt.resent,
            lost: outage.in_doubt.dropped + outage.abandoned,
        };
        state.outage = None;
        Some(report)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take the other sessions down; the state is whole after any of its changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out the entry of a session without a node, to be changed and put back; a new one if there is none.
    fn take(&mut self, card: &Arc<Card>) -> Away {
        self.remove(card.id).unwrap_or_else(|| Away {
            card: Arc::clone(card),
            node: None,
            in_outage: false,
            back_at: None,
            in_doubt: InDoubtCount::default(),
        })
    }

    fn put(&mut self, id: u64, mut away: Away) {
        away.in_outage |= self.outage.as_ref().is_some_and(|outage| outage.ended.is_none());
        if away.back_at.is_none() {
            self.missing_in_outage += usize::from(away.in_outage);
            if let Some(node) = &away.node {
                *self.missing_by_node.entry(node.clone()).or_default() += 1;
            }
        }
        let in_outage = away.in_outage;
        self.away.insert(id, away);
        if in_outage && let Some(outage) = &mut self.outage {
            outage.sessions = outage.sessions.max(self.away.len());
        }
    }

    fn remove(&mut self, id: u64) -> Option<Away> {
        let away = self.away.remove(&id)?;
        if away.back_at.is_none() {
            self.missing_in_outage -= usize::from(away.in_outage);
            if let Some(node) = &away.node
                && let Some(missing) = self.missing_by_node.get_mut(node)
            {
                *missing -= 1;
                if *missing == 0 {
                    self.missing_by_node.remove(node);
                }
            }
        }
        Some(away)
    }

    /// A node no longer serves a session; with `lost` others on it may be about to notice the same.
    fn leave(&mut self, served: Option<Served>, lost: bool) {
        let Some(served) = served else { return };
        let Some(on_node) = self.nodes.get_mut(&served.node) else {
            return;
        };
        if served.epoch == on_node.epoch {
            on_node.current -= 1;
            if lost {
                on_node.earlier += std::mem::take(&mut on_node.current);
                on_node.epoch += 1;
            }
        } else {
            on_node.earlier -= 1;
        }
        if on_node.current + on_node.earlier == 0 {
            self.nodes.remove(&served.node);
        }
    }

    /// Whether `node` served sessions when another lost it that have not told since of their own loss.
    fn may_not_have_noticed(&self, node: &Endpoint) -> bool {
        self.nodes.get(node).is_some_and(|on_node| on_node.earlier > 0)
    }

    /// Begins an outage if no node serves a session and none is going on. A second outage, before all of the first have sent
    /// what they held, prolongs it.
    fn begin_outage(&mut self, now: Instant) -> bool {
        let is_on = self.outage.as_ref().is_some_and(|outage| outage.ended.is_none());
        if is_on || !self.nodes.is_empty() {
            return false;
        }
        let outage = self.outage.get_or_insert_with(|| Outage {
            began: now,
            ended: None,
            all_back_at: None,
            sessions: 0,
            held_bytes: 0,
            in_doubt: InDoubtCount::default(),
            abandoned: 0,
            expired: 0,
            begin_told: false,
        });
        outage.ended = None;
        outage.all_back_at = None;
        for away in self.away.values_mut().filter(|away| !away.in_outage) {
            away.in_outage = true;
            outage.in_doubt += away.in_doubt;
            self.missing_in_outage += usize::from(away.back_at.is_none());
        }
        outage.sessions = outage.sessions.max(self.away.len());
        true
    }

    fn end_outage(&mut self, now: Instant) {
        let held = |away: &Away| away.card.buffered_bytes.load(Relaxed);
        let held_bytes = self.away.values().map(held).sum();
        if let Some(outage) = &mut self.outage {
            outage.ended = Some(now);
            outage.held_bytes = held_bytes;
        }
        self.look_for_all_back(None, now);
    }

    /// Notes when all sessions of an outage are back. Has those look again who wait for that, or for `node`'s sessions.
    fn look_for_all_back(&mut self, node: Option<&Endpoint>, now: Instant) {
        let all_back = self.missing_in_outage == 0;
        if let Some(outage) = self.outage.as_mut().filter(|outage| outage.ended.is_some()) {
            outage.all_back_at = all_back.then(|| outage.all_back_at.unwrap_or(now));
            if all_back {
                self.call(|away| away.in_outage);
            }
        }
        self.call_group(node);
    }

    /// Has the sessions look again that wait for others on `node`, when none of these is missing.
    fn call_group(&self, node: Option<&Endpoint>) {
        if let Some(node) = node
            && !self.missing_by_node.contains_key(node)
        {
            self.call(|away| !away.in_outage && away.node.as_ref() == Some(node));
        }
    }

    fn call(&self, whom: impl Fn(&Away) -> bool) {
        let waiting = self.away.values().filter(|away| away.back_at.is_some());
        for away in waiting.filter(|away| whom(away)) {
            away.card.call(Errand::Release);
        }
    }
}

#[cfg(test)]
#[path = "recovery/tests.rs"]
mod tests;
