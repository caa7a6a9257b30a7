//! The task between the sources and the readers. It merges the reports of the sources into the roster, publishes
//! the snapshot and the health, logs changes for the operator, and starts the writes of the cache file. When the last reader
//! is gone, the task stops all sources and ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::cache::CacheContents;
use crate::cache_writer::CacheWriter;
use crate::children::Listing;
use crate::config::Config;
use crate::dns::{self, DnsAnswer, DnsName};
use crate::error::RegistryError;
use crate::gossip::InfoReport;
use crate::health::{Health, SourceHealth, SourceState};
use crate::list::ListName;
use crate::memory::RegistryMemory;
use crate::node::Source;
use crate::record::truncated;
use crate::registration_reporter::RegistrationReporter;
use crate::registration_state::{RegistrationState, Wanted};
use crate::resolver::LookupError;
use crate::roster::Roster;
use crate::session::SessionReport;
use crate::session_task::SessionTask;
use crate::session_thread::SessionThread;
use crate::snapshot::Snapshot;

/// Minimum time between writes of the cache file when the node list changes.
const CACHE_WRITE_MS_MIN: u64 = 1_000;
/// Minimum time between writes when only the INFO changes. If the nodes differ in their features, the INFO changes whenever sessions
/// move.
const INFO_WRITE_MS_MIN: u64 = 10_000;
/// Time for which INFO reports are collected, so that nodes whose INFO changes all the time cost little.
const INFO_REPORTS_DELAY: Duration = Duration::from_millis(50);
/// Node names in one log line, and invalid records that are logged at a time. Further ones are only counted.
const LOGGED_NODES_MAX: usize = 10;
/// Longest part of a znode's path in a log line, in bytes.
const LOGGED_PATH_BYTES_MAX: usize = 256;

/// A report of DNS, or a command of a reader.
pub(crate) enum HubEvent {
    Dns(DnsName, DnsAnswer),
    Learned(InfoReport),
    InfoChanged,
    /// A reader wants all that the task would need to go on in another process.
    Remember(oneshot::Sender<RegistryMemory>),
    Reconfigure(Box<Config>),
}

/// Values that the task publishes for readers.
pub(crate) struct Published {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) health: ArcSwap<Health>,
    pub(crate) info: ArcSwapOption<String>,
    /// Whether the snapshot includes a list that ZooKeeper has returned since the start.
    pub(crate) answered: channel::Sender<bool>,
    /// This node's own registration: first the wanted one, then its present state.
    pub(crate) wanted: channel::Sender<Option<Wanted>>,
    pub(crate) registration: channel::Sender<RegistrationState>,
}

/// State of the task.
pub(crate) struct Hub {
    config: Config,
    roster: Roster,
    published: Arc<Published>,
    generation: channel::Sender<u64>,
    health: Health,
    cache: CacheWriter,
    /// The last INFO report of each node since the roster was updated, in the order in which they came, and the time of the next update.
    info_reports: Vec<InfoReport>,
    info_reports_due: Option<Instant>,
    /// Invalid records that were logged, each with its last change, so that each change is logged once.
    unreadable_logged: HashMap<String, i64>,
    /// A weak sender, so that the queue closes when the last reader is gone.
    events: mpsc::WeakSender<HubEvent>,
    zookeeper: Option<SessionThread>,
    reporter: RegistrationReporter,
    dns: JoinSet<()>,
}

