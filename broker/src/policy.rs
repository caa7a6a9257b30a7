//! The credentials, limits and timeouts in force, with units converted. SIGHUP can change them.

use std::time::Duration;

use crate::auth::Access;
use crate::settings::Settings;

/// The policy in force. The limits on pending bytes, subscriptions and unanswered PINGs are per client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) access: Access,
    /// Timeout for CONNECT, if credentials are required.
    pub(crate) auth_timeout: Duration,
    pub(crate) payload_bytes_max: usize,
    pub(crate) control_line_bytes_max: usize,
    pub(crate) connections_max: usize,
    /// 0: no limit.
    pub(crate) subscriptions_max: usize,
    pub(crate) pending_bytes_max: usize,
    /// Maximum time for which a socket may accept no bytes.
    pub(crate) write_deadline: Duration,
    pub(crate) ping_interval: Duration,
    /// Maximum number of unanswered PINGs.
    pub(crate) ping_max: u32,
    /// Maximum time for which a PONG waits for acks of other nodes.
    pub(crate) flush_timeout: Duration,
    /// Time for clients to leave by themselves in lame duck mode.
    pub(crate) lame_duck_grace: Duration,
    /// Time over which the remaining clients are closed after that.
    pub(crate) lame_duck: Duration,
}

impl Policy {
    /// Makes the policy of these settings. `connections_max` is reduced to what the limit on open files allows.
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
