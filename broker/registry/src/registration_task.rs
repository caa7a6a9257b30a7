//! The keeper of our own znode: creates it and its parents, then guards and repairs it. `registration.rs` decides on each step;
//! this file executes the steps, one call at a time, and reads the znode again after each step. The state of the znode
//! is taken from a read, never from the answer to a write.
//!
//! When only the connection is lost, the znode stays: the next connection resumes the session (`session_loop.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;

use crate::client::{CallError, Client, Outcome, ZnodeKind};
use crate::node::Node;
use crate::registration::{Registration, Step, Znode};
use crate::registration_state::{RegistrationEvent, Wanted, ZnodeState};
use crate::session::{Session, SessionError, SessionReport};
use crate::znode_path;

/// Maximum number of steps in a row. More are needed only if other clients change the znode as fast as this node does. The task
/// then starts again later.
const STEPS_MAX: u32 = 16;
/// The znode of a dead session stays for one session timeout. A holder whose znode is still there after this many timeouts is
/// alive.
const GHOST_SESSION_TIMEOUTS_MAX: u32 = 2;

/// Task that keeps our znode in the desired state.
#[derive(Clone)]
pub(crate) struct RegistrationTask {
    /// Path of the parent of our znode, with the chroot.
    parent: String,
    wanted: channel::Receiver<Option<Wanted>>,
    registration: Registration,
    /// Id of our znode, while it exists or is to be created.
    id: Option<Arc<str>>,
    /// The record written last.
    written: Option<Arc<Node>>,
    /// Whether the ACLs of the parents were checked since the start.
    are_parents_checked: bool,
}

impl RegistrationTask {
    pub(crate) fn new(
        parent: String,
        session_timeout: Duration,
        wanted: channel::Receiver<Option<Wanted>>,
    ) -> Self {
        Self {
            parent,
            wanted,
            registration: Registration::new(session_timeout * GHOST_SESSION_TIMEOUTS_MAX),
            id: None,
            written: None,
            are_parents_checked: false,
        }
    }

    /// Records that a new connection has begun in `session`.
    pub(crate) fn new_connection(&mut self, session: i64) {
        self.registration.new_connection(session);
    }

