//! What a running node goes by: the settings that a SIGHUP can change, as the code wants them.

use std::time::Duration;

use crate::auth::Access;
use crate::settings::Settings;

/// See the file's head. Bytes and counts are of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) access: Access,
    /// Time for CONNECT where credentials are asked for.
    pub(crate) auth_timeout: Duration,
    pub(crate) payload_bytes_max: usize,
    pub(crate) control_line_bytes_max: usize,
    pub(crate) connections_max: usize,
    /// 0: no limit.
    pub(crate) subscriptions_max: usize,
    /// Bytes that may wait.
    pub(crate) pending_bytes_max: usize,
    /// Taking nothing for so long ends the connection.
    pub(crate) write_deadline: Duration,
    pub(crate) ping_interval: Duration,
    /// PINGs without an answer after which the connection ends.
    pub(crate) ping_max: u32,
    /// How long a PONG waits for other nodes.
    pub(crate) flush_timeout: Duration,
    pub(crate) lame_duck_grace: Duration,
    pub(crate) lame_duck: Duration,
}

impl Policy {
    /// The policy that these settings make; no more connections than the open files allow.
    pub(crate) fn new(settings: &Settings) -> Self {
        let Settings {
            authorization,
            limits,
            process,
            ..
        } = settings;
        Self {
            access: settings.access(),
            auth_timeout: authorization.timeout_ms.duration(),
            payload_bytes_max: limits.max_payload,
            control_line_bytes_max: limits.max_control_line,
            connections_max: settings.connections().that_fit(),
            subscriptions_max: limits.max_subscriptions,
            pending_bytes_max: limits.max_pending,
            write_deadline: limits.write_deadline_ms.duration(),
            ping_interval: limits.ping_interval_ms.duration(),
            ping_max: limits.ping_max,
            flush_timeout: settings.cluster.flush_timeout_ms.duration(),
            lame_duck_grace: process.lame_duck_grace_secs.duration(),
            lame_duck: process.lame_duck_secs.duration(),
        }
    }
}
