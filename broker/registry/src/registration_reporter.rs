//! [`RegistrationReporter`] handles the session's reports about this node's own znode: it logs them for the operator, and publishes
//! the [`RegistrationState`].

use std::sync::Arc;

use tokio::sync::watch as channel;
use tracing::{Level, error, info, warn};

use crate::registration_state::{RegistrationEvent, RegistrationState, Wanted, ZnodeState};
use crate::znode_path;

/// Logs and publishes the state of this node's registration.
pub(crate) struct RegistrationReporter {
    wanted: channel::Receiver<Option<Wanted>>,
    state: channel::Sender<RegistrationState>,
    parent: String,
    /// Last id for which a znode was wanted.
    id: Arc<str>,
}

impl RegistrationReporter {
    pub(crate) fn new(
        wanted: channel::Receiver<Option<Wanted>>,
        state: channel::Sender<RegistrationState>,
    ) -> Self {
        Self {
            wanted,
            state,
            parent: String::new(),
            id: "".into(),
        }
    }

    /// Sets the full path of the parent of our znode.
    pub(crate) fn set_parent(&mut self, parent: String) {
        self.parent = parent;
    }

    /// Handles a report about our znode.
    pub(crate) fn take(&mut self, event: RegistrationEvent) {
        let znode = self.znode();
        match log_line(&znode, &event) {
            Some((Level::ERROR, line)) => error!("registration: {line}"),
            Some((Level::WARN, line)) => warn!("registration: {line}"),
            Some((_, line)) => info!("registration: {line}"),
            None => {}
        }
        if let RegistrationEvent::State(state) = event {
            self.publish(published(&znode, state));
        }
    }

    /// Publishes [`RegistrationState::Seeking`] with this reason if a node is to be registered.
    pub(crate) fn without_session(&self, reason: &str) {
        if self.wanted.borrow().is_some() {
            let reason = reason.to_owned();
            self.publish(RegistrationState::Seeking { reason });
        }
    }

    /// Returns the path of our znode, even after the registration has ended.
    fn znode(&mut self) -> String {
        if let Some(wanted) = &*self.wanted.borrow() {
            self.id.clone_from(&wanted.node.id);
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

/// Returns the log line for an event and its level; `None` if the event is not logged.
fn log_line(znode: &str, event: &RegistrationEvent) -> Option<(Level, String)> {
    Some(match event {
        RegistrationEvent::State(state) => match state {
            ZnodeState::None | ZnodeState::Ready => return None,
            ZnodeState::Own(_) => (Level::INFO, format!("{znode} registered")),
            ZnodeState::Withdrawn => (Level::INFO, format!("{znode} unregistered")),
            ZnodeState::Waiting(waiting) => {
                let level = if waiting.is_taken {
                    Level::ERROR
                } else {
                    Level::INFO
                };
                (level, format!("{znode}: {waiting}"))
            }
            ZnodeState::Refused(reason) => (Level::ERROR, format!("refused, retrying: {znode}: {reason}")),
        },
        RegistrationEvent::Removed(ghost) => (Level::INFO, format!("{znode} of {ghost} deleted")),
        RegistrationEvent::Rewritten => (Level::INFO, format!("{znode} updated")),
        RegistrationEvent::Overwritten => (
            Level::WARN,
            format!("{znode} was changed by another client, written again"),
        ),
        RegistrationEvent::Deleted => (
            Level::WARN,
            format!("{znode} was deleted by another client, created again"),
        ),
        RegistrationEvent::OpenParent { parent, permissions } => (
            Level::WARN,
            format!(
                "{parent} existed already, and everybody has the permissions {permissions} on it; restrict its ACL with \
                 zkCli.sh (setAcl {parent} …)"
            ),
        ),
    })
}

/// Returns the state to publish for this state of the znode.
fn published(znode: &str, state: ZnodeState) -> RegistrationState {
    match state {
        ZnodeState::None | ZnodeState::Withdrawn => RegistrationState::Withdrawn,
        ZnodeState::Own(_) => RegistrationState::Announced,
        ZnodeState::Ready => RegistrationState::Ready,
        ZnodeState::Refused(reason) => RegistrationState::Seeking {
            reason: format!("{znode}: {reason}"),
        },
        ZnodeState::Waiting(waiting) => {
            let reason = format!("{znode}: {waiting}");
            if waiting.is_taken {
                RegistrationState::Taken { reason }
            } else {
                RegistrationState::Seeking { reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::node::Node;
    use crate::registration::{Ghost, Holder, Waiting};

    fn registration_reporter() -> (RegistrationReporter, channel::Receiver<RegistrationState>) {
        let wanted = Wanted {
            node: Arc::new(Node::new("n1", Endpoint::new("10.0.0.1", 4222))),
            awaits_release: false,
            dead_run: None,
        };
        let (publish, state) = channel::channel(RegistrationState::Withdrawn);
        let mut registration_reporter =
            RegistrationReporter::new(channel::Sender::new(Some(wanted)).subscribe(), publish);
        registration_reporter.set_parent("/nodes".to_owned());
        (registration_reporter, state)
    }

    fn waiting(is_taken: bool) -> RegistrationEvent {
        let holder = Holder::Node(Endpoint::new("10.0.0.2", 4222));
        RegistrationEvent::State(ZnodeState::Waiting(Waiting { holder, is_taken }))
    }

    #[test]
    fn a_taken_id_is_logged_as_an_error_with_the_znode_and_its_holder() {
        let (mut registration_reporter, mut state) = registration_reporter();
        for (is_taken, level, name) in [(false, Level::INFO, "seeking"), (true, Level::ERROR, "taken")] {
            let (logged, line) = log_line("/nodes/n1", &waiting(is_taken)).unwrap();
            assert_eq!(logged, level, "{line}");
            assert!(
                line.contains("/nodes/n1") && line.contains("10.0.0.2:4222"),
                "{line}"
            );
            registration_reporter.take(waiting(is_taken));
            assert_eq!(state.borrow_and_update().as_str(), name);
        }
    }

    #[test]
    fn events_without_a_new_state_are_logged_and_publish_nothing() {
        let (mut registration_reporter, mut state) = registration_reporter();
        registration_reporter.take(RegistrationEvent::State(ZnodeState::Own(1)));
        assert_eq!(state.borrow_and_update().as_str(), "announced");
        for (event, level) in [
            (RegistrationEvent::Deleted, Level::WARN),
            (RegistrationEvent::Overwritten, Level::WARN),
            (RegistrationEvent::Rewritten, Level::INFO),
            (
                RegistrationEvent::OpenParent {
                    parent: "/nodes".to_owned(),
                    permissions: "ALL".to_owned(),
                },
                Level::WARN,
            ),
            (RegistrationEvent::Removed(Ghost::EarlierProcess), Level::INFO),
        ] {
            assert_eq!(log_line("/nodes/n1", &event).unwrap().0, level, "{event:?}");
            registration_reporter.take(event);
        }
        assert!(!state.has_changed().unwrap());
        registration_reporter.without_session("no memory");
        assert_eq!(state.borrow_and_update().as_str(), "seeking");
    }
}
