//! [`Announcement`], the handle of a node's own registration: a node is in ZooKeeper for as long as it lives.
//!
//! The registration is made in the session that watches the other nodes (`work.rs`). [`Announcer`] takes the reports
//! about it from the hub, logs them for the operator, and publishes the [`Standing`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tracing::{error, info, warn};

use crate::announcing::{Wanted, Word};
use crate::config::{Config, ZooKeeperConfig};
use crate::error::RegistryError;
use crate::node::Node;
use crate::place::{Holder, Waiting};
use crate::record::Record;
use crate::watch::{Watch, watch};
use crate::znode_path;

/// Limit for the answer of ZooKeeper to a withdrawal.
const WITHDRAW_MS_MAX: u64 = 500;

/// State of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is announced, or the znode was deleted as requested.
    Withdrawn,
    /// Our znode does not exist as far as is known. It is created as soon as possible.
    Seeking {
        /// Why it does not exist yet, or any more.
        reason: String,
    },
    /// The path is free. Our znode is created after [`Announcement::release`].
    Ready,
    /// Our znode exists, and the snapshot has all nodes that were registered before it. So of two nodes that register
    /// at the same moment at least one sees the other.
    Announced,
    /// Another live session holds our id, or a persistent znode is in the way. An operator has to act; until then it is
    /// tried again and again.
    Taken {
        /// The holder, if it left a valid record.
        by: Option<Arc<Node>>,
        /// The znode, and what to do.
        reason: String,
    },
}

impl Standing {
    /// Returns a stable name, for metric labels and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Seeking { .. } => "seeking",
            Self::Ready => "ready",
            Self::Announced => "announced",
            Self::Taken { .. } => "taken",
        }
    }
}

/// A node's registration. Dropping it deletes the znode in the background; [`withdraw`](Self::withdraw) waits for that.
#[must_use = "a dropped announcement is withdrawn"]
pub struct Announcement {
    id: String,
    run: String,
    standing: channel::Receiver<Standing>,
    watch: Watch,
}

/// Registers a node as the ephemeral znode `<path>/<id>` in a session of its own. Returns at once; ZooKeeper is asked in
/// the background, for as long as the announcement lives. See [`Watch::reserve`].
///
/// # Errors
/// As [`watch()`] and [`Watch::reserve`].
pub fn announce(zookeeper: ZooKeeperConfig, record: Record) -> Result<Announcement, RegistryError> {
    record.check()?;
    let watch = watch(Config {
        zookeeper: Some(zookeeper),
        gossip: false,
        ..Config::default()
    })?;
    let announcement = watch.reserve(record)?;
    announcement.release();
    Ok(announcement)
}

impl Announcement {
    pub(crate) fn new(record: &Record, standing: channel::Receiver<Standing>, watch: Watch) -> Self {
        Self {
            id: record.id.clone(),
            run: record.run.clone(),
            standing,
            watch,
        }
    }

    /// Returns the present state. Never waits.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Returns when the state has changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns another receiver of the state.
    pub fn follow(&self) -> channel::Receiver<Standing> {
        self.standing.clone()
    }

    /// Returns the watch in whose session the node is registered.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Lets the znode be created as soon as possible. Never waits.
    pub fn release(&self) {
        self.watch.wanted().send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            wanted.is_some_and(|wanted| std::mem::replace(&mut wanted.is_held, false))
        });
    }

    /// Registers this record from now on; `id` and `run` must be the same. It is written at once if the znode exists, and
    /// otherwise as soon as it does. Never waits.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for a value that cannot work; then nothing has changed.
    pub fn set(&self, record: Record) -> Result<(), RegistryError> {
        record.check()?;
        for (name, new, old) in [("id", &record.id, &self.id), ("run", &record.run, &self.run)] {
            if new != old {
                let reason = format!("it stays {old:?} for as long as the announcement lives");
                return Err(RegistryError::setting(name, new, reason));
            }
        }
        self.watch.wanted().send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            wanted.map(|wanted| wanted.record = Arc::new(record)).is_some()
        });
        Ok(())
    }

    /// Returns the id of the node.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Ends the registration, unless it is another one by now.
    fn cancel(&self) {
        self.watch.wanted().send_if_modified(|wanted| {
            let is_ours = wanted
                .as_ref()
                .is_some_and(|wanted| wanted.record.run == self.run);
            if is_ours {
                *wanted = None;
            }
            is_ours
        });
    }

    /// Deletes the znode and returns when it is gone. Without an answer of ZooKeeper it returns within a second; then
    /// the znode goes when the session is resumed or ends.
    pub async fn withdraw(mut self) {
        self.cancel();
        let gone = self
            .standing
            .wait_for(|standing| *standing == Standing::Withdrawn);
        let _ = tokio::time::timeout(Duration::from_millis(WITHDRAW_MS_MAX), gone).await;
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.cancel();
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

/// Logs and publishes the state of this node's registration.
pub(crate) struct Announcer {
    wanted: channel::Receiver<Option<Wanted>>,
    standing: channel::Sender<Standing>,
    parent: String,
}

impl Announcer {
    pub(crate) fn new(
        wanted: channel::Receiver<Option<Wanted>>,
        standing: channel::Sender<Standing>,
    ) -> Self {
        Self {
            wanted,
            standing,
            parent: String::new(),
        }
    }

    /// Sets the full path of the parent of our znode.
    pub(crate) fn register_under(&mut self, parent: String) {
        self.parent = parent;
    }

    /// Handles a report about our znode.
    pub(crate) fn take(&self, word: Word) {
        let znode = self.znode();
        match word {
            Word::Announced => {
                info!("registered: {znode} exists");
                self.publish(Standing::Announced);
            }
            Word::Ready => self.publish(Standing::Ready),
            Word::Waiting(waiting) => self.take_waiting(&znode, &waiting),
            Word::Withdrawn => {
                info!("unregistered: {znode} is deleted");
                self.publish(Standing::Withdrawn);
            }
            Word::Refused(reason) => {
                let reason = format!("{znode}: {reason}");
                error!("not registered, retrying: {reason}");
                self.publish(Standing::Seeking { reason });
            }
            Word::Removed(ghost) => info!("deleted {znode} of {ghost}"),
            Word::Rewritten => info!("{znode} has the new record"),
            Word::Overwritten => warn!("{znode} was changed by another client; written back"),
            Word::Deleted => warn!("{znode} was deleted by another client; created again"),
        }
    }

    fn take_waiting(&self, znode: &str, waiting: &Waiting) {
        let reason = format!("{znode}: {waiting}");
        if !waiting.is_taken {
            info!("not registered yet, retrying: {reason}");
            self.publish(Standing::Seeking { reason });
            return;
        }
        error!("not registered: {reason}");
        let by = match &waiting.holder {
            Holder::Node(node) => Some(Arc::clone(node)),
            Holder::Unknown | Holder::Persistent => None,
        };
        self.publish(Standing::Taken { by, reason });
    }

    /// Records that there is no session, for this reason.
    pub(crate) fn without_session(&self, reason: &str) {
        if self.wanted.borrow().is_some() {
            let reason = reason.to_owned();
            self.publish(Standing::Seeking { reason });
        }
    }

    fn znode(&self) -> String {
        let wanted = self.wanted.borrow();
        let id = wanted.as_ref().map_or("", |wanted| wanted.record.id.as_str());
        znode_path::child(&self.parent, id)
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
