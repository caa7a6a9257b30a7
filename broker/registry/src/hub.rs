//! The task between the sources and the readers. It merges the reports of the sources into the roster, publishes
//! snapshot and health, logs changes for the operator, and has the cache file written. It ends with the last reader
//! and stops all sources.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::announcer::Announcer;
use crate::cache::Kept;
use crate::cache_writer::{CacheWriter, Written};
use crate::children::Listing;
use crate::config::Config;
use crate::dns::{self, Answer, DnsName};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::gossip::Word;
use crate::health::{Health, SourceHealth, SourceState};
use crate::list::Lists;
use crate::registration::{Standing, Wanted};
use crate::resolver::LookupError;
use crate::roster::Roster;
use crate::session::{Report, millis};
use crate::snapshot::Snapshot;
use crate::thread::Thread;
use crate::work::Work;

/// Minimum time between writes of the cache file when the node list changes.
const CACHE_WRITE_MS_MIN: u64 = 1_000;
/// Minimum time between writes when only the INFO line changes; it has a counter that changes with every connection.
const INFO_WRITE_MS_MIN: u64 = 10_000;
/// Time for which INFO reports of nodes are gathered, so that a node whose INFO differs each time costs little.
const WORDS_GATHERED_FOR: Duration = Duration::from_millis(50);
/// Node names in one log line. Further names are only counted.
const LOGGED_NODES_MAX: usize = 10;

/// A report of a source or a command of a reader.
pub(crate) enum Input {
    Dns(DnsName, Answer),
    Learned(Word),
    InfoChanged,
    Reconfigure(Box<Config>),
}

/// State that readers and the task share.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) health: ArcSwap<Health>,
    pub(crate) info: ArcSwapOption<String>,
    /// Whether ZooKeeper has returned a list since the start and the snapshot includes it.
    pub(crate) answered: channel::Sender<bool>,
    /// This node's own registration, as wanted and as it is.
    pub(crate) wanted: channel::Sender<Option<Wanted>>,
    pub(crate) standing: channel::Sender<Standing>,
}

/// State of the task.
pub(crate) struct Hub {
    config: Config,
    roster: Roster,
    shared: Arc<Shared>,
    generation: channel::Sender<u64>,
    health: Health,
    cache: CacheWriter,
    /// The last INFO report per node since the roster was last updated, and the time of the next update.
    words: HashMap<Endpoint, Word>,
    hear_at: Option<Instant>,
    /// Unreadable records that were logged, each with its last change, so that each change is logged once.
    unreadable_told: HashMap<String, i64>,
    /// A weak sender, so that the queue ends with the readers.
    inputs: mpsc::WeakSender<Input>,
    zookeeper: Option<Thread>,
    announcer: Announcer,
    dns: JoinSet<()>,
}

