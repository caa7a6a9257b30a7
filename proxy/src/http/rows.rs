//! The JSON for operators and their tools. Fields are added, but never removed or renamed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::moves::Move;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// The requested rows of a list.
#[derive(Debug, Serialize)]
pub(super) struct Rows<T> {
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

/// A session that moved to another node, or that ended without one.
#[derive(Debug, Serialize)]
pub(super) struct MoveRow {
    /// Number of the move, counted from 1 at the start of the process.
    number: u64,
    /// Time of its end, in milliseconds since 1970.
    at_ms: u64,
    /// Number of the session.
    session: u64,
    /// The component's `ip:port`.
    component: String,
    /// Name from the component's CONNECT; `null` if the session has ended or had none.
    client_name: Option<String>,
    /// Ids of both nodes; `null` if the session ended.
    from: Option<String>,
    to: Option<String>,
    /// Cause of the move as in the log, or reason of the end.
    cause: &'static str,
    /// Milliseconds from the last byte of the lost node to the first answer of the new one.
    silent_ms: f64,
    /// Milliseconds from the noticed loss to the first answer of the new node.
    move_ms: f64,
    in_doubt_dropped: u64,
    in_doubt_resent: u64,
    /// Held publishes that no node has taken.
    abandoned: u64,
    subscriptions: usize,
}

impl MoveRow {
    /// Makes the row of the move with this number.
    pub(super) fn of(number: u64, one: &Move, shared: &SidecarState) -> Self {
        let session = shared.sessions.get(one.session);
        let nodes = one.nodes.as_ref();
        let [from, to] = [0, 1].map(|side| nodes.map(|nodes| nodes[side].id.to_string()));
        Self {
            number,
            at_ms: unix_ms(one.at),
            session: one.session,
            component: one.component.to_string(),
            client_name: session.and_then(|session| session.status().client.name.clone()),
            from,
            to,
            cause: one.cause,
            silent_ms: one.silent.as_micros() as f64 / 1000.0,
            move_ms: one.took.as_micros() as f64 / 1000.0,
            in_doubt_dropped: one.in_doubt.dropped,
            in_doubt_resent: one.in_doubt.resent,
            abandoned: one.abandoned,
            subscriptions: one.subscriptions,
        }
    }
}

/// Returns a time in milliseconds since 1970.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
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
