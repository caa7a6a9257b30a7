//! The task between the sources and the readers: it takes what the sources report, folds it into the roster,
//! publishes snapshot and health, tells the operator what changed, and has the cache file written. It ends
//! with the last reader and takes all sources along.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::cache::Kept;
use crate::cache_writer::{CacheWriter, Written};
use crate::children::Listing;
use crate::config::Config;
use crate::dns::{self, Answer, DnsName};
use crate::error::RegistryError;
use crate::gossip::Word;
use crate::health::{Health, SourceHealth, SourceState};
use crate::node::{Node, Source};
use crate::roster::Roster;
use crate::snapshot::Snapshot;
use crate::zookeeper::{self, Handle, Report, Reports};

/// The cache file is written no more often than this when the list changes,
const CACHE_WRITE_MS_MIN: u64 = 1_000;
/// and than this when only the INFO line does, which holds a counter that changes with every connection.
const INFO_WRITE_MS_MIN: u64 = 10_000;
/// After the session's thread was lost it is started again.
const THREAD_RESTART_MS: u64 = 5_000;
/// Node names in one log line; the rest is counted.
const LOGGED_NODES_MAX: usize = 10;

/// A report of a source or an order of a reader.
pub(crate) enum Input {
    ZooKeeper(u64, Report),
    Dns(DnsName, Answer),
    Learned(Word),
    InfoChanged,
    Reconfigure(Box<Config>),
}

/// What readers and the task share.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) health: ArcSwap<Health>,
    pub(crate) info: ArcSwapOption<String>,
}

/// The task's state.
pub(crate) struct Hub {
    config: Config,
    roster: Roster,
    shared: Arc<Shared>,
    generation: channel::Sender<u64>,
    health: Health,
    cache: CacheWriter,
    /// Unreadable records that were logged, each with its last change, so that each is logged once.
    unreadable_told: HashMap<String, i64>,
    /// Tells reports of the present session's thread from those of an earlier one still in the queue.
    epoch: u64,
    /// Weak, so that the queue ends with the readers.
    inputs: mpsc::WeakSender<Input>,
    zookeeper: Option<Handle>,
    thread_restart: Option<Instant>,
    dns: JoinSet<()>,
}

