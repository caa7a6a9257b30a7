//! Decides when a session may send the publishes that it held after the loss of its node.
//!
//! Promise S10: held publishes are sent when the subscribers are back too, as far as the sidecar can know.
//!
//! A publish that is sent before its subscribers are back has no receiver, and no counter shows the loss. So a
//! session holds its publishes:
//!
//! - After an outage of all nodes, until every session of this sidecar that had no node is back ([`BACK_WAIT_MAX`] at
//!   most), and then `session.settle_ms` longer for subscribers behind other sidecars.
//! - After the loss of one node of several, until the sidecar's other sessions on that node are back
//!   ([`GROUP_WAIT_MAX`] at most).
//!
//! A session is *back* when its node has answered the replay and all frames before the first held publish. An outage
//! begins when no node is proved (`nodes.rs`), every node with sessions has failed, and either every known node was tried
//! without success, or no node was proved for [`BEGINS_AFTER`] while a session that lost its node is not back. The outage
//! ends when a node takes a session or answers a probe.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use standin_registry::Endpoint;
use tokio::sync::Notify;

use crate::doubt::InDoubtCount;
use crate::nodes::SPREAD;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::state_fields::{optional_time, time};

/// Longest wait for sessions that are not back, counted from the end of the outage.
const BACK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait of a session that is back for other sessions that lost the same node.
const GROUP_WAIT_MAX: Duration = Duration::from_millis(50);
/// Time without a proved node after which an outage begins although a dial is still under way: a frozen node accepts
/// connections and then sends nothing. Within this time even a distant node answers a session.
const BEGINS_AFTER: Duration = Duration::from_millis(500);
/// Sessions that lose the same node within this time report one failure of the node, not several.
const SAME_LOSS: Duration = Duration::from_secs(10);

/// A session that lost its node or found none, until it sends its held publishes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Away {
    #[serde(skip)]
    session: Weak<SessionInfo>,
    /// The lost node; `None` if the session never had one.
    node: Option<Endpoint>,
    /// Whether the session was without a node in the present outage.
    in_outage: bool,
    /// Time at which the session was back.
    #[serde(with = "optional_time")]
    back_at: Option<Instant>,
    in_doubt: InDoubtCount,
}

/// The state for the next program, without the sessions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecoveryRecord {
    outage: Option<Outage>,
    expired: usize,
    nodes: Vec<NodeLoss>,
}

/// The last loss of a node that has sessions.
#[derive(Debug, Serialize, Deserialize)]
struct NodeLoss {
    node: Endpoint,
    epoch: u64,
    #[serde(with = "optional_time")]
    lost_at: Option<Instant>,
}

/// An outage of all nodes. The entry stays until the last session of the outage has sent its held publishes, or the
/// longest wait for that has passed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outage {
    #[serde(with = "time")]
    began: Instant,
    #[serde(with = "optional_time")]
    ended: Option<Instant>,
    /// Time at which the last session was back.
    #[serde(with = "optional_time")]
    all_back_at: Option<Instant>,
    /// Highest number of sessions that waited at one time.
    sessions: usize,
    /// Bytes that the sessions held at the end of the outage.
    held_bytes: u64,
    /// Publishes in doubt of the sessions that waited.
    in_doubt: InDoubtCount,
    /// Publishes that sessions still held when they ended.
    abandoned: u64,
    /// Whether the beginning was reported.
    begin_reported: bool,
}

/// The state behind the lock.
#[derive(Debug, Default)]
struct State {
    away: HashMap<u64, Away>,
    /// Number of sessions of the present outage that are not back.
    missing_in_outage: usize,
    /// Number of sessions that are not back, by lost node.
    missing_by_node: HashMap<Endpoint, usize>,
    outage: Option<Outage>,
    /// Sessions closed since the last report because they had no node.
    expired: usize,
    nodes: HashMap<Endpoint, NodeSessions>,
}

/// Number of sessions on one node. Each loss begins another epoch, which distinguishes sessions that may not have noticed
/// the loss yet from sessions that are on the node again.
#[derive(Debug, Default)]
struct NodeSessions {
    epoch: u64,
    /// Sessions that the node has served since the epoch began.
    current: usize,
    /// Sessions of earlier epochs, which have not noticed the last loss yet.
    earlier: usize,
    /// Time of the loss that began the epoch.
    lost_at: Option<Instant>,
}

/// Proof that a session is counted on a node. The session returns it when it leaves the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) node: Endpoint,
    epoch: u64,
}

