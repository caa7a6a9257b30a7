//! [`announce()`] and [`Announcement`], the announcing node's side: a node is in ZooKeeper for as long as it
//! lives. Behind it are the thread of the session and a task that takes what it reports, tells the operator
//! and publishes the standing.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{oneshot, watch as channel};
use tracing::{debug, error, info, warn};

use crate::announcing::{Announcing, Wanted, Word};
use crate::config::ZooKeeperConfig;
use crate::duty::{Report, millis};
use crate::error::RegistryError;
use crate::node::Node;
use crate::place::{Holder, Waiting};
use crate::record::Record;
use crate::thread::Thread;

/// How an announcement stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Our znode does not stand, as far as is known, and everything is done that it will.
    Seeking {
        /// Why it does not yet, or not any more.
        reason: String,
    },
    /// Our place is free, and our znode is made when [`Announcement::release`] says so.
    Ready,
    /// Our znode stands.
    Announced {
        /// The other nodes that were registered when it had just been made, in the same session: of two nodes
        /// that announce in one moment at least one sees the other here. Not kept up to date; that is what
        /// [`watch()`](crate::watch()) does.
        nodes: Vec<Arc<Node>>,
    },
    /// Somebody else has our id and is alive, or a persistent znode is in the way. Somebody has to do
    /// something; until then it is tried for ever.
    Taken {
        /// Who has it, when it left a record of ours.
        by: Option<Arc<Node>>,
        /// Which znode it is, and what to do.
        reason: String,
    },
}

impl Standing {
    /// A stable name, for metric labels and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Seeking { .. } => "seeking",
            Self::Ready => "ready",
            Self::Announced { .. } => "announced",
            Self::Taken { .. } => "taken",
        }
    }
}

/// A node's announcement. When it is dropped, everything behind it ends by itself; [`withdraw`](Self::withdraw)
/// waits for that.
#[must_use = "a dropped announcement is withdrawn"]
pub struct Announcement {
    id: String,
    run: String,
    wanted: channel::Sender<Wanted>,
    standing: channel::Receiver<Standing>,
    /// Dropped with the announcement, which the task sees.
    stop: oneshot::Sender<()>,
}

/// Announces a node as the ephemeral znode `<path>/<id>`. Returns at once; ZooKeeper is asked in the
/// background, for as long as the announcement lives.
///
/// The znodes above it, those of the chroot too, are created when they are missing. All that is created can be
/// read by all. Without [`digest_auth`](ZooKeeperConfig::digest_auth) all can change it too; with it only
/// those who have the same credentials, which every node of the cluster then needs. A znode above that others
/// shall change is best created by hand before.
///
/// # Errors
/// [`RegistryError::Setting`] or [`RegistryError::Address`] for a value that cannot work;
/// [`RegistryError::NoRuntime`] outside of a tokio runtime; [`RegistryError::Thread`].
pub fn announce(config: ZooKeeperConfig, record: Record) -> Result<Announcement, RegistryError> {
    let announcement = reserve(config, record)?;
    announcement.release();
    Ok(announcement)
}

/// As [`announce()`], but until [`Announcement::release`] the znode itself is not made: a session is opened, a
/// ghost of this node removed, and told whether somebody else has the place. Whoever sees the znode may come
/// at once; so a node first learns here how long it has to wait, and then opens its port.
///
/// # Errors
/// As [`announce()`].
pub fn reserve(config: ZooKeeperConfig, record: Record) -> Result<Announcement, RegistryError> {
    config.check()?;
    record.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| RegistryError::NoRuntime)?;
    let (id, run) = (record.id.clone(), record.run.clone());
    let (wanted, wants) = channel::channel(Wanted {
        record: Arc::new(record),
        is_held: true,
    });
    let announcing = Announcing::new(&config, wants)?;
    let (publish, standing) = channel::channel(Standing::Seeking {
        reason: "ZooKeeper has not answered yet".to_owned(),
    });
    let (stop, stopped) = oneshot::channel();
    let crier = Crier {
        znode: announcing.znode().to_owned(),
        standing: publish,
        is_outage_told: false,
    };
    runtime.spawn(crier.run(Thread::start(config, announcing)?, stopped));
    Ok(Announcement {
        id,
        run,
        wanted,
        standing,
        stop,
    })
}