impl Hub {
    /// Starts the sources and publishes the nodes that are known already.
    ///
    /// # Errors
    /// [`RegistryError::Thread`].
    pub(crate) fn start(
        config: Config,
        remembered: Lists,
        health: Health,
        shared: Arc<Shared>,
        generation: channel::Sender<u64>,
        inputs: &mpsc::Sender<Input>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, RegistryError> {
        let announcer = Announcer::new(shared.wanted.subscribe(), shared.standing.clone());
        let mut hub = Self {
            roster: Roster::new(&config, remembered, SystemTime::now()),
            cache: CacheWriter::new(config.cache_file.clone()),
            words: HashMap::new(),
            hear_at: None,
            config,
            shared,
            generation,
            health,
            unreadable_told: HashMap::new(),
            inputs: inputs.downgrade(),
            zookeeper: None,
            announcer,
            dns: JoinSet::new(),
        };
        hub.publish();
        hub.start_zookeeper()?;
        hub.start_dns(runtime);
        hub.publish_health();
        Ok(hub)
    }

    /// Runs until the stop order, or until the last reader is gone.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        mut stopped: channel::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                // Either the stop order or the end of the last reader.
                _ = stopped.changed() => break,
                Some(input) = queue.recv() => {
                    self.take(input);
                    self.publish_health();
                }
                report = next_report(&mut self.zookeeper) => {
                    self.take_zookeeper(report);
                    self.publish_health();
                }
                () = sleep_until(self.hear_at) => {
                    self.hear();
                    self.publish_health();
                }
                () = sleep_until(self.cache.write_at()) => self.cache.begin(self.kept()),
                written = self.cache.written() => {
                    self.cache_written(written);
                    self.publish_health();
                }
            }
        }
        self.dns.shutdown().await;
        queue.close();
        while let Ok(input) = queue.try_recv() {
            if matches!(input, Input::InfoChanged) {
                self.cache.soil(0);
            }
        }
        if let Some(thread) = self.zookeeper.take() {
            thread.close().await;
        }
        let kept = self.kept();
        if let Some(written) = self.cache.finish(kept).await {
            self.cache_written(written);
        }
        self.publish_health();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Dns(name, answer) => self.take_dns(&name, answer),
            Input::Learned(word) => {
                self.words.insert(word.from.clone(), word);
                self.hear_at
                    .get_or_insert_with(|| Instant::now() + WORDS_GATHERED_FOR);
            }
            Input::InfoChanged => self.cache.soil(INFO_WRITE_MS_MIN),
            Input::Reconfigure(config) => self.reconfigure(*config),
        }
    }

    /// Updates the roster with the gathered INFO reports.
    fn hear(&mut self) {
        self.hear_at = None;
        let mut changed = false;
        for word in std::mem::take(&mut self.words).into_values() {
            if self.roster.hear(&word) {
                debug!(from = %word.from, named = word.connect_urls.len(), "a node named other nodes");
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
    }

    fn take_zookeeper(&mut self, report: Report) {
        let health = &mut self.health.zookeeper;
        match report {
            Report::Up {
                server,
                after,
                is_continued,
            } => {
                health.server = Some(server.to_string());
                health.sessions_total += u64::from(!is_continued);
                health.answered(health.nodes);
                let what = if is_continued { "continued" } else { "up" };
                info!(%server, without_ms = millis(after), "zookeeper: session {what}");
            }
            Report::Listing(listing) => self.take_listing(listing),
            Report::Registration(word) => self.announcer.take(word),
            Report::Audited { differences } => {
                warn!(
                    differences,
                    "zookeeper: list had changed without a watch event; read again"
                );
            }
            Report::Lost {
                server,
                reason,
                lasted,
            } => {
                warn!(%server, lasted_ms = millis(lasted), "zookeeper: connection lost, the last list is kept: {reason}");
                health.last_good = Some(std::time::Instant::now());
                health.server = None;
                let reason = format!("{server}: {reason}");
                self.announcer.without_session(&reason);
                health.failed(reason);
            }
            Report::Unreachable { reason } => {
                // Logged once per outage. A counter has the number of failures.
                if health.state == SourceState::Lost {
                    debug!("zookeeper: still no session: {reason}");
                } else {
                    warn!("zookeeper: no session, retrying: {reason}");
                }
                self.announcer.without_session(&reason);
                health.failed(reason);
            }
            Report::Fallen { reason } => {
                error!("zookeeper: {reason}");
                health.server = None;
                self.announcer.without_session(&reason);
                health.failed(reason);
            }
        }
    }

    fn take_listing(&mut self, listing: Listing) {
        let health = &mut self.health.zookeeper;
        health.answered(listing.nodes.len());
        health.skipped = listing.unreadable.len();
        health.over_limit = listing.over_limit;
        let mut told = HashMap::new();
        for record in listing.unreadable {
            if self.unreadable_told.get(&record.znode) != Some(&record.mzxid) {
                health.skipped_total += 1;
                warn!(
                    znode = record.znode,
                    "zookeeper: record skipped: {}", record.reason
                );
            }
            told.insert(record.znode, record.mzxid);
        }
        self.unreadable_told = told;
        if listing.over_limit > 0 {
            let (over, max) = (listing.over_limit, self.config.nodes_max);
            warn!("zookeeper: {over} nodes above nodes_max = {max} are ignored");
        }
        if listing.missing {
            info!("zookeeper: {} does not exist yet; waiting for it", health.name);
        }
        if self.roster.set_zookeeper(listing.nodes, SystemTime::now()) {
            self.cache.soil(CACHE_WRITE_MS_MIN);
        }
        self.publish();
        self.shared.answered.send_replace(true);
    }

    fn take_dns(&mut self, name: &DnsName, answer: Answer) {
        let text = name.to_string();
        let Some(health) = self.health.dns.iter_mut().find(|health| health.name == text) else {
            return;
        };
        match answer {
            Ok(nodes) => {
                health.answered(nodes.len().min(self.config.nodes_max));
                health.over_limit = nodes.len().saturating_sub(self.config.nodes_max);
                self.roster.set_dns(name, nodes, SystemTime::now());
                self.publish();
            }
            Err(error) => {
                let is_nothing = matches!(error, LookupError::Nothing(_));
                let error = error.to_string();
                if health.state != SourceState::Lost || health.last_error.as_deref() != Some(&error) {
                    warn!("dns: {name} not resolved, the last list is kept: {error}");
                }
                health.failed(error);
                if is_nothing {
                    self.roster.set_dns(name, Vec::new(), SystemTime::now());
                    self.publish();
                }
            }
        }
    }

    fn reconfigure(&mut self, config: Config) {
        let same_zookeeper =
            config.zookeeper == self.config.zookeeper && config.nodes_max == self.config.nodes_max;
        if config.cache_file != self.config.cache_file {
            self.cache.move_to(config.cache_file.clone());
        }
        self.roster.reconfigure(&config);
        self.config = config;
        info!("registry: new settings taken over");
        self.dns = JoinSet::new();
        self.start_dns(&tokio::runtime::Handle::current());
        if !same_zookeeper {
            self.zookeeper = None;
            if let Err(error) = self.start_zookeeper() {
                error!("zookeeper: {error}");
                self.health.zookeeper.failed(error.to_string());
            }
        }
        self.publish();
    }

    fn start_zookeeper(&mut self) -> Result<(), RegistryError> {
        let Some(config) = self.config.zookeeper.clone() else {
            self.health.zookeeper = SourceHealth::default();
            return Ok(());
        };
        self.health.zookeeper = SourceHealth::new(format!("{} {}", config.hosts, config.path));
        self.announcer.register_under(config.full_path()?);
        let work = Work::new(&config, self.config.nodes_max, self.shared.wanted.subscribe())?;
        self.zookeeper = Some(Thread::start(config, work)?);
        Ok(())
    }

    fn start_dns(&mut self, runtime: &tokio::runtime::Handle) {
        let earlier = std::mem::take(&mut self.health.dns);
        for name in self.config.dns.clone() {
            let Some(inputs) = self.inputs.upgrade() else {
                return;
            };
            let text = name.to_string();
            let health = earlier.iter().find(|health| health.name == text).cloned();
            self.health
                .dns
                .push(health.unwrap_or_else(|| SourceHealth::new(text)));
            let told = name.clone();
            let tell = async move |answer| inputs.send(Input::Dns(told.clone(), answer)).await.is_ok();
            let (server, refresh_ms) = (self.config.dns_server, self.config.dns_refresh_ms);
            self.dns
                .spawn_on(dns::follow(name, server, refresh_ms, tell), runtime);
        }
    }

    /// Publishes a new snapshot if it differs from the last.
    fn publish(&mut self) {
        let before = self.shared.snapshot.load_full();
        let mut now = self.roster.snapshot();
        self.health.gossip_nodes = self.roster.gossip_nodes();
        if now.same_nodes(&before) {
            return;
        }
        now.generation = before.generation + 1;
        tell_difference(&before, &now);
        if before.live != now.live {
            self.cache.soil(CACHE_WRITE_MS_MIN);
        }
        (self.health.live_nodes, self.health.cached_nodes) = (now.live.len(), now.cached.len());
        self.health.fixed_nodes = now.fixed.len();
        self.health.generation = now.generation;
        let generation = now.generation;
        self.shared.snapshot.store(Arc::new(now));
        self.generation.send_replace(generation);
    }

    fn publish_health(&self) {
        self.shared.health.store(Arc::new(self.health.clone()));
    }

    fn kept(&self) -> Kept {
        Kept {
            remembered: self.roster.remembered(),
            info: self.shared.info.load().as_deref().cloned(),
        }
    }

    fn cache_written(&mut self, written: Written) {
        match written.unwrap_or_else(|error| Err(format!("the cache file's writer stopped: {error}"))) {
            Ok(()) => {
                self.health.cache_writes_total += 1;
                self.health.cache_error = None;
            }
            Err(reason) => {
                if self.health.cache_error.as_deref() != Some(&reason) {
                    warn!("{reason}");
                }
                self.health.cache_error = Some(reason);
            }
        }
    }
}

fn tell_difference(before: &Snapshot, now: &Snapshot) {
    let ids = |snapshot: &Snapshot| -> HashSet<Arc<str>> {
        snapshot.live.iter().map(|node| Arc::clone(&node.id)).collect()
    };
    let (before, live) = (ids(before), ids(now));
    for (what, ids) in [
        ("joined", live.difference(&before)),
        ("left", before.difference(&live)),
    ] {
        let mut ids: Vec<&str> = ids.map(|id| &**id).collect();
        if ids.is_empty() {
            continue;
        }
        ids.sort_unstable();
        let (count, shown) = (ids.len(), ids[..ids.len().min(LOGGED_NODES_MAX)].join(" "));
        let more = if count > LOGGED_NODES_MAX { " …" } else { "" };
        info!(count, live = live.len(), "nodes {what}: {shown}{more}");
    }
}

async fn next_report(thread: &mut Option<Thread>) -> Report {
    match thread {
        Some(thread) => thread.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
