//! What the task of a session tells the rest of the sidecar: counters, the card, the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use standin_registry::Node;
use tracing::{debug, info, warn};

use crate::card::Card;
use crate::cause::Cause;
use crate::session::{Move, Note};
use crate::shared::Shared;

use super::Task;

impl Task {
    pub(super) fn tell(&mut self, note: Note) {
        let (id, metrics) = (self.card.id, &self.shared.metrics);
        match note {
            Note::Lost {
                cause,
                in_doubt,
                served,
            } => {
                metrics.in_doubt_drop.increment(in_doubt.dropped);
                metrics.in_doubt_resend.increment(in_doubt.resent);
                if served {
                    self.rounds = 0;
                }
                let Some(node) = self.session.node() else { return };
                // A connection that the node closed for what the component did says nothing about the node.
                if cause != Cause::LameDuck && !self.session.is_ending() {
                    self.shared
                        .book
                        .failed(&node.client, cause.as_str(), Instant::now());
                }
                debug!(session = id, node = %node.client, %cause, "lost the node");
            }
            Note::Joined { moved } => {
                self.permit = None;
                if let Some(node) = self.session.node() {
                    self.shared.book.succeeded(&node.client);
                    if let Some(moved) = moved {
                        metrics.failover(moved.cause, moved.took);
                        log_move(&self.card, node, &moved);
                    }
                }
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
                info!(session = id, component = %self.card.component, kind, "component was sent -ERR '{text}'");
            }
            Note::Abandoned { bytes } => {
                let component = self.card.component;
                warn!(session = id, %component, bytes, "session ended with bytes that no node has taken");
            }
            Note::Connected => {
                let client = self.session.client_label().cloned().unwrap_or_default();
                debug!(session = id, component = %self.card.component, ?client, "component sent CONNECT");
                self.card.seldom().client = client;
            }
            Note::Leaving => debug!(session = id, "node is about to go: looking for another"),
        }
        let mut seldom = self.card.seldom();
        seldom.moves = self.session.moves();
    }

    /// Writes the card, and adds what passed to the counters.
    pub(super) fn report(&mut self) {
        let traffic = self.session.take_traffic();
        let (card, metrics) = (&self.card, &self.shared.metrics);
        if traffic.bytes_to_node > 0 {
            metrics.messages.to_node.increment(traffic.messages_to_node);
            metrics.bytes.to_node.increment(traffic.bytes_to_node);
            metrics.own_pings.increment(traffic.own_pings);
            add(&card.messages_to_node, traffic.messages_to_node);
            add(&card.bytes_to_node, traffic.bytes_to_node);
        }
        if traffic.bytes_to_component > 0 {
            metrics
                .messages
                .to_component
                .increment(traffic.messages_to_component);
            metrics.bytes.to_component.increment(traffic.bytes_to_component);
            add(&card.messages_to_component, traffic.messages_to_component);
            add(&card.bytes_to_component, traffic.bytes_to_component);
        }
        card.in_doubt.store(self.session.in_doubt(), Relaxed);
        card.subscriptions
            .store(self.session.subscriptions() as u64, Relaxed);
        let buffered = self.session.buffered_bytes();
        if buffered != self.buffered.bytes {
            self.buffered.set(buffered);
            card.buffered_bytes.store(buffered as u64, Relaxed);
        }
        let state = self.session.state();
        if state != self.state {
            self.state = state;
            card.seldom().state = state;
        }
    }
}

/// What a session has added to the sum of all buffers; taken off again even when the session panics.
pub(super) struct Buffered {
    pub(super) shared: Arc<Shared>,
    pub(super) bytes: usize,
}

impl Buffered {
    fn set(&mut self, bytes: usize) {
        self.shared
            .count_buffered(std::mem::replace(&mut self.bytes, bytes), bytes);
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Only one task writes a card's counters, so no atomic addition is needed.
fn add(counter: &std::sync::atomic::AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// The one line that an operator reads after a failover: who moved from where to where, why, how long it took, and what
/// may be missing.
fn log_move(card: &Card, to: &Node, moved: &Move) {
    info!(
        session = card.id,
        component = %card.component,
        from = %moved.from.client,
        to = %to.client,
        cause = %moved.cause,
        took_ms = moved.took.as_micros() as f64 / 1000.0,
        in_doubt_dropped = moved.in_doubt.dropped,
        in_doubt_resent = moved.in_doubt.resent,
        subscriptions = moved.subscriptions,
        "session moved"
    );
}
