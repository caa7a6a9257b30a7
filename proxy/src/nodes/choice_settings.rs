//! The settings for the choice of a node, as the node book uses them.

use std::time::Duration;

use rand::RngExt;

use crate::settings::Settings;

/// The settings for the choice of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChoiceSettings {
    /// Bound of the first cool-down.
    pub(crate) cooldown_base: Duration,
    /// Upper bound of any cool-down.
    pub(crate) cooldown_max: Duration,
    /// Connections to one node that may be in setup at the same time.
    pub(crate) dials_max: usize,
    /// Dials a second to failed nodes, all such nodes together.
    pub(crate) retries_per_second_max: u32,
    /// Interval between probes of a node without a session.
    pub(crate) idle_probe_interval: Duration,
}

impl ChoiceSettings {
    /// Returns this part of the sidecar's settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            cooldown_base: settings.choice.cooldown_base_ms.duration(),
            cooldown_max: settings.choice.cooldown_max_ms.duration(),
            dials_max: settings.dial.dials_concurrent_max,
            retries_per_second_max: settings.dial.retries_per_second_max,
            idle_probe_interval: settings.health.idle_probe_interval_ms.duration(),
        }
    }

    /// Returns the wait before the next probe of a node that was just proved. It is jittered, so that probes spread over time.
    pub(super) fn next_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.5..1.5))
    }

    /// Returns the wait before the probe of a node that was never proved or has just failed: about a second with the default
    /// interval.
    pub(super) fn first_probe(&self) -> Duration {
        self.idle_probe_interval
            .mul_f64(rand::rng().random_range(0.02..0.05))
    }
}