/// A log line about an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutageReport {
    /// No node is reachable.
    Began {
        /// Sessions without a node.
        sessions_waiting: usize,
    },
    /// Sessions were closed because they had no node for `session.outage_secs`.
    Expired {
        /// Sessions closed since the last such report.
        sessions: usize,
    },
    /// A node is reachable again, and all held publishes were sent or the longest wait for that has passed.
    Ended {
        /// Time from the beginning of the outage to its end.
        lasted: Duration,
        /// Highest number of sessions that waited at one time.
        sessions: usize,
        /// Bytes of components held at the end of the outage.
        held_bytes: u64,
        /// Publishes in doubt that the waiting sessions sent again.
        resent: u64,
        /// Publishes in doubt that were dropped, plus publishes that were still held when their session ended.
        lost: u64,
    },
}

/// The outage state of the sidecar: sessions without a node, and sessions per node.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    state: Mutex<State>,
    /// Signals that there may be something to report.
    changed: Notify,
}

impl Recovery {
    /// Records that `session` lost `node`. `served` is set if the node had taken the session. `awaited` is true if
    /// other sessions wait for this one: the loss was not planned, and the component has sent CONNECT. Returns whether
    /// another session has reported the same loss of the node.
    pub(crate) fn lost(
        &self,
        session: &Arc<SessionInfo>,
        node: &Endpoint,
        served: Option<Served>,
        awaited: bool,
        in_doubt: InDoubtCount,
        now: Instant,
    ) -> bool {
        let mut state = self.lock();
        let is_reported = state.leave(served, awaited, now);
        if awaited {
            let mut away = state.take(session);
            away.back_at = None;
            away.node = Some(node.clone());
            away.in_doubt += in_doubt;
            state.put(session.id, away);
            if let Some(outage) = state.outage.as_mut().filter(|outage| outage.ended.is_none()) {
                outage.in_doubt += in_doubt;
            }
        } else {
            state.wake_group(Some(node));
        }
        is_reported
    }

    /// Records that `session` found no node that takes it. `waits` is true if its component has sent a command.
    /// `none_reachable_since` is set if no node is proved and every known node was tried without success.
    pub(crate) fn round_failed(
        &self,
        session: &Arc<SessionInfo>,
        waits: bool,
        none_reachable_since: Option<Instant>,
        has_failed: impl Fn(&Endpoint) -> bool,
    ) {
        let mut state = self.lock();
        if waits {
            let away = state.take(session);
            state.put(session.id, away);
        }
        if none_reachable_since.is_some_and(|since| state.begin_outage(since, has_failed)) {
            self.changed.notify_one();
        }
    }

    /// Records that no node has been proved since `since` and every known node failed when it was last dialled or probed.
    pub(crate) fn all_probes_failed(&self, since: Instant, has_failed: impl Fn(&Endpoint) -> bool) {
        if self.lock().begin_outage(since, has_failed) {
            self.changed.notify_one();
        }
    }

    /// Records that no node has been proved since `since`.
    pub(crate) fn none_proved(&self, since: Instant, has_failed: impl Fn(&Endpoint) -> bool, now: Instant) {
        let mut state = self.lock();
        let is_missing = |away: &Away| away.node.is_some() && away.back_at.is_none();
        let is_due = now >= since + BEGINS_AFTER && state.away.values().any(is_missing);
        if is_due && state.begin_outage(since, has_failed) {
            self.changed.notify_one();
        }
    }

    /// Returns whether `session` was without a node and has not sent its held publishes.
    pub(crate) fn is_away(&self, session: &SessionInfo) -> bool {
        self.lock().away.contains_key(&session.id)
    }

    /// Returns whether `session`, which just connected to a node, must hold its publishes until other sessions are back.
    pub(crate) fn must_hold(&self, session: &SessionInfo, settle: Duration) -> bool {
        let state = self.lock();
        let Some(away) = state.away.get(&session.id) else {
            return false;
        };
        if away.in_outage {
            return !settle.is_zero() || state.missing_in_outage > 1;
        }
        let node = away.node.as_ref();
        node.is_some_and(|node| state.is_group_missing(node, 1))
    }

    /// Records that `node` has taken a session.
    pub(crate) fn served(&self, node: &Endpoint) -> Served {
        let mut state = self.lock();
        let sessions = state.nodes.entry(node.clone()).or_default();
        sessions.current += 1;
        Served {
            node: node.clone(),
            epoch: sessions.epoch,
        }
    }

    /// Records that a node has taken a session or answered a probe. Returns whether this ended an outage.
    pub(crate) fn reachable(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let ends = state.is_outage_on();
        if ends {
            state.end_outage(now);
            self.changed.notify_one();
        }
        ends
    }

    /// Records that `session` has its subscriptions back.
    pub(crate) fn back(&self, session: &SessionInfo, now: Instant) {
        let mut state = self.lock();
        if let Some(mut away) = state.remove(session.id) {
            away.back_at = Some(now);
            let node = away.node.clone();
            state.put(session.id, away);
            state.update_all_back(node.as_ref(), now);
        }
    }