impl Hub {
    /// Starts the sources and publishes the nodes that are known already.
    ///
    /// # Errors
    /// [`RegistryError::Thread`].
    pub(crate) fn start(
        config: Config,
        memory: RegistryMemory,
        health: Health,
        published: Arc<Published>,
        generation: channel::Sender<u64>,
        events: &mpsc::Sender<HubEvent>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, RegistryError> {
        let reporter =
            RegistrationReporter::new(published.wanted.subscribe(), published.registration.clone());
        let mut hub = Self {
            roster: Roster::new(
                &config,
                memory.contents.remembered,
                memory.gossip,
                SystemTime::now(),
            ),
            cache: CacheWriter::new(config.cache_file.clone()),
            info_reports: Vec::new(),
            info_reports_due: None,
            config,
            published,
            generation,
            health,
            unreadable_logged: HashMap::new(),
            events: events.downgrade(),
            zookeeper: None,
            reporter,
            dns: JoinSet::new(),
        };
        hub.publish();
        hub.start_zookeeper()?;
        hub.start_dns(runtime);
        hub.publish_health();
        Ok(hub)
    }

    /// Runs until it is stopped or the last reader is gone. Then stops all sources and writes the cache file.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<HubEvent>,
        mut stopped: channel::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                // A stop command, or the end of the last reader.
                _ = stopped.changed() => break,
                Some(event) = queue.recv() => self.take(event),
                report = next_report(&mut self.zookeeper) => self.take_zookeeper(report),
                () = sleep_until(self.info_reports_due) => self.take_info_reports(),
                () = sleep_until(self.cache.write_at()) => self.cache.start_write(self.contents()),
                written = self.cache.written() => self.cache_written(written),
            }
            self.publish_health();
        }
        self.dns.shutdown().await;
        queue.close();
        while let Ok(event) = queue.try_recv() {
            if matches!(event, HubEvent::InfoChanged) {
                self.cache.mark_dirty(0);
            }
        }
        if let Some(thread) = self.zookeeper.take() {
            thread.close().await;
        }
        let contents = self.contents();
        if let Some(written) = self.cache.finish(contents).await {
            self.cache_written(written);
        }
        self.publish_health();
    }

    fn take(&mut self, event: HubEvent) {
        match event {
            HubEvent::Dns(name, answer) => self.take_dns(&name, answer),
            HubEvent::Learned(report) => {
                self.info_reports.retain(|earlier| earlier.from != report.from);
                self.info_reports.push(report);
                self.info_reports_due
                    .get_or_insert_with(|| Instant::now() + INFO_REPORTS_DELAY);
            }
            HubEvent::InfoChanged => self.cache.mark_dirty(INFO_WRITE_MS_MIN),
            // The reader may have given up.
            HubEvent::Remember(reply) => drop(reply.send(RegistryMemory {
                contents: self.contents(),
                gossip: self.roster.gossip().clone(),
            })),
            HubEvent::Reconfigure(config) => self.reconfigure(*config),
        }
    }

    /// Updates the roster with the collected INFO reports. Each replaces earlier ones, so the order matters.
    fn take_info_reports(&mut self) {
        self.info_reports_due = None;
        let mut changed = false;
        for report in std::mem::take(&mut self.info_reports) {
            if self.roster.take_info_report(&report) {
                debug!(from = %report.from, named = report.connect_urls.len(), "a node named other nodes");
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
    }

    fn take_zookeeper(&mut self, report: SessionReport) {
        let health = &mut self.health.zookeeper;
        match report {
            SessionReport::Up {
                server,
                after,
                is_resumed,
            } => {
                health.server = Some(server.to_string());
                health.sessions_total += u64::from(!is_resumed);
                health.answered(health.nodes);
                let what = if is_resumed { "resumed" } else { "up" };
                info!(%server, without_ms = millis(after), "zookeeper: session {what}");
            }
            SessionReport::Listing(listing) => self.take_listing(listing),
            SessionReport::Registration(event) => self.reporter.take(event),
            SessionReport::Audited { differences } => {
                warn!(
                    differences,
                    "zookeeper: list had changed without a watch event, read again"
                );
            }
            SessionReport::Lost {
                server,
                reason,
                lasted,
            } => {
                warn!(%server, lasted_ms = millis(lasted), "zookeeper: connection lost, the last list is kept: {reason}");
                health.last_good = Some(std::time::Instant::now());
                health.server = None;
                let reason = format!("{server}: {reason}");
                self.reporter.without_session(&reason);
                health.failed(reason);
            }
            SessionReport::Unreachable { reason } => {
                // Logged once per outage. `errors_total` counts all failures.
                if health.state == SourceState::Lost {
                    debug!("zookeeper: still no session, retrying: {reason}");
                } else {
                    warn!("zookeeper: no session, retrying: {reason}");
                }
                self.reporter.without_session(&reason);
                health.failed(reason);
            }
            SessionReport::ThreadEnded { reason } => {
                error!("zookeeper: {reason}");
                health.server = None;
                self.reporter.without_session(&reason);
                health.failed(reason);
            }
        }
    }

    fn take_listing(&mut self, listing: Listing) {
        let health = &mut self.health.zookeeper;
        health.answered(listing.nodes.len());
        health.skipped = listing.unreadable.len();
        let was_over_limit = std::mem::replace(&mut health.over_limit, listing.over_limit) > 0;
        let mut logged = HashMap::new();
        let mut new = 0;
        for record in listing.unreadable {
            if self.unreadable_logged.get(&record.znode) != Some(&record.mzxid) {
                new += 1;
                if new <= LOGGED_NODES_MAX {
                    let znode = truncated(&record.znode, LOGGED_PATH_BYTES_MAX);
                    let reason = &record.reason;
                    warn!(znode, "zookeeper: record skipped: {reason}");
                }
            }
            logged.insert(record.znode, record.mzxid);
        }
        health.skipped_total += new as u64;
        if new > LOGGED_NODES_MAX {
            let more = new - LOGGED_NODES_MAX;
            warn!(more, "zookeeper: more records skipped");
        }
        self.unreadable_logged = logged;
        if listing.over_limit > 0 && !was_over_limit {
            let (over, max) = (listing.over_limit, self.config.nodes_max);
            warn!("zookeeper: {over} nodes above nodes_max = {max} are ignored");
        }
        if listing.missing {
            info!("zookeeper: {} does not exist yet; waiting for it", health.name);
        }
        if self.roster.set_zookeeper(listing.nodes, SystemTime::now()) {
            self.cache.mark_dirty(CACHE_WRITE_MS_MIN);
        }
        self.publish();
        self.published.answered.send_replace(true);
    }

    fn take_dns(&mut self, name: &DnsName, answer: DnsAnswer) {
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
                let has_no_records = matches!(error, LookupError::NoRecords(_));
                let error = error.to_string();
                if health.state != SourceState::Lost || health.last_error.as_deref() != Some(&error) {
                    warn!("dns: {name} not resolved, the last list is kept: {error}");
                }
                health.failed(error);
                if has_no_records {
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
            self.cache.set_path(config.cache_file.clone());
        }
        self.roster.reconfigure(&config);
        self.config = config;
        info!("registry: new settings in force");
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
        self.health.zookeeper = SourceHealth::new(ListName::from(&config).name);
        self.reporter.set_parent(config.full_path()?);
        let task = SessionTask::new(&config, self.config.nodes_max, self.published.wanted.subscribe())?;
        self.zookeeper = Some(SessionThread::start(config, task)?);
        Ok(())
    }

    fn start_dns(&mut self, runtime: &tokio::runtime::Handle) {
        let earlier = std::mem::take(&mut self.health.dns);
        for name in self.config.dns.clone() {
            let Some(events) = self.events.upgrade() else {
                return;
            };
            let text = name.to_string();
            let health = earlier.iter().find(|health| health.name == text).cloned();
            self.health
                .dns
                .push(health.unwrap_or_else(|| SourceHealth::new(text)));
            let reported = name.clone();
            let report = async move |answer| {
                let event = HubEvent::Dns(reported.clone(), answer);
                events.send(event).await.is_ok()
            };
            let (server, refresh_ms) = (self.config.dns_server, self.config.dns_refresh_ms);
            self.dns
                .spawn_on(dns::resolve_repeatedly(name, server, refresh_ms, report), runtime);
        }
    }

    /// Publishes a new snapshot if it differs from the last.
    fn publish(&mut self) {
        let before = self.published.snapshot.load_full();
        let mut now = self.roster.snapshot();
        let named_in_info = now.fixed.iter().filter(|node| node.source == Source::Gossip);
        self.health.gossip_nodes = named_in_info.count();
        if now.same_nodes(&before) {
            return;
        }
        now.generation = before.generation + 1;
        log_difference(&before, &now);
        if before.live != now.live {
            self.cache.mark_dirty(CACHE_WRITE_MS_MIN);
        }
        (self.health.live_nodes, self.health.cached_nodes) = (now.live.len(), now.cached.len());
        self.health.fixed_nodes = now.fixed.len();
        self.health.generation = now.generation;
        let generation = now.generation;
        self.published.snapshot.store(Arc::new(now));
        self.generation.send_replace(generation);
    }

    fn publish_health(&self) {
        self.published.health.store(Arc::new(self.health.clone()));
    }

    fn contents(&self) -> CacheContents {
        CacheContents {
            remembered: self.roster.remembered(),
            info: self.published.info.load().as_deref().cloned(),
        }
    }

    fn cache_written(&mut self, written: Result<(), String>) {
        match written {
            Ok(()) => {
                self.health.cache_writes_total += 1;
                self.health.cache_error = None;
            }
            Err(reason) => {
                if self.health.cache_error.as_deref() != Some(&reason) {
                    warn!("{reason}");
                }
                self.health.cache_error = Some(reason);
                self.cache.mark_dirty(CACHE_WRITE_MS_MIN);
            }
        }
    }
}

fn log_difference(before: &Snapshot, now: &Snapshot) {
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

/// Returns a time in milliseconds, for log lines.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn next_report(thread: &mut Option<SessionThread>) -> SessionReport {
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
