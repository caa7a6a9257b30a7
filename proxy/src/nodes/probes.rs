//! Times at which nodes without a session are probed. `prober.rs` sends the probes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use standin_registry::Node;

use super::node_entry::RETRY_MAX;
use super::{NodeBook, lock};

/// For this time after an outage of all nodes, the nodes that are still down are probed at their retry times. Sessions
/// reconnect at random times within it (`sidecar_state.rs`), so that not all of them choose the first node that returned. It
/// is shorter than any sensible `session.settle_ms`, so that subscribers are back in time.
pub(crate) const SPREAD: Duration = Duration::from_millis(500);

impl NodeBook {
    /// Ends the cool-downs, because an outage of all nodes is over: the other nodes may be back as well. They are probed
    /// at once, and then at their retry times for [`SPREAD`].
    pub(crate) fn end_cooldowns(&self, now: Instant) {
        let mut entries = lock(&self.entries);
        for entry in entries.values_mut().filter(|entry| entry.has_failed()) {
            entry.failures = 1;
            entry.cooling_until = None;
            entry.retry_at = None;
            entry.probe_at = now;
            entry.eager_until = Some(now + SPREAD);
        }
    }

    /// Returns whether failed nodes are probed at their retry times.
    pub(crate) fn probes_eagerly(&self, now: Instant) -> bool {
        lock(&self.entries).values().any(|entry| entry.is_eager(now))
    }

    /// Returns the nodes that no session proves and whose probe is due, and sets their next probe time. While no
    /// node is proved and sessions search for one, failed nodes are left to these sessions.
    pub(crate) fn due_probes(&self, now: Instant) -> Vec<Arc<Node>> {
        let settings = self.settings.load();
        let interval = settings.health.idle_probe_interval_ms.duration();
        let mut due = Vec::new();
        let mut entries = lock(&self.entries);
        let none_proved = !entries.values().any(|entry| entry.is_proved(&settings, now));
        let sessions_search = none_proved && self.searching.load(Ordering::Relaxed) > 0;
        for entry in entries.values_mut() {
            let is_idle = entry.served == 0 || entry.has_failed() || entry.proved_at.is_none();
            let is_idle = is_idle && !(entry.has_failed() && sessions_search);
            let failed_at = entry.last_failure.as_ref().map(|failure| failure.at);
            // While no node is proved, failed nodes are probed despite their cool-down.
            let is_due =
                entry.probe_at <= now || none_proved && failed_at.is_some_and(|at| now >= at + interval / 30);
            if is_idle && !entry.on_trial && is_due && !self.is_excluded(&entry.node.client) {
                // A failed node may get no permit now, because the retries of all nodes share a limit.
                entry.probe_at = now + if entry.has_failed() { RETRY_MAX } else { interval };
                due.push(Arc::clone(&entry.node));
            }
        }
        due
    }
}
