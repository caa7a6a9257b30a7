//! [`Announcer`] takes the reports about this node's own znode from the hub, logs them for the operator, and publishes
//! the [`Standing`].

use std::sync::Arc;

use tokio::sync::watch as channel;
use tracing::{error, info, warn};

use crate::place::{Holder, Waiting};
use crate::registration::{Standing, Wanted, Word};
use crate::znode_path;

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
