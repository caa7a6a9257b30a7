//! The JSON for operators and their tools. Fields are added, but never removed or renamed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use serde::Serialize;

use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// One page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    pub(super) total: usize,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) items: Vec<T>,
}

/// One session. The last three fields are from the component's CONNECT.
#[derive(Debug, Serialize)]
pub(super) struct SessionRow {
    /// Number of the session, counted from 1 at the start of the process.
    pub(super) id: u64,
    /// The component's `ip:port`.
    pub(super) component: String,
    /// Id of the session's node; `null` without a node. The node has the session's subscriptions when `state` is no longer
    /// `joining`.
    pub(super) node: Option<String>,
    pub(super) state: &'static str,
    pub(super) connected_secs: u64,
    /// Seconds for which the session has had no node; `null` while it has one.
    pub(super) searching_secs: Option<u64>,
    pub(super) subscriptions: u64,
    /// Buffered bytes, both directions together.
    pub(super) buffered_bytes: u64,
    /// Publishes under `drop` not yet acked by a PONG.
    pub(super) in_doubt: u64,
    pub(super) failovers: u64,
    /// PUB and HPUB passed on.
    pub(super) messages_to_node: u64,
    /// MSG and HMSG passed on.
    pub(super) messages_to_component: u64,
    pub(super) bytes_to_node: u64,
    pub(super) bytes_to_component: u64,
    pub(super) client_name: Option<String>,
    pub(super) client_lang: Option<String>,
    pub(super) client_version: Option<String>,
}

impl SessionRow {
    pub(super) fn of(session: &SessionInfo) -> Self {
        let status = session.status().clone();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let traffic = session.traffic();
        Self {
            id: session.id,
            component: session.component.to_string(),
            node: status.node.map(|node| node.client.to_string()),
            state: status.state,
            connected_secs: session.connected.elapsed().as_secs(),
            searching_secs: status.searching_since.map(|since| since.elapsed().as_secs()),
            subscriptions: count(&session.subscriptions),
            buffered_bytes: count(&session.buffered_bytes),
            in_doubt: count(&session.in_doubt),
            failovers: status.moves,
            messages_to_node: traffic.messages_to_node,
            messages_to_component: traffic.messages_to_component,
            bytes_to_node: traffic.bytes_to_node,
            bytes_to_component: traffic.bytes_to_component,
            client_name: status.client.name,
            client_lang: status.client.lang,
            client_version: status.client.version,
        }
    }
}

/// Answer of `/readyz`: whether components can connect now, the reasons if not, and whether nodes are reachable.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// Whether components can connect and, if the settings require it, a node is proved.
    pub(super) ready: bool,
    pub(super) nodes: usize,
    /// Number of nodes that a session or a probe has proved recently.
    pub(super) nodes_proved: usize,
    /// Seconds for which no node has been proved; `null` while one is.
    pub(super) no_node_secs: Option<u64>,
    pub(super) reasons: Vec<String>,
}

impl Readiness {
    /// Returns the readiness. Ready means: listening, not stopping, and, with `http.ready_needs_node`, a node is proved. By
    /// default the sidecar stays ready in an outage of all nodes, because it keeps its components and serves them when the outage
    /// ends. Kubernetes would take an unready sidecar out of service, which would make the outage worse.
    pub(super) fn of(shared: &SidecarState) -> Self {
        let reach = shared.book.reachability(Instant::now());
        let needs_node = shared.settings.load().http.ready_needs_node;
        let listening = shared.listening.load(Relaxed);
        let reasons = [
            (!listening).then(|| "not listening for components".to_owned()),
            shared.stopping.load(Relaxed).then(|| "shutting down".to_owned()),
            reach.unreachable().filter(|_| needs_node),
        ];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        Self {
            ready: reasons.is_empty(),
            nodes: reach.known,
            nodes_proved: reach.proved,
            no_node_secs: reach.none_for.map(|time| time.as_secs()),
            reasons,
        }
    }
}
