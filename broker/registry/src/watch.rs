//! [`watch()`] and [`Watch`], the interface for readers. A reader never waits for the task of the registry: it loads what the
//! task has published. Commands for the task are queued up to a limit, and rejected above it.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tracing::{debug, warn};

use crate::cache::{self, INFO_BYTES_MAX};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::gossip::InfoReport;
use crate::health::Health;
use crate::hub::{Hub, HubEvent, Published};
use crate::memory::RegistryMemory;
use crate::registration_state::RegistrationState;
use crate::snapshot::Snapshot;
use crate::upstream::Credentials;

/// Maximum number of events in the queue of the task.
const EVENTS_QUEUED_MAX: usize = 1_024;

/// Handle of a running registry. Clones are cheap and refer to the same registry. When the last clone is dropped, the
/// registry ends.
#[derive(Clone)]
pub struct Watch {
    pub(crate) published: Arc<Published>,
    events: mpsc::Sender<HubEvent>,
    generation: channel::Receiver<u64>,
    /// Stops the task: when the last clone is dropped, or when [`close`](Self::close) sends `true`.
    stop: Arc<channel::Sender<bool>>,
}

/// Starts to watch the sources of `config`. Returns at once: the first snapshot has the nodes of the cache file and of
/// [`Config::fixed`]. The other sources are read in the background.
///
/// # Errors
/// Those of [`Config::check`]; [`RegistryError::NoRuntime`] outside of a tokio runtime; [`RegistryError::Thread`].
pub fn watch(config: Config) -> Result<Watch, RegistryError> {
    watch_on(config, None)
}

/// Starts as [`watch`] does, with what the process knew that this one replaces. The cache file is then not read.
///
/// # Errors
/// Those of [`watch`].
pub fn watch_on(config: Config, memory: Option<RegistryMemory>) -> Result<Watch, RegistryError> {
    config.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| RegistryError::NoRuntime)?;
    let mut health = Health::default();
    let path = config.cache_file.as_ref().filter(|_| memory.is_none());
    let contents = path.map(|path| cache::load(path, config.nodes_max)).transpose();
    let contents = contents.unwrap_or_else(|reason| {
        warn!("{reason}");
        health.cache_error = Some(reason);
        None
    });
    let memory = memory.unwrap_or_else(|| RegistryMemory {
        contents: contents.unwrap_or_default(),
        ..RegistryMemory::default()
    });
    let (events, queue) = mpsc::channel(EVENTS_QUEUED_MAX);
    let (stop, stopped) = channel::channel(false);
    let (generation, generations) = channel::channel(0);
    let published = Arc::new(Published {
        snapshot: ArcSwap::default(),
        health: ArcSwap::default(),
        info: ArcSwapOption::new(memory.contents.info.clone().map(Arc::new)),
        answered: channel::Sender::new(false),
        wanted: channel::Sender::new(None),
        registration: channel::Sender::new(RegistrationState::Withdrawn),
    });
    let hub = Hub::start(
        config,
        memory,
        health,
        Arc::clone(&published),
        generation,
        &events,
        &runtime,
    )?;
    runtime.spawn(hub.run(queue, stopped));
    Ok(Watch {
        published,
        events,
        generation: generations,
        stop: Arc::new(stop),
    })
}

impl Watch {
    /// Returns the current snapshot. Never waits and takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot.load_full()
    }

    /// Waits for a snapshot published after the last return of this function. A new clone has seen the same snapshots as its
    /// original. Waits forever if the registry is closed and this clone has seen the last snapshot. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.generation.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the snapshot includes the first list that ZooKeeper has returned since the start, even an empty one. From
    /// then on, the live nodes of the snapshot include all nodes of ZooKeeper's last list. This holds until the sources change.
    /// Never returns if ZooKeeper is not a source. Cancel-safe.
    pub async fn answered(&self) {
        let mut answered = self.published.answered.subscribe();
        if answered.wait_for(|answered| *answered).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Adds the nodes that the INFO of the node at `from` lists, unless [`Config::gossip`] is off. They get the credentials
    /// `credentials`. Never waits. If the queue of the task is full, the nodes are ignored until the next INFO.
    pub fn learned(&self, from: &Endpoint, credentials: Option<Arc<Credentials>>, connect_urls: &[String]) {
        let snapshot = self.published.snapshot.load();
        let report = InfoReport {
            from: from.clone(),
            tls: snapshot.find(from).is_some_and(|node| node.tls),
            credentials,
            connect_urls: connect_urls.to_vec(),
        };
        if self.events.try_send(HubEvent::Learned(report)).is_err() {
            debug!(%from, "registry queue full, nodes named in INFO are ignored");
        }
    }

    /// Marks the node with this `run` as dead, because it does not answer on its mesh address. If that node holds the znode of
    /// this registry's announcement, the znode is deleted. Then the announcement need not wait until the dead node's session
    /// expires. Does nothing without an announcement. `None` removes the mark: a node that answers again keeps its znode.
    pub fn supersede(&self, run: Option<&str>) {
        self.published.wanted.send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            let wanted = wanted.filter(|wanted| wanted.dead_run.as_deref() != run);
            wanted
                .map(|wanted| wanted.dead_run = run.map(str::to_owned))
                .is_some()
        });
    }

    /// Returns whether the znode of this registry's announcement exists.
    pub fn is_registered(&self) -> bool {
        *self.published.registration.borrow() == RegistrationState::Announced
    }

    /// Returns the state of the sources.
    pub fn health(&self) -> Health {
        Health::clone(&self.published.health.load()).aged()
    }

    /// Changes the sources and limits. Keeps the last node list until a new source has returned one.
    ///
    /// # Errors
    /// Those of [`Config::check`]; [`RegistryError::Busy`]; [`RegistryError::Closed`]. Nothing has changed then.
    pub fn reconfigure(&self, config: Config) -> Result<(), RegistryError> {
        config.check()?;
        self.events
            .try_send(HubEvent::Reconfigure(Box::new(config)))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => RegistryError::Busy {
                    queued_max: EVENTS_QUEUED_MAX,
                },
                mpsc::error::TrySendError::Closed(_) => RegistryError::Closed,
            })
    }

    /// Keeps the JSON of a node's INFO for the time when no node can be reached; with a cache file, also over restarts. JSON of
    /// more than 32 KiB is ignored.
    pub fn remember_info(&self, json: String) {
        let is_known = self.published.info.load().as_deref() == Some(&json);
        if is_known || json.len() > INFO_BYTES_MAX {
            return;
        }
        self.published.info.store(Some(Arc::new(json)));
        if self.events.try_send(HubEvent::InfoChanged).is_err() {
            debug!("registry queue full, the INFO is written with the next change");
        }
    }

    /// Returns the JSON that was kept last.
    pub fn remembered_info(&self) -> Option<String> {
        self.published.info.load().as_deref().cloned()
    }

    /// Returns all that the registry knows. `None` if it is closed.
    pub async fn memory(&self) -> Option<RegistryMemory> {
        let (reply, memory) = oneshot::channel();
        self.events.send(HubEvent::Remember(reply)).await.ok()?;
        memory.await.ok()
    }

    /// Stops the registry, also for all clones. Returns when the ZooKeeper session is closed, its thread has ended, and the cache
    /// file is written.
    pub async fn close(self) {
        self.stop.send_replace(true);
        // The task drops its sender when it ends.
        let mut generation = self.generation.clone();
        while generation.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}
