//! Reports from the task of a session to the rest of the sidecar: counters, the card, the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use standin_registry::{Endpoint, Node};
use tracing::{debug, info, warn};

use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::losses::Loss;
use crate::recovery::Served;
use crate::session::{Blame, EndReason, Move, Note, SessionEnd};
use crate::session_info::SessionInfo;
use crate::shared::Shared;

use super::Task;

impl Task {
    pub(super) fn handle(&mut self, note: Note) {
        let (id, metrics) = (self.session_info.id, &self.shared.metrics);
        match note {
            Note::Lost {
                cause,
                said,
                blame,
                in_doubt,
                subjects,
                served,
            } => {
                metrics.in_doubt_drop.increment(in_doubt.dropped);
                metrics.in_doubt_resend.increment(in_doubt.resent);
                self.shared.lost(Loss::InDoubt, &subjects, 0);
                if served {
                    self.rounds = 0;
                }
                self.node_lost(cause, said, blame, in_doubt);
            }
            Note::Joined { moved } => {
                self.permit = None;
                let now = Instant::now();
                if !self.session.is_holding() {
                    self.recovery_entry.released(now);
                }
                if let Some(node) = self.session.node() {
                    self.shared.reachable(now);
                    self.recovery_entry.served(&node.client, now);
                    self.shared.book.proved(node, now);
                    if let Some(moved) = moved {
                        metrics.failover(&moved);
                        log_move(&self.session_info, node, &moved);
                    }
                }
            }
            Note::Alive => {
                let now = Instant::now();
                if let Some(node) = self.session.node().filter(|_| self.recovery_entry.is_served()) {
                    self.shared.reachable(now);
                    self.shared.book.proved(node, now);
                }
            }
            Note::Back => {
                self.recovery_entry.back(Instant::now());
                self.release();
            }
            Note::Resent(count) => metrics.resent.increment(count),
            Note::ConnectUrls(urls) => {
                if let Some(node) = self.session.node() {
                    self.shared
                        .registry
                        .learned(&node.client, node.credentials.clone(), &urls);
                }
            }
            Note::NodeError { text, kind } => {
                metrics.node_errors.increment(kind);
                debug!(session = id, kind, "node sent -ERR '{text}'");
            }
            Note::ComponentError { text, kind } => {
                metrics.client_errors.increment(kind);
                info!(session = id, component = %self.session_info.component, kind, "component was sent -ERR '{text}'");
            }
            Note::Connected => {
                let client = self.session.client_label().cloned().unwrap_or_default();
                debug!(session = id, component = %self.session_info.component, ?client, "component sent CONNECT");
                self.session_info.status().client = client;
            }
            Note::Leaving => debug!(session = id, "node is draining: looking for another"),
        }
        let mut status = self.session_info.status();
        status.moves = self.session.moves();
    }

    /// Records the loss of the node in the node book, the recovery state, the card and the log.
    fn node_lost(&mut self, cause: Cause, said: Option<String>, blame: Blame, in_doubt: InDoubtCount) {
        let trial = self.permit.take().is_some_and(|permit| permit.is_trial());
        let Some(node) = self.session.node() else { return };
        let (book, now) = (&self.shared.book, Instant::now());
        let is_planned = cause == Cause::LameDuck;
        self.gives_up = !is_planned;
        let awaited = !is_planned && self.session.client_label().is_some();
        let is_reported = self.recovery_entry.lost(&node.client, awaited, in_doubt);
        self.release_at = None;
        let failed = match blame {
            // The node may be back by now.
            Blame::Node => !is_reported,
            Blame::Unclear => !book.is_proved(&node.client, now),
            Blame::Nobody => false,
        };
        let error = said.as_deref().unwrap_or(cause.as_str());
        if failed && book.failed(node, error, trial, now) {
            warn!(node = %node.client, %cause, error, "node failed under its sessions");
            self.shared.probe_sessions_on(&node.client);
        }
        debug!(session = self.session_info.id, node = %node.client, %cause, "session lost its node");
    }

    /// Updates the session's share of the shared buffer budget.
    pub(super) fn count_buffered(&mut self) {
        let buffered = self.session.buffered_bytes();
        if buffered != self.buffer_share.bytes {
            self.buffer_share.set(buffered);
            self.session_info.buffered_bytes.store(buffered as u64, Relaxed);
        }
    }

    /// Updates the card, and adds the session's traffic to the counters.
    pub(super) fn report(&mut self) {
        let traffic = self.session.take_traffic();
        let (session_info, metrics) = (&self.session_info, &self.shared.metrics);
        if traffic.bytes_to_node > 0 {
            metrics.messages.to_node.increment(traffic.messages_to_node);
            metrics.bytes.to_node.increment(traffic.bytes_to_node);
            metrics.own_pings.increment(traffic.own_pings);
            add(&session_info.messages_to_node, traffic.messages_to_node);
            add(&session_info.bytes_to_node, traffic.bytes_to_node);
        }
        if traffic.bytes_to_component > 0 {
            metrics
                .messages
                .to_component
                .increment(traffic.messages_to_component);
            metrics.bytes.to_component.increment(traffic.bytes_to_component);
            add(&session_info.messages_to_component, traffic.messages_to_component);
            add(&session_info.bytes_to_component, traffic.bytes_to_component);
        }
        session_info.in_doubt.store(self.session.in_doubt(), Relaxed);
        session_info
            .subscriptions
            .store(self.session.subscriptions() as u64, Relaxed);
        self.count_buffered();
        let session_info = &self.session_info;
        let state = self.session.state();
        if state != self.state {
            self.state = state;
            let mut status = session_info.status();
            status.state = state;
            status.searching_since = self.session.searching_since();
        }
    }
}

