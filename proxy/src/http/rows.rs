//! The JSON for operators and their tools. Fields are added, but never removed or renamed.

use std::time::Duration;

use serde::Serialize;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// Number of rows of the whole list.
    pub total: usize,
    /// Index of the first row of this page.
    pub offset: usize,
    /// Largest number of rows on this page.
    pub limit: usize,
    /// The rows.
    pub items: Vec<T>,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    /// Number of the session, counted from 1 at the start of the process.
    pub id: u64,
    /// The component's `ip:port`.
    pub component: String,
    /// Id of the session's node; `null` without a node. The node has the session's subscriptions when `state` is no longer
    /// `joining`.
    pub node: Option<String>,
    /// State: `flowing`, `searching`, `joining`, …
    pub state: &'static str,
    /// Seconds since the component connected.
    pub connected_secs: u64,
    /// Seconds for which the session has had no node; `null` while it has one.
    pub searching_secs: Option<u64>,
    /// Live subscriptions.
    pub subscriptions: usize,
    /// Buffered bytes, both directions together.
    pub buffered_bytes: usize,
    /// Publishes not yet acked by a PONG.
    pub in_doubt: u64,
    /// Moves from one node to another.
    pub failovers: u64,
    /// PUB and HPUB passed on.
    pub messages_to_node: u64,
    /// MSG and HMSG passed on.
    pub messages_to_component: u64,
    /// Bytes passed on to the node.
    pub bytes_to_node: u64,
    /// Bytes passed on to the component.
    pub bytes_to_component: u64,
    /// `name` in the component's CONNECT.
    pub client_name: Option<String>,
    /// `lang` in the component's CONNECT.
    pub client_lang: Option<String>,
    /// `version` in the component's CONNECT.
    pub client_version: Option<String>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// Id as registered; otherwise the node's address.
    pub id: String,
    /// `host:port` for clients.
    pub client: String,
    /// Source of the node: `zookeeper`, `cache`, `dns`, `fixed`, `gossip`.
    pub source: &'static str,
    /// `up`: a session or a probe has proved it recently. `unproved`: not tried yet. `cooling`: failed, and not tried
    /// for a while. `down`: failed when it was last tried. `draining`: registered as draining.
    pub state: &'static str,
    /// Whether no source names the node any more.
    pub withdrawn: bool,
    /// Zone as registered; empty if unknown.
    pub zone: String,
    /// Weight as registered; 1 if unknown.
    pub weight: u32,
    /// Remaining cool-down in milliseconds; 0 if there is none.
    pub cooling_ms: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Sessions of this sidecar on the node.
    pub sessions: usize,
    /// Latest failure; `null` once the node has recovered.
    pub last_error: Option<String>,
    /// Seconds since that failure.
    pub last_error_secs: Option<u64>,
}

/// Whether nodes are reachable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachability {
    /// Nodes known from any source.
    pub known: usize,
    /// Nodes that a session or a probe has proved recently.
    pub proved: usize,
    /// Time for which no node has been proved; `None` while one is.
    pub none_for: Option<Duration>,
    /// Latest failure of any node.
    pub last_error: Option<String>,
}

impl Reachability {
    /// Returns the reason why no node is reachable; `None` while one is.
    #[must_use]
    pub fn unreachable(&self) -> Option<String> {
        let secs = self.none_for?.as_secs();
        if self.known == 0 {
            return Some("no node known from any source".to_owned());
        }
        let error = self.last_error.as_deref().unwrap_or("not tried yet");
        Some(format!(
            "no node reachable for {secs} s: {} known, {error}",
            self.known
        ))
    }
}

/// Answer of `/readyz`: whether components can connect now, the reasons if not, and whether nodes are reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether components can connect and, if the settings require it, a node is proved.
    pub ready: bool,
    /// Number of known nodes.
    pub nodes: usize,
    /// Number of nodes that a session or a probe has proved recently.
    pub nodes_proved: usize,
    /// Seconds for which no node has been proved; `null` while one is.
    pub no_node_secs: Option<u64>,
    /// Reasons for not being ready; empty when ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Returns the readiness. Ready means: listening, not stopping, and with `needs_node` a node proved. By default
    /// the sidecar stays ready in an outage of all nodes, because it keeps its components and serves them when the outage
    /// ends. Kubernetes would take a sidecar that is not ready out of service, which would make the outage worse.
    pub(super) fn of(listening: bool, shutting_down: bool, reach: &Reachability, needs_node: bool) -> Self {
        let reasons: Vec<String> = [
            (!listening).then(|| "not listening for components".to_owned()),
            shutting_down.then(|| "shutting down".to_owned()),
            reach.unreachable().filter(|_| needs_node),
        ]
        .into_iter()
        .flatten()
        .collect();
        Self {
            ready: reasons.is_empty(),
            nodes: reach.known,
            nodes_proved: reach.proved,
            no_node_secs: reach.none_for.map(|time| time.as_secs()),
            reasons,
        }
    }
}