impl Announcement {
    /// How it stands now. Never waits.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Returns when the standing has changed since this was last waited for. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How it stands, for one more who follows it.
    pub fn follow(&self) -> channel::Receiver<Standing> {
        self.standing.clone()
    }

    /// The znode is made as soon as it can be. Never waits.
    pub fn release(&self) {
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(&mut wanted.is_held, false));
    }

    /// Announces this record from now on, of the same `id` and `run`: at once when the znode stands, else as
    /// soon as it does. Never waits.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for a value that cannot work, and then nothing
    /// has changed.
    pub fn set(&self, record: Record) -> Result<(), RegistryError> {
        record.check()?;
        for (name, new, old) in [("id", &record.id, &self.id), ("run", &record.run, &self.run)] {
            if new != old {
                let reason = format!("it stays {old:?} for as long as the announcement lives");
                return Err(RegistryError::setting(name, new, reason));
            }
        }
        self.wanted.send_modify(|wanted| wanted.record = Arc::new(record));
        Ok(())
    }

    /// Deletes the znode and closes the session, and returns when all behind this has ended. That takes as
    /// long as ZooKeeper's answers, and less than a second when it gives none; then the znode goes when
    /// ZooKeeper ends the session.
    pub async fn withdraw(self) {
        let Self {
            mut standing, stop, ..
        } = self;
        drop(stop);
        // The task's end is the end of its sender.
        while standing.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("id", &self.id)
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}

/// The task between the thread and the announcement: it publishes, and tells the operator.
struct Crier {
    znode: String,
    standing: channel::Sender<Standing>,
    /// The outage under way was told.
    is_outage_told: bool,
}

impl Crier {
    /// Works until the announcement is gone.
    async fn run(mut self, mut thread: Thread<Announcing>, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                report = thread.next() => self.take(report),
            }
        }
        thread.close().await;
        info!("announcement: {} is announced no more", self.znode);
    }

    fn take(&mut self, report: Report<Word>) {
        match report {
            Report::Up {
                server,
                after,
                is_continued,
            } => {
                let what = if is_continued { "continued" } else { "up" };
                info!(%server, without_ms = millis(after), "announcement: session {what}");
                self.is_outage_told = false;
            }
            Report::Word(word) => self.take_word(word),
            Report::Lost {
                server,
                reason,
                lasted,
            } => {
                let znode = &self.znode;
                warn!(%server, lasted_ms = millis(lasted), "announcement: connection lost, {znode} stands until the session is continued or expires: {reason}");
                self.is_outage_told = true;
                let reason = format!("{server}: {reason}");
                self.publish(Standing::Seeking { reason });
            }
            Report::Unreachable { reason } => {
                if std::mem::replace(&mut self.is_outage_told, true) {
                    debug!("announcement: still no session: {reason}");
                } else {
                    warn!("announcement: no session, trying on: {reason}");
                }
                self.publish(Standing::Seeking { reason });
            }
            Report::Fallen { reason } => {
                error!("announcement: {reason}");
                self.publish(Standing::Seeking { reason });
            }
        }
    }

    fn take_word(&mut self, word: Word) {
        let znode = &self.znode;
        match word {
            Word::Announced { nodes } => {
                info!(others = nodes.len(), "announcement: {znode} stands");
                self.publish(Standing::Announced { nodes });
            }
            Word::Ready => self.publish(Standing::Ready),
            Word::Waiting(waiting) => self.take_waiting(&waiting),
            Word::Removed(ghost) => info!("announcement: {znode} of {ghost} was removed"),
            Word::Rewritten => info!("announcement: {znode} has the new record"),
            Word::Overwritten => warn!("announcement: {znode} was changed by somebody; written back"),
            Word::Deleted => warn!("announcement: {znode} was deleted by somebody; made again"),
        }
    }

    fn take_waiting(&mut self, waiting: &Waiting) {
        let reason = format!("{}: {waiting}", self.znode);
        if !waiting.is_taken {
            info!("announcement: {reason}");
            self.publish(Standing::Seeking { reason });
            return;
        }
        error!("announcement: {reason}");
        let by = match &waiting.holder {
            Holder::Node(node) => Some(Arc::clone(node)),
            Holder::Unknown | Holder::Persistent => None,
        };
        self.publish(Standing::Taken { by, reason });
    }

    fn publish(&self, now: Standing) {
        self.standing.send_if_modified(|standing| {
            let is_new = *standing != now;
            *standing = now;
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