/// The session's entry in the recovery after a loss. Dropping it removes the entry, even when the session panics.
pub(super) struct RecoveryEntry {
    shared: Arc<Shared>,
    session: Arc<SessionInfo>,
    /// Set once the present node has taken the session.
    served: Option<Served>,
    /// The session holds its publishes, and the node has its subscriptions again.
    is_back: bool,
    /// Set at the end of the session: publishes that no node has taken, and whether the session ended because it had
    /// no node.
    abandoned: u64,
    expired: bool,
}

impl RecoveryEntry {
    pub(super) fn new(shared: &Arc<Shared>, session: &Arc<SessionInfo>) -> Self {
        Self {
            shared: Arc::clone(shared),
            session: Arc::clone(session),
            served: None,
            is_back: false,
            abandoned: 0,
            expired: false,
        }
    }

    /// Records the end of the session.
    pub(super) fn end(mut self, ended: &SessionEnd) {
        self.abandoned = ended.abandoned.total();
        self.expired = ended.reason == EndReason::Outage;
    }

    /// Returns whether another session has reported the same loss of the node.
    fn lost(&mut self, node: &Endpoint, awaited: bool, in_doubt: InDoubtCount) -> bool {
        self.is_back = false;
        let (recovery, served) = (&self.shared.recovery, self.served.take());
        let now = Instant::now();
        if served.is_some() {
            self.shared.book.count_served(node, false, now);
        }
        recovery.lost(&self.session, node, served, awaited, in_doubt, now)
    }

    pub(super) fn round_failed(&self, waits: bool, none_reachable_since: Option<Instant>) {
        let has_failed = |node: &Endpoint| self.shared.book.has_failed(node);
        self.shared
            .recovery
            .round_failed(&self.session, waits, none_reachable_since, has_failed);
    }

    fn served(&mut self, node: &Endpoint, now: Instant) {
        if self.served.is_none() {
            self.served = Some(self.shared.recovery.served(node));
            self.shared.book.count_served(node, true, now);
        }
    }

    fn is_served(&self) -> bool {
        self.served.is_some()
    }

    fn back(&mut self, now: Instant) {
        self.is_back = true;
        self.shared.recovery.back(&self.session, now);
    }

    /// Returns the time at which the session may send its held publishes. Returns `None` while it does not have its
    /// subscriptions back, or holds nothing.
    pub(super) fn release_at(&self, settle: Duration, now: Instant) -> Option<Instant> {
        self.is_back
            .then(|| self.shared.recovery.release_at(&self.session, settle, now))
    }

    /// Records that the session sends its held publishes, or had none.
    pub(super) fn released(&mut self, now: Instant) {
        self.is_back = false;
        self.shared.recovery.released(&self.session, now);
    }
}

impl Drop for RecoveryEntry {
    fn drop(&mut self) {
        let (served, now) = (self.served.take(), Instant::now());
        if let Some(served) = &served {
            self.shared.book.count_served(served.node(), false, now);
        }
        let (expired, abandoned) = (self.expired, self.abandoned);
        self.shared
            .recovery
            .ended(&self.session, served, expired, abandoned, now);
    }
}

/// The session's share of the shared buffer budget. Dropping it returns the share, even when the session panics.
pub(super) struct BufferShare {
    pub(super) shared: Arc<Shared>,
    pub(super) bytes: usize,
}

impl BufferShare {
    fn set(&mut self, bytes: usize) {
        self.shared
            .count_buffered(std::mem::replace(&mut self.bytes, bytes), bytes);
    }
}

impl Drop for BufferShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Adds without an atomic addition, because only one task writes a card's counters.
fn add(counter: &std::sync::atomic::AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// Logs a finished move: from node, to node, cause, silence for the component, time from the noticed loss, and
/// messages that may be missing. This line is for the operator after a failover.
fn log_move(session: &SessionInfo, to: &Node, moved: &Move) {
    let millis = |time: Duration| time.as_micros() as f64 / 1000.0;
    info!(
        session = session.id,
        component = %session.component,
        from = %moved.from.client,
        to = %to.client,
        cause = %moved.cause,
        silent_ms = millis(moved.silent),
        move_ms = millis(moved.took),
        in_doubt_dropped = moved.in_doubt.dropped,
        in_doubt_resent = moved.in_doubt.resent,
        subscriptions = moved.subscriptions,
        "session moved"
    );
}
