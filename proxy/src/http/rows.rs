//! The JSON that operators and their tools read. Fields are only ever added.

use std::time::Duration;

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
    /// Since the session has no node, in seconds; `null` while it has one.
    pub searching_secs: Option<u64>,
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
    /// `up`: a session or a probe has proved it lately. `unproved`: not tried yet. `cooling`: failed, and left alone for a
    /// while. `down`: failed when it was last tried. `draining`: as registered.
    pub state: &'static str,
    /// No source names it any more.
    pub withdrawn: bool,
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
    /// The failure that it has not recovered from.
    pub last_error: Option<String>,
    /// How long ago that was, in seconds.
    pub last_error_secs: Option<u64>,
}

/// Whether nodes can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nodes known from any source.
    pub known: usize,
    /// Those that a session or a probe has proved lately.
    pub proved: usize,
    /// For how long none is; `None` while one is.
    pub none_for: Option<Duration>,
    /// What went wrong last with one of them.
    pub last_error: Option<String>,
}

impl Reach {
    /// Why no node can be reached; `None` while one can.
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

/// Whether components can connect now, and why not; and whether nodes can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// All is well.
    pub ready: bool,
    /// Nodes known.
    pub nodes: usize,
    /// Nodes that a session or a probe has proved lately.
    pub nodes_proved: usize,
    /// Seconds since none is; `null` while one is.
    pub no_node_secs: Option<u64>,
    /// What is missing; empty when ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Ready means: listening, not on the way out, and with `needs_node` a node proved. In an outage of the nodes components
    /// are kept and served when it ends, and Kubernetes, which takes what is not ready out of service, would only make it
    /// worse.
    pub(super) fn of(listening: bool, shutting_down: bool, reach: &Reach, needs_node: bool) -> Self {
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