    /// Returns the time at which `session`, which is back, may send its held publishes.
    pub(crate) fn release_at(&self, session: &SessionInfo, settle: Duration, now: Instant) -> Instant {
        let state = self.lock();
        let Some(away) = state.away.get(&session.id) else {
            return now;
        };
        let outage = state.outage.as_ref();
        let all_back_by = |outage: &Outage| Some(outage.all_back_at.unwrap_or(outage.ended? + BACK_WAIT_MAX));
        match (&away.node, outage.and_then(all_back_by)) {
            (_, Some(all_back_by)) if away.in_outage => all_back_by + settle,
            (Some(node), _) if state.is_group_missing(node, 0) => {
                away.back_at.unwrap_or(now) + GROUP_WAIT_MAX
            }
            _ => now,
        }
    }

    /// Records that `session` sends its held publishes.
    pub(crate) fn released(&self, session: &SessionInfo, now: Instant) {
        let mut state = self.lock();
        if let Some(away) = state.remove(session.id) {
            state.update_all_back(away.node.as_ref(), now);
            self.changed.notify_one();
        }
    }

    /// Records the end of `session`. `abandoned` is the number of publishes that no node has taken. `expired` is true if
    /// the session ended because it had no node.
    pub(crate) fn ended(
        &self,
        session: &SessionInfo,
        served: Option<Served>,
        expired: bool,
        abandoned: u64,
        now: Instant,
    ) {
        let mut state = self.lock();
        state.leave(served, false, now);
        state.expired += usize::from(expired);
        let away = state.remove(session.id);
        if expired || away.is_some() {
            self.changed.notify_one();
        }
        let Some(away) = away else { return };
        if away.in_outage
            && let Some(outage) = &mut state.outage
        {
            outage.abandoned += abandoned;
        }
        state.update_all_back(away.node.as_ref(), now);
    }

    /// Returns the time until which sessions come back at random times after an outage; see [`SPREAD`].
    pub(crate) fn spread_until(&self, now: Instant) -> Option<Instant> {
        let ended = self.lock().outage.as_ref()?.ended?;
        Some(ended + SPREAD).filter(|until| *until > now)
    }

