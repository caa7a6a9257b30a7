//! Reports from the task of a session to the rest of the sidecar: counters, the [`SessionInfo`], the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use standin_registry::Node;
use tracing::{debug, info, warn};

use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::losses::Loss;
use crate::moves::Move;
use crate::session::{Failover, LossOrigin, SessionEvent};
use crate::session_info::SessionInfo;

use super::Task;

impl Task {
    /// Handles an event of the session.
    pub(super) fn handle(&mut self, event: SessionEvent) {
        let (id, metrics) = (self.session_info.id, &self.shared.metrics);
        match event {
            SessionEvent::Lost {
                cause,
                last_error,
                origin,
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
                self.node_lost(cause, last_error, origin, in_doubt);
                if served || self.session.client_label().is_none() {
                    self.search_began = Instant::now();
                }
            }
            SessionEvent::Joined { failover } => {
                self.permit = None;
                let now = Instant::now();
                if !self.session.is_holding() {
                    self.recovery_entry.released(now);
                }
                if let Some(node) = self.session.node() {
                    self.shared.reachable(now);
                    self.recovery_entry.served(&node.client, now);
                    self.shared.book.proved(node, now);
                    if let Some(failover) = failover {
                        self.session_info.status().moves += 1;
                        metrics.failover(&failover);
                        log_failover(&self.session_info, node, &failover);
                        self.shared
                            .moves
                            .add(finished_move(&self.session_info, node, &failover));
                    }
                }
            }
            SessionEvent::Alive => {
                let now = Instant::now();
                if let Some(node) = self.session.node().filter(|_| self.recovery_entry.is_served()) {
                    self.shared.reachable(now);
                    self.shared.book.proved(node, now);
                }
            }
            SessionEvent::Back => {
                self.recovery_entry.back(Instant::now());
                self.release();
            }
            SessionEvent::Resent(count) => metrics.resent.increment(count),
            SessionEvent::ConnectUrls(urls) => {
                if let Some(node) = self.session.node() {
                    self.shared
                        .registry
                        .learned(&node.client, node.credentials.clone(), &urls);
                }
            }
            SessionEvent::NodeError { text, kind } => {
                metrics.node_errors.increment(kind);
                debug!(session = id, kind, "node sent -ERR '{text}'");
            }
            SessionEvent::HeldRefused { text } => {
                let node = self.session.node().map(|node| node.client.to_string());
                warn!(
                    session = id,
                    node, "node refused the credentials that the sidecar holds: '{text}'"
                );
            }
            SessionEvent::ComponentError { text, kind } => {
                metrics.client_errors.increment(kind);
                info!(session = id, component = %self.session_info.component, kind, "sent -ERR to the component: '{text}'");
            }
            SessionEvent::Connected => {
                self.logged_in();
                let client = self.session.client_label().cloned().unwrap_or_default();
                debug!(session = id, component = %self.session_info.component, ?client, "component sent CONNECT");
                self.session_info.status().client = client;
            }
            SessionEvent::Leaving => {
                debug!(session = id, "node is draining, dialling another");
                if let Some(node) = self.session.node() {
                    self.shared.book.leaves(node, Instant::now());
                }
            }
        }
    }

    /// Records the loss of the node in the node book, the recovery and the log.
    fn node_lost(
        &mut self,
        cause: Cause,
        last_error: Option<String>,
        origin: LossOrigin,
        in_doubt: InDoubtCount,
    ) {
        let trial = self.permit.take().is_some_and(|permit| permit.is_trial());
        let Some(node) = self.session.node() else { return };
        let (book, now) = (&self.shared.book, Instant::now());
        let is_planned = cause.is_planned();
        self.resets_node = !is_planned;
        let awaited = !is_planned && self.session.client_label().is_some();
        let is_reported = self.recovery_entry.lost(&node.client, awaited, in_doubt);
        self.release_at = None;
        let failed = match origin {
            // A loss that another session has reported is not counted again: the node may already be back.
            LossOrigin::Node => !is_reported,
            LossOrigin::Unclear => !book.is_proved(&node.client, now),
            LossOrigin::Other => false,
        };
        let error = last_error.as_deref().unwrap_or(cause.as_str());
        if failed && book.failed(node, error, trial, now) {
            warn!(node = %node.client, %cause, error, "node failed while it served sessions");
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

    /// Updates the [`SessionInfo`].
    pub(super) fn report(&mut self) {
        let session_info = &self.session_info;
        session_info.add_traffic(self.session.take_traffic());
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

/// Returns the entry of a finished move in `/movez`.
fn finished_move(session: &SessionInfo, to: &Arc<Node>, failover: &Failover) -> Move {
    Move {
        at: SystemTime::now(),
        session: session.id,
        component: session.component,
        nodes: Some([Arc::clone(&failover.from), Arc::clone(to)]),
        cause: failover.cause.as_str(),
        silent: failover.silent,
        took: failover.took,
        in_doubt: failover.in_doubt,
        abandoned: 0,
        subscriptions: failover.subscriptions,
    }
}

/// Logs a finished move for the operator: both nodes, the cause, the time without a node, and the number of messages in
/// doubt.
fn log_failover(session: &SessionInfo, to: &Node, failover: &Failover) {
    let millis = |time: Duration| time.as_micros() as f64 / 1000.0;
    info!(
        session = session.id,
        component = %session.component,
        from = %failover.from.client,
        to = %to.client,
        cause = %failover.cause,
        silent_ms = millis(failover.silent),
        move_ms = millis(failover.took),
        in_doubt_dropped = failover.in_doubt.dropped,
        in_doubt_resent = failover.in_doubt.resent,
        subscriptions = failover.subscriptions,
        "session moved"
    );
}
