//! [`watch()`] and [`Watch`], the reader's side. Readers never wait for the task behind it: they load what it
//! published. Orders to it are queued up to a limit and refused beyond.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch as channel};
use tracing::{debug, warn};

use crate::cache::{self, INFO_BYTES_MAX, Kept};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::gossip::Word;
use crate::health::Health;
use crate::hub::{Hub, Input, Shared};
use crate::registration::{Standing, Wanted};
use crate::snapshot::Snapshot;
use crate::upstream::Credentials;

/// Reports and orders waiting for the task.
const INPUTS_QUEUED_MAX: usize = 1_024;

/// The reader's side of the registry. Clones are cheap and share all; when the last one is dropped,
/// everything behind it ends.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
    generation: channel::Receiver<u64>,
    /// Dropped with the last clone, which the task sees; `true` is the order to end from
    /// [`close`](Self::close).
    stop: Arc<channel::Sender<bool>>,
}

/// Starts to watch the sources of `config`. Returns at once: the first snapshot holds what the cache file and
/// the fixed list know, and the sources are asked in the background.
///
/// # Errors
/// Those of [`Config::check`]; [`RegistryError::NoRuntime`] outside of a tokio runtime;
/// [`RegistryError::Thread`].
pub fn watch(config: Config) -> Result<Watch, RegistryError> {
    config.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| RegistryError::NoRuntime)?;
    let mut health = Health::default();
    let kept = config
        .cache_file
        .as_ref()
        .map_or_else(|| Ok(Kept::default()), |path| cache::load(path, config.nodes_max));
    let kept = kept.unwrap_or_else(|reason| {
        warn!("{reason}");
        health.cache_error = Some(reason);
        Kept::default()
    });
    let (inputs, queue) = mpsc::channel(INPUTS_QUEUED_MAX);
    let (stop, stopped) = channel::channel(false);
    let (generation, generations) = channel::channel(0);
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::default(),
        health: ArcSwap::default(),
        info: ArcSwapOption::new(kept.info.map(Arc::new)),
        answered: channel::Sender::new(false),
        wanted: channel::Sender::new(None),
        standing: channel::Sender::new(Standing::Withdrawn),
    });
    let hub = Hub::start(
        config,
        kept.remembered,
        health,
        Arc::clone(&shared),
        generation,
        &inputs,
        &runtime,
    )?;
    runtime.spawn(hub.run(queue, stopped));
    Ok(Watch {
        shared,
        inputs,
        generation: generations,
        stop: Arc::new(stop),
    })
}

impl Watch {
    /// What is known now. Never waits and takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Returns when the snapshot has changed since this clone last waited (or was made). After
    /// [`close`](Self::close) it never returns. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.generation.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when ZooKeeper has given a list once since the start, an empty one too, and the snapshot shows
    /// it: from then on a node that is not there is not registered. At once when it has already; never while
    /// ZooKeeper is no source. Cancel-safe.
    pub async fn answered(&self) {
        let mut answered = self.shared.answered.subscribe();
        if answered.wait_for(|answered| *answered).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Deletes the record that holds this node's id, if it is of a node with this `run`, which does not answer on its mesh
    /// address. So a node need not wait until the session of its dead predecessor ends. Does nothing without an
    /// announcement.
    pub fn supersede(&self, run: &str) {
        self.shared.wanted.send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            let wanted = wanted.filter(|wanted| wanted.dead_run.as_deref() != Some(run));
            wanted
                .map(|wanted| wanted.dead_run = Some(run.to_owned()))
                .is_some()
        });
    }

    /// Returns the sender of this node's wanted registration.
    pub(crate) fn wanted(&self) -> &channel::Sender<Option<Wanted>> {
        &self.shared.wanted
    }

    /// Returns the sender of the state of this node's registration.
    pub(crate) fn standing(&self) -> &channel::Sender<Standing> {
        &self.shared.standing
    }

    /// Takes up what the INFO of the node at `from` named; heeded only while gossip is on. Those it names are
    /// given the credentials `inherit`. Never waits; under a flood a word may be left out, the next INFO
    /// brings it again.
    pub fn learned(&self, from: &Endpoint, inherit: Option<Arc<Credentials>>, connect_urls: &[String]) {
        let tls = self
            .shared
            .snapshot
            .load()
            .find(from)
            .is_some_and(|node| node.tls);
        let word = Word {
            from: from.clone(),
            tls,
            inherit,
            connect_urls: connect_urls.to_vec(),
        };
        if self.inputs.try_send(Input::Learned(word)).is_err() {
            debug!(%from, "the registry is busy; what this node named is left out");
        }
    }

    /// How the sources are.
    pub fn health(&self) -> Health {
        Health::clone(&self.shared.health.load()).aged()
    }

    /// Takes over new sources and limits, without losing the last good list.
    ///
    /// # Errors
    /// Those of [`Config::check`], and then nothing has changed; [`RegistryError::Busy`];
    /// [`RegistryError::Closed`].
    pub fn reconfigure(&self, config: Config) -> Result<(), RegistryError> {
        config.check()?;
        self.inputs
            .try_send(Input::Reconfigure(Box::new(config)))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => RegistryError::Busy {
                    queued_max: INPUTS_QUEUED_MAX,
                },
                mpsc::error::TrySendError::Closed(_) => RegistryError::Closed,
            })
    }

    /// Keeps an INFO line of a node, up to 32 KiB, for the time when none can be reached; with a cache file
    /// also over restarts.
    pub fn remember_info(&self, line: String) {
        if line.len() > INFO_BYTES_MAX
            || self
                .shared
                .info
                .load()
                .as_deref()
                .is_some_and(|known| *known == line)
        {
            return;
        }
        self.shared.info.store(Some(Arc::new(line)));
        if self.inputs.try_send(Input::InfoChanged).is_err() {
            debug!("the registry is busy; the INFO line is written with the next change");
        }
    }

    /// The last INFO line that was kept.
    pub fn remembered_info(&self) -> Option<String> {
        self.shared.info.load().as_deref().cloned()
    }

    /// Ends everything behind this and all its clones, and returns when it has ended: session closed, thread
    /// gone, file written.
    pub async fn close(self) {
        self.stop.send_replace(true);
        // The task's end is the end of its sender.
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
