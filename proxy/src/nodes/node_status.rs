//! The state of all nodes for `/nodez`, `/readyz` and the metrics. JSON fields may be added, but are never removed or renamed.

use std::time::{Duration, Instant};

use serde::Serialize;
use standin_registry::Endpoint;

use super::{NOT_ALLOWED, NodeBook, NodeEntry, lock};
use crate::settings::Settings;

/// One node on `/nodez` and in the metrics.
#[derive(Debug, Serialize)]
pub(crate) struct NodeStatus {
    /// Id as registered; otherwise the node's address.
    pub(crate) id: String,
    /// `host:port` for clients.
    pub(crate) client: String,
    /// Source of the node: `zookeeper`, `cache`, `dns`, `fixed`, `gossip`.
    pub(crate) source: &'static str,
    /// `up`: a session or a probe has proved it recently. `unproved`: not tried recently. `cooling`: failed, and not
    /// tried for a while. `down`: failed when it was last tried. `draining`: registered as draining, or it has
    /// announced its shutdown to a session and was not tried since, or an operator has drained it. `refused`: never tried, because it is not in `nodes.allowed_nodes`.
    pub(crate) state: &'static str,
    /// Whether no source names the node any more.
    pub(crate) withdrawn: bool,
    /// Zone as registered; empty if unknown.
    pub(crate) zone: String,
    /// Weight as registered; 1 if unknown.
    pub(crate) weight: u32,
    /// Remaining cool-down in milliseconds; 0 if there is none.
    pub(crate) cooling_ms: u64,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Sessions of this sidecar on the node.
    pub(crate) sessions: usize,
    /// Latest failure, or why the node is refused; `null` once the node has recovered.
    pub(crate) last_error: Option<String>,
    /// Seconds since that failure.
    pub(crate) last_error_secs: Option<u64>,
}

impl NodeStatus {
    fn of(entry: &NodeEntry, settings: &Settings, is_refused: bool, now: Instant) -> Self {
        let node = &entry.node;
        let (failed_at, last_error) = entry
            .last_failure
            .clone()
            .map(|failure| (failure.at, failure.text))
            .unzip();
        let cooling = entry
            .cooling_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        Self {
            id: node.id.to_string(),
            client: node.client.to_string(),
            source: node.source.as_str(),
            state: if is_refused {
                "refused"
            } else {
                entry.state(settings, now)
            },
            withdrawn: entry.withdrawn_at.is_some(),
            zone: node.zone.to_string(),
            weight: node.weight,
            cooling_ms: cooling.as_millis() as u64,
            failures: entry.failures,
            sessions: entry.sessions,
            last_error: last_error.or_else(|| is_refused.then(|| NOT_ALLOWED.to_owned())),
            last_error_secs: failed_at.map(|at| now.saturating_duration_since(at).as_secs()),
        }
    }
}

/// Whether nodes are reachable.
#[derive(Debug)]
pub(crate) struct Reachability {
    /// Known nodes that are allowed, including withdrawn ones that are kept.
    pub(crate) known: usize,
    /// Known nodes that are not allowed.
    pub(crate) refused: usize,
    /// Nodes that a session or a probe has proved recently.
    pub(crate) proved: usize,
    /// Time for which no node has been proved; `None` while one is.
    pub(crate) none_for: Option<Duration>,
    /// Latest failure of any node.
    pub(crate) last_error: Option<String>,
}

impl Reachability {
    /// Returns the reason why no node is reachable; `None` while one is.
    pub(crate) fn unreachable(&self) -> Option<String> {
        let secs = self.none_for?.as_secs();
        if self.known == 0 {
            return Some(match self.refused {
                0 => "no node known from any source".to_owned(),
                refused => format!("none of the known nodes ({refused}) is in nodes.allowed_nodes"),
            });
        }
        let error = self.last_error.as_deref().unwrap_or("not tried yet");
        Some(format!(
            "no node reachable for {secs} s: {} known, {error}",
            self.known
        ))
    }
}

/// A known node, as the balancer sees it.
#[derive(Debug, Clone)]
pub(crate) struct BalancedNode {
    pub(crate) node: Endpoint,
    pub(crate) zone: String,
    pub(crate) weight: u32,
    /// A session or a probe has proved the node, and it takes sessions.
    pub(crate) is_usable: bool,
    /// The node has failed, is draining, or is drained. If it is neither this nor usable, nothing is known of it yet.
    pub(crate) is_away: bool,
}

/// Returns whether a node in this [state](NodeStatus::state) is no good choice, as far as is known.
pub(super) fn is_away(state: &str) -> bool {
    !matches!(state, "up" | "unproved")
}

impl NodeBook {
    /// Returns the known nodes that are allowed, for the balancer.
    pub(crate) fn balanced_nodes(&self, now: Instant) -> Vec<BalancedNode> {
        let (settings, allowed) = (self.settings.load(), self.allowed.load());
        let entries = lock(&self.entries);
        let known = entries.iter().filter(|(address, entry)| {
            entry.withdrawn_at.is_none() && !allowed.refuses(address) && !self.self_check.has_met(address)
        });
        let balanced = known.map(|(address, entry)| {
            let state = entry.state(&settings, now);
            BalancedNode {
                node: address.clone(),
                zone: entry.node.zone.to_string(),
                weight: entry.node.weight,
                is_usable: state == "up",
                is_away: is_away(state),
            }
        });
        balanced.collect()
    }

    /// Returns the status of all known nodes, sorted by address.
    pub(crate) fn status(&self, now: Instant) -> Vec<NodeStatus> {
        let (settings, allowed) = (self.settings.load(), self.allowed.load());
        let entries = lock(&self.entries);
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_unstable_by_key(|(address, _)| *address);
        let status = |(address, entry)| NodeStatus::of(entry, &settings, allowed.refuses(address), now);
        sorted.into_iter().map(status).collect()
    }

    /// Returns whether nodes are reachable.
    pub(crate) fn reachability(&self, now: Instant) -> Reachability {
        let none_since = self.none_proved_since(now);
        let (settings, allowed) = (self.settings.load(), self.allowed.load());
        let entries = lock(&self.entries);
        let refused = entries.keys().filter(|node| allowed.refuses(node)).count();
        let failures = entries.values().filter_map(|entry| entry.last_failure.as_ref());
        let last_failure = failures.max_by_key(|failure| failure.at);
        let proved = entries.values().filter(|entry| entry.is_proved(&settings, now));
        Reachability {
            known: entries.len() - refused,
            refused,
            proved: proved.count(),
            none_for: none_since.map(|since| now.saturating_duration_since(since)),
            last_error: last_failure.map(|failure| failure.text.clone()),
        }
    }
}
