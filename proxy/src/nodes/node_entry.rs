//! State of one node beyond its registry record: its failures, its cool-down, its proofs, and the sessions on it.
//!
//! A failed node cools down for a random time between `choice.cooldown_base_ms` and a bound that doubles with each failure
//! in a row. Until the node is proved again, dials to it are limited (`permit.rs`). After repeated relapses, they stay
//! limited for [`PROBATION`] after the recovery.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use standin_registry::{Node, NodeState};
use tokio::sync::Semaphore;

use crate::settings::Settings;
use crate::state_fields::{optional_time, time};

/// Upper bound of the retry wait after the first failure of a node. It doubles with each failure in a row.
const RETRY_BASE: Duration = Duration::from_millis(20);
/// Upper bound of any retry wait.
pub(super) const RETRY_MAX: Duration = Duration::from_millis(500);
/// A node that fails within this time of its recovery has relapsed.
pub(super) const PROBATION: Duration = Duration::from_millis(250);
/// After this many relapses in a row, dials to a recovered node stay limited until its probation is over.
const RELAPSES_MAX: u32 = 2;

/// Wait before the next probe of a node that was just proved, in multiples of `idle_probe_interval_ms`.
const NEXT_PROBE: Range<f64> = 0.5..1.5;
/// The same for a node that was never proved or has just failed: about a second with the default interval.
const FIRST_PROBE: Range<f64> = 0.02..0.05;
/// Time within which a usable node is proved by its first probe, in multiples of the same interval.
const PROVED_WITHIN: f64 = 0.1;

/// State of a node beyond its registry record. It goes on in the next program, except what depends on sessions and dials.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NodeEntry {
    /// The record from the latest snapshot.
    pub(super) node: Arc<Node>,
    /// Time at which a source first named the node.
    #[serde(with = "time")]
    known_since: Instant,
    /// Time at which the last source withdrew the node; `None` while a source names it.
    #[serde(with = "optional_time")]
    pub(super) withdrawn_at: Option<Instant>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Relapses in a row.
    relapses: u32,
    /// Time of the latest recovery.
    #[serde(with = "optional_time")]
    recovered_at: Option<Instant>,
    /// End of the cool-down.
    #[serde(with = "optional_time")]
    pub(super) cooling_until: Option<Instant>,
    /// Earliest time of the next dial while `failures` is above 0.
    #[serde(with = "optional_time")]
    pub(super) retry_at: Option<Instant>,
    /// Whether a session or a probe is dialling or joining the node to find out if it has recovered.
    #[serde(skip)]
    pub(super) on_trial: bool,
    pub(super) last_failure: Option<NodeFailure>,
    /// Time at which a session or a probe last proved the node.
    #[serde(with = "optional_time")]
    pub(super) proved_at: Option<Instant>,
    /// Time at which the node last failed while it was proved.
    #[serde(with = "optional_time")]
    pub(super) unproved_at: Option<Instant>,
    /// Whether the node has announced its shutdown to a session, and has neither failed nor been proved since.
    is_leaving: bool,
    /// Whether an operator wants no sessions of this sidecar on the node.
    pub(super) is_drained: bool,
    /// Time of the next probe if the node has no session by then.
    #[serde(with = "time")]
    pub(super) probe_at: Instant,
    /// Time until which a failed node is probed at each retry time; see [`SPREAD`](super::SPREAD).
    #[serde(with = "optional_time")]
    pub(super) eager_until: Option<Instant>,
    /// Sessions connected to the node.
    #[serde(skip)]
    pub(super) sessions: usize,
    /// Sessions among them whose CONNECT the node has answered.
    #[serde(skip)]
    pub(super) served: usize,
    /// Permits for connections in setup.
    #[serde(skip, default = "no_dials")]
    pub(super) dials: Arc<Semaphore>,
}

/// The latest failure of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NodeFailure {
    #[serde(with = "time")]
    pub(super) at: Instant,
    pub(super) text: String,
}

/// Stands in until the limit of the settings is known.
fn no_dials() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

impl NodeEntry {
    pub(super) fn new(node: Arc<Node>, settings: &Settings, now: Instant) -> Self {
        Self {
            node,
            known_since: now,
            withdrawn_at: None,
            failures: 0,
            relapses: 0,
            recovered_at: None,
            cooling_until: None,
            retry_at: None,
            on_trial: false,
            last_failure: None,
            proved_at: None,
            unproved_at: None,
            is_leaving: false,
            is_drained: false,
            probe_at: now + probe_wait(settings, FIRST_PROBE),
            eager_until: None,
            sessions: 0,
            served: 0,
            dials: Arc::new(Semaphore::new(settings.dial.dials_concurrent_max)),
        }
    }

    /// Goes on in the next program.
    pub(super) fn restored(self, dials_concurrent_max: usize) -> Self {
        Self {
            dials: Arc::new(Semaphore::new(dials_concurrent_max)),
            ..self
        }
    }