impl Hub {
    /// Starts the sources and publishes what is known already.
    ///
    /// # Errors
    /// [`RegistryError::Thread`].
    pub(crate) fn start(
        config: Config,
        remembered: BTreeMap<Source, Vec<Arc<Node>>>,
        health: Health,
        shared: Arc<Shared>,
        generation: channel::Sender<u64>,
        inputs: &mpsc::Sender<Input>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, RegistryError> {
        let mut hub = Self {
            roster: Roster::new(&config, remembered),
            cache: CacheWriter::new(config.cache_file.clone()),
            config,
            shared,
            generation,
            health,
            unreadable_told: HashMap::new(),
            epoch: 0,
            inputs: inputs.downgrade(),
            zookeeper: None,
            thread_restart: None,
            dns: JoinSet::new(),
        };
        hub.publish();
        hub.start_zookeeper()?;
        hub.start_dns(runtime);
        hub.publish_health();
        Ok(hub)
    }

    /// Works until the order to end comes or the last reader is gone.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        mut stopped: channel::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                // Either the order or the end of the last reader.
                _ = stopped.changed() => break,
                Some(input) = queue.recv() => {
                    self.take(input);
                    self.publish_health();
                }
                () = thread_ended(&mut self.zookeeper) => self.thread_lost(),
                () = sleep_until(self.thread_restart) => self.restart_thread(),
                () = sleep_until(self.cache.write_at()) => self.cache.begin(self.kept()),
                written = self.cache.written() => {
                    self.cache_written(written);
                    self.publish_health();
                }
            }
        }
        self.dns.shutdown().await;
        // The session's thread may wait for room in the queue, which nobody makes any more.
        queue.close();
        while let Ok(input) = queue.try_recv() {
            if matches!(input, Input::InfoChanged) {
                self.cache.soil(0);
            }
        }
        if let Some(handle) = self.zookeeper.take() {
            handle.close().await;
        }
        let kept = self.kept();
        if let Some(written) = self.cache.finish(kept).await {
            self.cache_written(written);
        }
        self.publish_health();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::ZooKeeper(epoch, report) if epoch == self.epoch => self.take_zookeeper(report),
            Input::ZooKeeper(..) => {}
            Input::Dns(name, answer) => self.take_dns(&name, answer),
            Input::Learned(word) => {
                if self.roster.hear(&word) {
                    info!(from = %word.from, named = word.connect_urls.len(), "a node named other nodes");
                    self.publish();
                }
            }
            Input::InfoChanged => self.cache.soil(INFO_WRITE_MS_MIN),
            Input::Reconfigure(config) => self.reconfigure(*config),
        }
    }

    fn take_zookeeper(&mut self, report: Report) {
        let health = &mut self.health.zookeeper;
        match report {
            Report::Up { server, after } => {
                health.server = Some(server.to_string());
                health.sessions_total += 1;
                health.answered(health.nodes);
                info!(%server, without_ms = millis(after), "zookeeper: session up");
            }
            Report::Listing(listing) => self.take_listing(listing),
            Report::Lost {
                server,
                reason,
                lasted,
            } => {
                warn!(%server, lasted_ms = millis(lasted), "zookeeper: session lost, the last list is kept: {reason}");
                health.last_good = Some(std::time::Instant::now());
                health.server = None;
                health.failed(format!("{server}: {reason}"));
            }
            Report::Unreachable { reason } => {
                // Told once per outage and reason; the counter tells how often.
                if health.state != SourceState::Lost || health.last_error.as_deref() != Some(&reason) {
                    warn!("zookeeper: no session, trying on: {reason}");
                }
                health.failed(reason);
            }
            Report::Audited { differences } => {
                warn!(
                    differences,
                    "zookeeper: changes that no watch had told; read again"
                );
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
            warn!("zookeeper: {over} nodes more than nodes_max = {max} are left out");
        }
        if listing.missing {
            info!("zookeeper: {} does not exist yet; waiting for it", health.name);
        }
        self.roster.set_zookeeper(listing.nodes);
        self.publish();
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
                self.roster.set_dns(name, nodes);
                self.publish();
            }
            Err(error) => {
                let error = error.to_string();
                if health.state != SourceState::Lost || health.last_error.as_deref() != Some(&error) {
                    warn!("dns: {name} not resolved, the last list is kept: {error}");
                }
                health.failed(error);
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
            self.epoch += 1;
            self.zookeeper = None;
            if let Err(error) = self.start_zookeeper() {
                error!("zookeeper: {error}");
                self.health.zookeeper.failed(error.to_string());
            }
        }
        self.publish();
    }

    fn start_zookeeper(&mut self) -> Result<(), RegistryError> {
        self.thread_restart = None;
        let (Some(config), Some(queue)) = (self.config.zookeeper.clone(), self.inputs.upgrade()) else {
            self.health.zookeeper = SourceHealth::default();
            return Ok(());
        };
        self.health.zookeeper = SourceHealth::new(format!("{} {}", config.hosts, config.path));
        let reports = Reports {
            queue,
            wrap: Input::ZooKeeper,
            epoch: self.epoch,
        };
        self.zookeeper = Some(zookeeper::start(config, self.config.nodes_max, reports)?);
        Ok(())
    }

    fn thread_lost(&mut self) {
        self.zookeeper = None;
        self.thread_restart = Some(Instant::now() + Duration::from_millis(THREAD_RESTART_MS));
        let reason = "the thread of the session ended by itself";
        error!("zookeeper: {reason}; it is started again in {THREAD_RESTART_MS} ms");
        self.health.zookeeper.failed(reason.to_owned());
        self.publish_health();
    }

    fn restart_thread(&mut self) {
        if let Err(error) = self.start_zookeeper() {
            error!("zookeeper: {error}");
            self.thread_restart = Some(Instant::now() + Duration::from_millis(THREAD_RESTART_MS));
        }
        self.publish_health();
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
            self.dns
                .spawn_on(dns::follow(name, self.config.clone(), tell), runtime);
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
            remembered: self.roster.remembered().clone(),
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

async fn thread_ended(handle: &mut Option<Handle>) {
    match handle {
        Some(handle) => handle.ended().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
