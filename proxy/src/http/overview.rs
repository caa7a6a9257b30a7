//! The JSON of `/varz`: the sidecar as a whole. Fields are added, but never removed or renamed.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use standin_registry::Source;

use super::rows::{Readiness, unix_ms};
use crate::losses::Loss;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// The sidecar as a whole. Counters count from its start.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    version: &'static str,
    now_ms: u64,
    uptime_ms: u64,
    /// Time since the running program replaced another one (SIGUSR2), or started. Sessions can be older.
    image_uptime_ms: u64,
    #[serde(flatten)]
    readiness: Readiness,
    /// State of ZooKeeper and of the DNS names as sources of nodes: `off`, `connecting`, `healthy` or `lost`.
    zookeeper: &'static str,
    dns: &'static str,
    sessions: usize,
    /// Sessions that have no node now.
    sessions_without_node: usize,
    /// Moves of sessions, and ends without a node: the number of the newest row of `/movez`.
    moves: u64,
    /// Publishes in doubt that were not sent again.
    lost_in_doubt: u64,
    /// Publishes of sessions that ended before a node took them.
    lost_abandoned: u64,
    /// Bytes in all sessions' buffers.
    buffered_bytes: usize,
    messages_to_node: u64,
    messages_to_component: u64,
    bytes_to_node: u64,
    bytes_to_component: u64,
}

impl Overview {
    pub(super) fn of(shared: &SidecarState) -> Self {
        let sessions = shared.sessions.all();
        let is_searching = |session: &&Arc<SessionInfo>| session.status().searching_since.is_some();
        let traffic = shared.sessions.traffic();
        let health = shared.registry.health();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now_ms: unix_ms(SystemTime::now()),
            uptime_ms: shared.started.elapsed().as_millis() as u64,
            image_uptime_ms: shared.image_started.elapsed().as_millis() as u64,
            readiness: Readiness::of(shared),
            zookeeper: health.state(Source::ZooKeeper).as_str(),
            dns: health.state(Source::Dns).as_str(),
            sessions: sessions.len(),
            sessions_without_node: sessions.iter().filter(is_searching).count(),
            moves: shared.moves.total(),
            lost_in_doubt: shared.losses.total(Loss::InDoubt),
            lost_abandoned: shared.losses.total(Loss::Abandoned),
            buffered_bytes: shared.buffered(),
            messages_to_node: traffic.messages_to_node,
            messages_to_component: traffic.messages_to_component,
            bytes_to_node: traffic.bytes_to_node,
            bytes_to_component: traffic.bytes_to_component,
        }
    }
}