    /// Waits until the desired state of the znode changes.
    pub(crate) async fn wanted_changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            // The registry has ended. It stops this thread next.
            std::future::pending::<()>().await;
        }
    }

    /// Executes steps until nothing is left to do for now.
    pub(crate) async fn settle(&mut self, session: &mut Session<'_>) -> Result<ZnodeState, SessionError> {
        for _ in 0..STEPS_MAX {
            let wanted = self.wanted.borrow_and_update().clone();
            let settled = match &wanted {
                Some(wanted) => self.step(session, wanted).await,
                None => self.withdraw(&session.client).await,
            };
            match settled {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => {}
                // The session is kept, so that changes of the other nodes are still reported.
                Err(SessionError::Call(error @ CallError::NoAuth { .. })) => {
                    return Ok(ZnodeState::Refused(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ZnodeState::Refused(
            "another client changes the znode as fast as this node; does another program write to it?"
                .to_owned(),
        ))
    }

    /// Executes one step. Returns the state once no step is left.
    async fn step(
        &mut self,
        session: &mut Session<'_>,
        wanted: &Wanted,
    ) -> Result<Option<ZnodeState>, SessionError> {
        let node = &wanted.node;
        self.id = Some(node.id.clone());
        let znode = znode_path::child(&self.parent, &node.id);
        let found = self.read(&session.client, &node.id).await?;
        let earlier = self.registration.own();
        self.registration.found_dead(wanted.dead_run.as_deref());
        match self.registration.judge(found.as_ref(), node, Instant::now()) {
            Step::Keep => {
                self.check_parents(session).await?;
                return Ok(self.registration.own().map(|own| ZnodeState::Own(own.czxid)));
            }
            Step::Wait(waiting) => return Ok(Some(ZnodeState::Waiting(waiting))),
            Step::Create if wanted.awaits_release => return Ok(Some(ZnodeState::Ready)),
            Step::Create => {
                if earlier.is_some() {
                    session
                        .report(SessionReport::Registration(RegistrationEvent::Deleted))
                        .await?;
                }
                self.create(&session.client, &znode, node).await?;
            }
            Step::Write { version } => {
                let is_our_change = self.written.as_ref() != Some(node);
                let data = node.to_record().into_bytes();
                let outcome = session.client.replace(&znode, data, version).await?;
                if outcome == Outcome::Done {
                    self.written = Some(Arc::clone(node));
                    let event = if is_our_change {
                        RegistrationEvent::Rewritten
                    } else {
                        RegistrationEvent::Overwritten
                    };
                    session.report(SessionReport::Registration(event)).await?;
                }
            }
            Step::Remove { version, ghost } => match session.client.delete(&znode, version).await {
                Ok(Outcome::Done) => {
                    session
                        .report(SessionReport::Registration(RegistrationEvent::Removed(ghost)))
                        .await?
                }
                Ok(_) => {}
                Err(CallError::NoAuth { .. }) => self.registration.removal_refused(),
                Err(error) => return Err(error.into()),
            },
        }
        Ok(None)
    }

    /// Reports, once, the parents of our znode that everybody can change although credentials are set. Whoever can delete
    /// znodes below the direct parent can delete ours.
    async fn check_parents(&mut self, session: &mut Session<'_>) -> Result<(), SessionError> {
        if self.are_parents_checked {
            return Ok(());
        }
        for parent in znode_path::parents(&znode_path::child(&self.parent, "")) {
            if let Some(permissions) = session.client.open_permissions(parent).await? {
                let parent = parent.to_owned();
                let event = RegistrationEvent::OpenParent { parent, permissions };
                session.report(SessionReport::Registration(event)).await?;
            }
        }
        self.are_parents_checked = true;
        Ok(())
    }

    /// Deletes our znode, if there is one.
    async fn withdraw(&mut self, client: &Client) -> Result<Option<ZnodeState>, SessionError> {
        let Some(id) = self.id.clone() else {
            return Ok(Some(ZnodeState::None));
        };
        let znode = znode_path::child(&self.parent, &id);
        match client.exists(&znode).await? {
            Some(found) if self.registration.is_owner(&found) => {
                client.delete(&znode, found.version).await?;
                Ok(None)
            }
            _ => {
                self.id = None;
                self.written = None;
                self.registration.forget_own();
                Ok(Some(ZnodeState::Withdrawn))
            }
        }
    }

    async fn read(&self, client: &Client, id: &str) -> Result<Option<Znode>, CallError> {
        match client.data(&self.parent, id).await {
            Ok(found) => Ok(found.map(|(data, stat)| Znode {
                stat,
                data: Some(data),
            })),
            Err(CallError::NoAuth { .. }) => {
                let stat = client.exists(&znode_path::child(&self.parent, id)).await?;
                Ok(stat.map(|stat| Znode { stat, data: None }))
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self, client: &Client, znode: &str, node: &Arc<Node>) -> Result<(), CallError> {
        let data = node.to_record().into_bytes();
        match client.create(znode, data, ZnodeKind::Ephemeral).await? {
            Outcome::Done => {
                self.written = Some(Arc::clone(node));
                Ok(())
            }
            Outcome::Conflict => Ok(()),
            Outcome::Missing => create_parents(client, znode).await,
        }
    }

    /// Deletes our znode before the session is closed. If that fails, the end of the session removes it.
    pub(crate) async fn before_close(&mut self, client: &Client) {
        if let (Some(own), Some(id)) = (self.registration.own(), &self.id) {
            let _ = client
                .delete(&znode_path::child(&self.parent, id), own.version)
                .await;
        }
    }
}

/// Creates the missing parents of a znode. Each is looked up first, because a create below a read-only znode is answered with
/// NoAuth even if the znode to be created exists.
async fn create_parents(client: &Client, znode: &str) -> Result<(), CallError> {
    for parent in znode_path::parents(znode) {
        if client.exists(parent).await?.is_none() {
            client.create(parent, Vec::new(), ZnodeKind::Persistent).await?;
        }
    }
    Ok(())
}