    /// Waits until there may be something to report.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the next log line, if one is due.
    pub(crate) fn report(&self, settle: Duration, now: Instant) -> Option<OutageReport> {
        let mut state = self.lock();
        let waiting = state.away.values().filter(|away| away.in_outage).count();
        if let Some(outage) = state.outage.as_mut().filter(|outage| !outage.begin_reported) {
            outage.begin_reported = true;
            let sessions_waiting = match outage.ended {
                Some(_) => outage.sessions,
                None => waiting,
            };
            return Some(OutageReport::Began { sessions_waiting });
        }
        if state.expired > 0 {
            let sessions = std::mem::take(&mut state.expired);
            return Some(OutageReport::Expired { sessions });
        }
        let outage = state.outage.as_mut()?;
        let ended = outage.ended?;
        if waiting > 0 && now < ended + BACK_WAIT_MAX + settle {
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
        // Sessions that are not back by now are no longer waited for, in this outage or the next.
        let missing = |(_, away): &(&u64, &Away)| away.in_outage && away.back_at.is_none();
        let missing: Vec<u64> = state.away.iter().filter(missing).map(|(id, _)| *id).collect();
        missing.into_iter().for_each(|id| drop(state.remove(id)));
        Some(report)
    }

    /// Returns the state for the next program, without the sessions.
    pub(crate) fn record(&self) -> RecoveryRecord {
        let state = self.lock();
        let nodes = state.nodes.iter().map(|(node, sessions)| NodeLoss {
            node: node.clone(),
            epoch: sessions.epoch,
            lost_at: sessions.lost_at,
        });
        RecoveryRecord {
            outage: state.outage.clone(),
            expired: state.expired,
            nodes: nodes.collect(),
        }
    }

    /// Returns the entry of a session for the next program, if it has one.
    pub(crate) fn away(&self, session: u64) -> Option<Away> {
        self.lock().away.get(&session).cloned()
    }

    /// Goes on with the state of the former program.
    pub(crate) fn restore(&self, record: RecoveryRecord) {
        let mut state = self.lock();
        (state.outage, state.expired) = (record.outage, record.expired);
        for loss in record.nodes {
            let sessions = state.nodes.entry(loss.node).or_default();
            (sessions.epoch, sessions.lost_at) = (loss.epoch, loss.lost_at);
        }
    }

    /// Goes on with a session of that program.
    pub(crate) fn restore_session(
        &self,
        session: &Arc<SessionInfo>,
        served: Option<&Served>,
        away: Option<Away>,
    ) {
        let mut state = self.lock();
        if let Some(served) = served {
            let sessions = state.nodes.entry(served.node.clone()).or_default();
            if sessions.epoch == served.epoch {
                sessions.current += 1;
            } else {
                sessions.earlier += 1;
            }
        }
        if let Some(mut away) = away {
            away.session = Arc::downgrade(session);
            state.put(session.id, away);
        }
    }

    /// Forgets nodes without sessions, when all sessions of that program go on.
    pub(crate) fn restored(&self) {
        self.lock()
            .nodes
            .retain(|_, sessions| sessions.current + sessions.earlier > 0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not end the other sessions; each change leaves the state consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes the entry of a session, or creates one. The caller changes it and puts it back.
    fn take(&mut self, session: &Arc<SessionInfo>) -> Away {
        self.remove(session.id).unwrap_or_else(|| Away {
            session: Arc::downgrade(session),
            node: None,
            in_outage: false,
            back_at: None,
            in_doubt: InDoubtCount::default(),
        })
    }

    /// Inserts the entry of a session and counts it.
    fn put(&mut self, id: u64, mut away: Away) {
        away.in_outage |= self.is_outage_on();
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

    /// Removes the entry of a session from the table and the counts.
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

    /// Records that a node no longer serves a session. With `lost`, the node's other sessions may be about to notice
    /// the same loss. Returns whether another session has reported the same loss within [`SAME_LOSS`].
    fn leave(&mut self, served: Option<Served>, lost: bool, now: Instant) -> bool {
        let Some(served) = served else { return false };
        let Some(sessions) = self.nodes.get_mut(&served.node) else {
            return false;
        };
        let is_reported =
            served.epoch != sessions.epoch && sessions.lost_at.is_some_and(|at| now < at + SAME_LOSS);
        if served.epoch == sessions.epoch {
            sessions.current -= 1;
            if lost {
                sessions.earlier += std::mem::take(&mut sessions.current);
                sessions.epoch += 1;
                sessions.lost_at = Some(now);
            }
        } else {
            sessions.earlier -= 1;
        }
        if sessions.current + sessions.earlier == 0 {
            self.nodes.remove(&served.node);
        }
        is_reported
    }

    /// Returns whether more than `besides` sessions that lost `node` are not back, or some sessions of `node` may not have
    /// noticed a loss that another one has reported.
    fn is_group_missing(&self, node: &Endpoint, besides: usize) -> bool {
        let missing = self.missing_by_node.get(node).copied().unwrap_or_default();
        missing > besides || self.nodes.get(node).is_some_and(|sessions| sessions.earlier > 0)
    }

    /// Returns whether an outage is under way: it has begun and not ended.
    fn is_outage_on(&self) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.ended.is_none())
    }

    /// Begins an outage if every node that serves a session has failed and no outage is under way. If the last outage is
    /// not reported as ended yet, it continues instead. Returns whether an outage began or continues.
    fn begin_outage(&mut self, since: Instant, has_failed: impl Fn(&Endpoint) -> bool) -> bool {
        // A failed node may still have sessions: a session does not notice the loss while its component does not read.
        if self.is_outage_on() || !self.nodes.keys().all(has_failed) {
            return false;
        }
        let outage = self.outage.get_or_insert_with(|| Outage {
            began: since,
            ended: None,
            all_back_at: None,
            sessions: 0,
            held_bytes: 0,
            in_doubt: InDoubtCount::default(),
            abandoned: 0,
            begin_reported: false,
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
        let held = |away: &Away| {
            let session = away.session.upgrade();
            session.map_or(0, |session| session.buffered_bytes.load(Relaxed))
        };
        if let Some(outage) = &mut self.outage {
            outage.ended = Some(now);
            outage.held_bytes = self.away.values().map(held).sum();
        }
        self.update_all_back(None, now);
    }

    /// Records when all sessions of an outage are back. Wakes the sessions that wait for this, or for the other
    /// sessions of `node`.
    fn update_all_back(&mut self, node: Option<&Endpoint>, now: Instant) {
        let all_back = self.missing_in_outage == 0;
        if let Some(outage) = self.outage.as_mut().filter(|outage| outage.ended.is_some()) {
            outage.all_back_at = all_back.then(|| outage.all_back_at.unwrap_or(now));
            if all_back {
                self.wake(|away| away.in_outage);
            }
        }
        self.wake_group(node);
    }

    /// Wakes the sessions that lost `node`, if all of them are back.
    fn wake_group(&self, node: Option<&Endpoint>) {
        if let Some(node) = node
            && !self.missing_by_node.contains_key(node)
        {
            self.wake(|away| !away.in_outage && away.node.as_ref() == Some(node));
        }
    }

    /// Wakes the sessions that are back and match `filter`.
    fn wake(&self, filter: impl Fn(&Away) -> bool) {
        let waiting = self.away.values().filter(|away| away.back_at.is_some());
        for away in waiting.filter(|away| filter(away)) {
            if let Some(session) = away.session.upgrade() {
                session.send(SessionCommand::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests;
