//! The limits of the sidecar as a whole, as the parts of the sidecar use them.

use std::time::Duration;

use standin_daemon::files::ConnectionLimit;

use crate::settings::Settings;

/// Limits of the sidecar as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessLimits {
    /// Components connected at the same time. This is the configured limit, or less if the limit on open files is too
    /// low.
    pub(crate) connections_max: usize,
    /// The configured limit on connections.
    pub(crate) connections: ConnectionLimit,
    /// Limit on the bytes in all sessions' buffers. Above it, components with buffered bytes are not read.
    pub(crate) buffers_total_bytes_max: usize,
    /// Time that sessions have to end in order when the sidecar stops.
    pub(crate) shutdown: Duration,
    /// Rows on one HTTP page.
    pub(crate) page_items_max: usize,
    /// `/readyz` answers 200 only while a node is proved.
    pub(crate) ready_needs_node: bool,
}

impl ProcessLimits {
    /// Returns the limits according to the sidecar's settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            connections_max: Self::connections(settings).that_fit(),
            connections: Self::connections(settings),
            buffers_total_bytes_max: settings.limits.buffers_total_bytes_max,
            shutdown: settings.process.shutdown_secs.duration(),
            page_items_max: settings.http.page_items_max,
            ready_needs_node: settings.http.ready_needs_node,
        }
    }

    /// Returns the connections that these settings need, for the limit on open files.
    pub(crate) const fn connections(settings: &Settings) -> ConnectionLimit {
        ConnectionLimit {
            max: settings.limits.connections_max,
            key: "limits.connections_max",
            name: "components",
            // One file for the component, one for its node.
            files: 2,
        }
    }
}
