//! The settings for connections to nodes, as dials use them.

use std::time::Duration;

use crate::settings::Settings;

/// The settings of dialling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialSettings {
    /// Limit for name look-up and TCP connect together, per node.
    pub(crate) connect_timeout: Duration,
    /// Limit from the TCP connection to the node's INFO.
    pub(crate) handshake_timeout: Duration,
    /// Head start of a dial before the next node is dialled in parallel.
    pub(crate) stagger: Duration,
    /// Random wait of a session that lost its node, per other session that searches.
    pub(crate) spread_per_session: Duration,
    /// Upper bound of that wait.
    pub(crate) spread_max: Duration,
    /// TCP keep-alive time of the connection.
    pub(crate) keepalive: Duration,
    /// Time for which written bytes may stay unacknowledged before the connection breaks (TCP_USER_TIMEOUT).
    pub(crate) user_timeout: Duration,
}

impl DialSettings {
    /// Returns this part of the sidecar's settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            connect_timeout: settings.dial.connect_timeout_ms.duration(),
            handshake_timeout: settings.dial.handshake_timeout_ms.duration(),
            stagger: settings.dial.stagger_ms.duration(),
            spread_per_session: settings.dial.spread_us_per_session.duration(),
            spread_max: settings.dial.spread_max_ms.duration(),
            keepalive: settings.socket.keepalive_secs.duration(),
            user_timeout: settings.socket.user_timeout_ms.duration(),
        }
    }
}
