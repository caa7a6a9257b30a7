//! How the sources are: for readiness, metrics and the operator's page.

use std::time::Instant;

use serde::Serialize;

use crate::node::Source;

/// How a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Not configured.
    #[default]
    Off,
    /// Not asked successfully yet.
    Connecting,
    /// Its last answer is current.
    Healthy,
    /// It cannot be asked now; its last answer still counts.
    Lost,
}

impl SourceState {
    /// A stable name, for metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Healthy => "healthy",
            Self::Lost => "lost",
        }
    }
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceHealth {
    /// Its name: the host list and path, or the DNS name. Empty when off.
    pub name: String,
    /// How it is.
    pub state: SourceState,
    /// Milliseconds since it last answered, as of the moment [`Health`] was taken. A healthy ZooKeeper
    /// answers with changes only and then counts as answering now.
    pub last_good_age_ms: Option<u64>,
    #[serde(skip)]
    pub(crate) last_good: Option<Instant>,
    /// The server that answers, when there is one in particular.
    pub server: Option<String>,
    /// Nodes in its last answer.
    pub nodes: usize,
    /// Records in its last answer that cannot be read.
    pub skipped: usize,
    /// Records found unreadable since the start; a record counts again when it changed.
    pub skipped_total: u64,
    /// Nodes in its last answer that are left out because there are more than `nodes_max`.
    pub over_limit: usize,
    /// Sessions begun since the start (ZooKeeper).
    pub sessions_total: u64,
    /// Failures since the start: connections lost, rounds without one, lookups without an answer.
    pub errors_total: u64,
    /// The last failure; stays after recovery.
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

/// All sources at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Health {
    /// The ensemble.
    pub zookeeper: SourceHealth,
    /// Each DNS name.
    pub dns: Vec<SourceHealth>,
    /// Nodes in [`Snapshot::live`](crate::Snapshot).
    pub live_nodes: usize,
    /// Nodes in [`Snapshot::cached`](crate::Snapshot).
    pub cached_nodes: usize,
    /// Nodes in [`Snapshot::fixed`](crate::Snapshot), those of gossip among them.
    pub fixed_nodes: usize,
    /// Nodes that other nodes named.
    pub gossip_nodes: usize,
    /// [`Snapshot::generation`](crate::Snapshot).
    pub generation: u64,
    /// Times the cache file was written.
    pub cache_writes_total: u64,
    /// Why the cache file could last not be read or written.
    pub cache_error: Option<String>,
}

impl Health {
    /// How the sources of a kind are, the best of them when there are several; what metrics show.
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
