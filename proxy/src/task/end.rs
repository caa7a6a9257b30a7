//! The end of a session in the metrics, the log and `/movez`.

use std::time::{Duration, SystemTime};

use tracing::{debug, warn};

use crate::doubt::InDoubtCount;
use crate::losses::Loss;
use crate::moves::Move;
use crate::session::{EndReason, SessionEnd};
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// Counts and logs the end of a session. The level is DEBUG if the component closed it, in an outage, and when the sidecar
/// stops; otherwise it is WARN.
pub(super) fn record_end(shared: &SidecarState, session: &SessionInfo, ended: &SessionEnd) {
    let (end, reason) = (ended.reason, ended.reason.as_str());
    shared.metrics.sessions_closed.increment(reason);
    shared.lost(Loss::Abandoned, &ended.abandoned, ended.abandoned_bytes);
    if let Some(kind) = end.error_kind() {
        shared.metrics.client_errors.increment(kind);
    }
    let (id, component, client) = (
        session.id,
        session.component,
        session.status().client.name.clone(),
    );
    let abandoned_bytes = ended.abandoned_bytes;
    if end == EndReason::Outage || !ended.abandoned.is_empty() {
        shared.moves.add(ended_without_node(session, ended));
    }
    if end.is_quiet() {
        debug!(session = id, %component, client, reason, abandoned_bytes, "session ended");
    } else {
        warn!(session = id, %component, client, reason, abandoned_bytes, "session closed by the sidecar");
    }
}

/// Returns the entry in `/movez` of a session that ended without a node, or with messages that no node has taken.
fn ended_without_node(session: &SessionInfo, ended: &SessionEnd) -> Move {
    Move {
        at: SystemTime::now(),
        session: session.id,
        component: session.component,
        nodes: None,
        cause: ended.reason.as_str(),
        silent: Duration::ZERO,
        took: Duration::ZERO,
        in_doubt: InDoubtCount::default(),
        abandoned: ended.abandoned.total(),
        subscriptions: 0,
    }
}
