//! The JSON that operators and their tools read. Fields are only ever added.

use serde::Serialize;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// Rows there are in all.
    pub total: usize,
    /// Place of the first row of this page.
    pub offset: usize,
    /// Most rows this page can have.
    pub limit: usize,
    /// The rows.
    pub items: Vec<T>,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    /// Counted from 1 at the start of the process.
    pub id: u64,
    /// The component's `ip:port`.
    pub component: String,
    /// Its node's id; `null` while it has none.
    pub node: Option<String>,
    /// What it is doing: `flowing`, `searching`, `joining`, …
    pub state: &'static str,
    /// Since the component connected, in seconds.
    pub connected_secs: u64,
    /// Live subscriptions.
    pub subscriptions: usize,
    /// Bytes held, both ways.
    pub buffered_bytes: usize,
    /// Publishes that no PONG has confirmed.
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
    /// `name` of its CONNECT.
    pub client_name: Option<String>,
    /// `lang` of its CONNECT.
    pub client_lang: Option<String>,
    /// `version` of its CONNECT.
    pub client_version: Option<String>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// As registered; else its address.
    pub id: String,
    /// `host:port` for clients.
    pub client: String,
    /// Who told of it: `zookeeper`, `cache`, `dns`, `fixed`, `gossip`.
    pub source: &'static str,
    /// `up`, `draining`, or `cooling` after a failure.
    pub state: &'static str,
    /// As registered; empty when unknown.
    pub zone: String,
    /// As registered; 1 when unknown.
    pub weight: u32,
    /// How long it is still left alone, in milliseconds; 0: not at all.
    pub cooling_ms: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Sessions of this sidecar on it.
    pub sessions: usize,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Whether the sidecar can serve a component now, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// All is well.
    pub ready: bool,
    /// Nodes known.
    pub nodes: usize,
    /// What is missing; empty when ready.
    pub reasons: Vec<&'static str>,
}

impl Readiness {
    /// Ready means: listening, not on the way out, and at least one node known.
    pub(super) fn of(listening: bool, shutting_down: bool, nodes: usize) -> Self {
        let reasons: Vec<&'static str> = [
            (!listening, "not listening for components"),
            (shutting_down, "shutting down"),
            (nodes == 0, "no node known from any source"),
        ]
        .into_iter()
        .filter_map(|(missing, reason)| missing.then_some(reason))
        .collect();
        Self {
            ready: reasons.is_empty(),
            nodes,
            reasons,
        }
    }
}
