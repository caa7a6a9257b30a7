//! Health of the sources of nodes, for readiness, metrics and the HTTP pages.

use std::time::Instant;

use serde::Serialize;

use crate::node::Source;

/// State of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Not configured.
    #[default]
    Off,
    /// Has not answered yet.
    Connecting,
    /// Answers. Its last answer is current.
    Healthy,
    /// Does not answer. Its last answer, if any, is still used.
    Lost,
}

impl SourceState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Off, Self::Connecting, Self::Healthy, Self::Lost];

    /// Returns the stable name, for metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Healthy => "healthy",
            Self::Lost => "lost",
        }
    }
}

/// Health of one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceHealth {
    /// Name of the source: host list and path, or DNS name. Empty if the source is off.
    pub name: String,
    /// State of the source.
    pub state: SourceState,
    /// Age of the last answer in milliseconds, measured when [`Watch::health`](crate::Watch::health) is called. `None` before
    /// the first answer. Always 0 while ZooKeeper is healthy: ZooKeeper reports each change, so its last answer is current.
    pub last_good_age_ms: Option<u64>,
    #[serde(skip)]
    pub(crate) last_good: Option<Instant>,
    /// Address of the connected server. Only for ZooKeeper.
    pub server: Option<String>,
    /// Number of nodes in the last answer.
    pub nodes: usize,
    /// Number of records in the last answer that could not be read or parsed.
    pub skipped: usize,
    /// Number of such records since the start. A record that changes and is still invalid is counted again.
    pub skipped_total: u64,
    /// Number of nodes in the last answer that were ignored because there are more than `nodes_max`.
    pub over_limit: usize,
    /// Number of new sessions since the start. Only for ZooKeeper.
    pub sessions_total: u64,
    /// Number of errors since the start. For ZooKeeper: lost connections, and rounds in which no server granted a session. For
    /// DNS: failed lookups.
    pub errors_total: u64,
    /// The last error. It is kept after recovery.
    pub last_error: Option<String>,
}

impl SourceHealth {
    pub(crate) fn new(name: impl ToString) -> Self {
        Self {
            name: name.to_string(),
            state: SourceState::Connecting,
            ..Self::default()
        }
    }

    pub(crate) fn answered(&mut self, nodes: usize) {
        self.state = SourceState::Healthy;
        self.last_good = Some(Instant::now());
        self.nodes = nodes;
    }

    pub(crate) fn failed(&mut self, error: String) {
        self.state = SourceState::Lost;
        self.errors_total += 1;
        self.last_error = Some(error);
    }

    fn age(&mut self, now: Instant) {
        self.last_good_age_ms = self
            .last_good
            .map(|then| u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX));
    }
}

/// Health of all sources at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Health {
    /// The ZooKeeper ensemble.
    pub zookeeper: SourceHealth,
    /// The DNS names.
    pub dns: Vec<SourceHealth>,
    /// Number of nodes in [`Snapshot::live`](crate::Snapshot).
    pub live_nodes: usize,
    /// Number of nodes in [`Snapshot::cached`](crate::Snapshot).
    pub cached_nodes: usize,
    /// Number of nodes in [`Snapshot::fixed`](crate::Snapshot), including those known from INFO.
    pub fixed_nodes: usize,
    /// Number of nodes that other nodes named in `connect_urls` of their INFO.
    pub gossip_nodes: usize,
    /// Value of [`Snapshot::generation`](crate::Snapshot).
    pub generation: u64,
    /// Number of successful writes of the cache file.
    pub cache_writes_total: u64,
    /// Error of the last read or write of the cache file. `None` if it succeeded.
    pub cache_error: Option<String>,
}

impl Health {
    /// Returns the state of a kind of source, for metrics. For several DNS names, returns the best of their states: healthy, then
    /// connecting, then lost.
    pub fn state(&self, source: Source) -> SourceState {
        match source {
            Source::ZooKeeper => self.zookeeper.state,
            Source::Dns => {
                let any = |state| self.dns.iter().any(|name| name.state == state);
                [SourceState::Healthy, SourceState::Connecting, SourceState::Lost]
                    .into_iter()
                    .find(|state| any(*state))
                    .unwrap_or(SourceState::Off)
            }
            Source::Cache if self.cached_nodes > 0 => SourceState::Healthy,
            Source::Fixed if self.fixed_nodes > self.gossip_nodes => SourceState::Healthy,
            Source::Gossip if self.gossip_nodes > 0 => SourceState::Healthy,
            Source::Cache | Source::Fixed | Source::Gossip => SourceState::Off,
        }
    }

    /// Returns the health with `last_good_age_ms` of each source set.
    pub(crate) fn aged(mut self) -> Self {
        let now = Instant::now();
        if self.zookeeper.state == SourceState::Healthy {
            self.zookeeper.last_good = Some(now);
        }
        self.zookeeper.age(now);
        self.dns.iter_mut().for_each(|name| name.age(now));
        self
    }
}