    /// Returns whether the node cools down.
    pub(super) fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.is_some_and(|until| until > now)
    }

    /// Returns whether the node recovered less than [`PROBATION`] ago.
    fn is_on_probation(&self, now: Instant) -> bool {
        self.recovered_at.is_some_and(|at| now < at + PROBATION)
    }

    /// Returns whether the failed node is probed at each retry time.
    pub(super) fn is_eager(&self, now: Instant) -> bool {
        self.has_failed() && self.eager_until.is_some_and(|until| until > now)
    }

    /// Returns whether the node failed when it was last tried.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Returns whether the node was never proved although it was tried, or was known for long enough to be probed. Somebody may
    /// have registered any number of addresses that do not exist.
    pub(super) fn is_doubtful(&self, settings: &Settings, now: Instant) -> bool {
        let interval = settings.health.idle_probe_interval_ms.duration();
        let is_due = now >= self.known_since + interval.mul_f64(PROVED_WITHIN);
        self.proved_at.is_none() && (self.has_failed() || is_due)
    }

    /// Records a failure and starts a cool-down. Returns whether it is the first failure in a row, and whether the node
    /// was proved until now. During a cool-down only a failed trial counts, so sessions that lose the node at the same
    /// moment count as one failure.
    pub(super) fn failed(
        &mut self,
        error: &str,
        trial: bool,
        settings: &Settings,
        now: Instant,
    ) -> (bool, bool) {
        if self.is_cooling(now) && !trial {
            return (false, false);
        }
        self.is_leaving = false;
        let was_proved = self.is_proved(settings, now);
        if was_proved {
            self.unproved_at = Some(now);
        }
        if !self.has_failed() {
            self.relapses = if self.is_on_probation(now) {
                self.relapses + 1
            } else {
                0
            };
        }
        let bound = |base: Duration, max: Duration| base.saturating_mul(1 << self.failures.min(20)).min(max);
        let mut rng = rand::rng();
        let cooldown_base = settings.choice.cooldown_base_ms.duration();
        let cooldown_max = settings.choice.cooldown_max_ms.duration();
        let cooling = bound(cooldown_base, cooldown_max).mul_f64(rng.random::<f64>());
        let retry = bound(RETRY_BASE, RETRY_MAX).mul_f64(rng.random_range(0.5..1.0));
        self.failures += 1;
        let cooled_at = now + cooling.max(cooldown_base);
        self.cooling_until = Some(cooled_at);
        self.retry_at = Some(now + retry);
        self.probe_at = if self.is_eager(now) {
            now + retry
        } else {
            cooled_at.max(now + probe_wait(settings, FIRST_PROBE))
        };
        self.last_failure = Some(NodeFailure {
            at: now,
            text: error.to_owned(),
        });
        (self.failures == 1, was_proved)
    }

    /// Records a proof. Returns whether the node had failed when it was last tried.
    pub(super) fn proved(&mut self, settings: &Settings, now: Instant) -> bool {
        self.proved_at = Some(now);
        self.is_leaving = false;
        self.cooling_until = None;
        self.retry_at = None;
        self.last_failure = None;
        self.eager_until = None;
        self.probe_at = now + probe_wait(settings, NEXT_PROBE);
        let had_failed = std::mem::take(&mut self.failures) > 0;
        if had_failed {
            self.recovered_at = Some(now);
        }
        had_failed
    }

    /// Records that the node has announced its shutdown.
    pub(super) fn leaves(&mut self, settings: &Settings, now: Instant) {
        self.is_leaving = true;
        self.probe_soon(settings, now);
    }

    /// Records that no source names the node any more. Returns the time since which this is so.
    pub(super) fn withdrawn(&mut self, settings: &Settings, now: Instant) -> Instant {
        if self.withdrawn_at.is_none() {
            self.probe_soon(settings, now);
        }
        *self.withdrawn_at.get_or_insert(now)
    }

    /// Probes the node soon, because it leaves: it may be back after a moment or not at all.
    fn probe_soon(&mut self, settings: &Settings, now: Instant) {
        self.probe_at = self.probe_at.min(now + probe_wait(settings, FIRST_PROBE));
    }

    /// Returns whether a trial may begin now.
    pub(super) fn is_retry_due(&self, now: Instant) -> bool {
        !self.on_trial && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Returns whether dials to the node are limited.
    pub(super) fn is_limited(&self, now: Instant) -> bool {
        self.has_failed() || self.relapses >= RELAPSES_MAX && self.is_on_probation(now)
    }

    /// Returns the time until which the last proof counts: two probe intervals plus the longest cool-down after it,
    /// and at least until now while the node serves a session. Returns `None` if the node was never proved or has
    /// failed since.
    pub(super) fn proved_until(&self, settings: &Settings, now: Instant) -> Option<Instant> {
        let proved_at = self.proved_at.filter(|_| !self.has_failed())?;
        let probe_interval = settings.health.idle_probe_interval_ms.duration();
        let aged = proved_at + probe_interval * 2 + settings.choice.cooldown_max_ms.duration();
        Some(if self.served > 0 { aged.max(now) } else { aged })
    }

    /// Returns whether the last proof still counts.
    pub(super) fn is_proved(&self, settings: &Settings, now: Instant) -> bool {
        self.proved_until(settings, now).is_some_and(|until| until >= now)
    }

    /// Returns the state as shown on `/nodez` and in the metrics.
    pub(super) fn state(&self, settings: &Settings, now: Instant) -> &'static str {
        match self.node.state {
            _ if self.is_cooling(now) => "cooling",
            _ if self.has_failed() => "down",
            NodeState::Draining => "draining",
            NodeState::Up if self.is_leaving || self.is_drained => "draining",
            NodeState::Up if self.is_proved(settings, now) => "up",
            NodeState::Up => "unproved",
        }
    }
}

/// Returns a random wait: a factor in `range` times the interval between idle probes. So probes are spread over time.
fn probe_wait(settings: &Settings, range: Range<f64>) -> Duration {
    let interval = settings.health.idle_probe_interval_ms.duration();
    interval.mul_f64(rand::rng().random_range(range))
}
