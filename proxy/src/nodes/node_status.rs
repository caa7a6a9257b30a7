//! The state of all nodes for `/nodez`, `/readyz` and the metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Node;

use super::{NodeBook, lock};

/// One node as shown on `/nodez` and in the metrics.
#[derive(Debug, Clone)]
pub(crate) struct NodeStatus {
    pub(crate) node: Arc<Node>,
    /// `up`, `unproved`, `draining`, `cooling` or `down`.
    pub(crate) state: &'static str,
    /// Whether a session or a probe has proved the node recently.
    pub(crate) proved: bool,
    /// Whether no source names the node any more.
    pub(crate) withdrawn: bool,
    pub(crate) failures: u32,
    /// Remaining time of the cool-down.
    pub(crate) cooling: Duration,
    /// Age and text of the latest failure; `None` once the node has recovered.
    pub(crate) last_failure: Option<(Duration, String)>,
    pub(crate) sessions: usize,
}

impl NodeBook {
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
}
