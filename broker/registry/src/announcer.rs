//! [`Announcer`] takes the reports about this node's own znode from the hub, logs them for the operator, and publishes
//! the [`RegistrationState`].

use std::sync::Arc;

use tokio::sync::watch as channel;
use tracing::{error, info, warn};

use crate::registration::{Holder, Waiting};
use crate::registration_state::{RegistrationEvent, RegistrationState, Wanted};
use crate::znode_path;

/// Logs and publishes the state of this node's registration.
pub(crate) struct Announcer {
    wanted: channel::Receiver<Option<Wanted>>,
    state: channel::Sender<RegistrationState>,
    parent: String,
    /// Id of the node that was registered last.
    id: String,
}

impl Announcer {
    pub(crate) fn new(
        wanted: channel::Receiver<Option<Wanted>>,
        state: channel::Sender<RegistrationState>,
    ) -> Self {
        Self {
            wanted,
            state,
            parent: String::new(),
            id: String::new(),
        }
    }

    /// Sets the full path of the parent of our znode.
    pub(crate) fn register_under(&mut self, parent: String) {
        self.parent = parent;
    }

    /// Handles a report about our znode.
    pub(crate) fn take(&mut self, event: RegistrationEvent) {
        let znode = self.znode();
        match event {
            RegistrationEvent::Announced => {
                info!("registration: {znode} registered");
                self.publish(RegistrationState::Announced);
            }
            RegistrationEvent::Ready => self.publish(RegistrationState::Ready),
            RegistrationEvent::Waiting(waiting) => self.take_waiting(&znode, &waiting),
            RegistrationEvent::Withdrawn => {
                info!("registration: {znode} unregistered");
                self.publish(RegistrationState::Withdrawn);
            }
            RegistrationEvent::Refused(reason) => {
                let reason = format!("{znode}: {reason}");
                error!("registration: refused, retrying: {reason}");
                self.publish(RegistrationState::Seeking { reason });
            }
            RegistrationEvent::Removed(ghost) => info!("registration: {znode} of {ghost} deleted"),
            RegistrationEvent::Rewritten => info!("registration: {znode} updated"),
            RegistrationEvent::Overwritten => {
                warn!("registration: {znode} was changed by another client, written again")
            }
            RegistrationEvent::Deleted => {
                warn!("registration: {znode} was deleted by another client, created again")
            }
        }
    }

    fn take_waiting(&self, znode: &str, waiting: &Waiting) {
        let reason = format!("{znode}: {waiting}");
        if !waiting.is_taken {
            info!("registration: {reason}");
            self.publish(RegistrationState::Seeking { reason });
            return;
        }
        error!("registration: {reason}");
        let by = match &waiting.holder {
            Holder::Node(node) => Some(Arc::clone(node)),
            Holder::Unknown | Holder::Persistent => None,
        };
        self.publish(RegistrationState::Taken { by, reason });
    }

    /// Records that there is no session, for this reason.
    pub(crate) fn without_session(&self, reason: &str) {
        if self.wanted.borrow().is_some() {
            let reason = reason.to_owned();
            self.publish(RegistrationState::Seeking { reason });
        }
    }

    /// Returns the path of our znode, also after the registration has ended.
    fn znode(&mut self) -> String {
        if let Some(wanted) = &*self.wanted.borrow() {
            self.id.clone_from(&wanted.record.id);
        }
        znode_path::child(&self.parent, &self.id)
    }

    fn publish(&self, now: RegistrationState) {
        self.state.send_if_modified(|state| {
            let is_new = *state != now;
            *state = now;
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
