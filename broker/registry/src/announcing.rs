//! The keeper of our own znode: creates it and its parents, then guards and repairs it. `place.rs` decides on each step;
//! this file executes the steps, one call at a time, and reads the znode again after each. Only a read counts as proof,
//! never the answer to a write.
//!
//! When only the connection is lost, the znode stays: the next connection resumes the session (`zookeeper.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;

use crate::client::{CallError, Client, Kind, Outcome};
use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::place::{Found, Place, Step};
use crate::record::Record;
use crate::registration::{State, Wanted, Word};
use crate::session::{Broken, Gone, Report, Session};
use crate::znode_path;

/// Limit on steps in a row. Above it other clients change the znode as fast as this node does, so it is better to
/// start again later.
const STEPS_MAX: u32 = 16;
/// After a session that ended without a close, its znode stays for one timeout. A holder still present after this
/// many timeouts is alive.
const GHOST_SESSION_TIMEOUTS_MAX: u32 = 2;

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct Announcing {
    /// Path of the parent of our znode, with the chroot.
    parent: String,
    wanted: channel::Receiver<Option<Wanted>>,
    place: Place,
    /// Id of the znode that this process may have created.
    id: Option<String>,
    /// The record written last.
    written: Option<Arc<Record>>,
}

impl Announcing {
    /// # Errors
    /// [`RegistryError::Setting`] for the path.
    pub(crate) fn new(
        config: &ZooKeeperConfig,
        wanted: channel::Receiver<Option<Wanted>>,
    ) -> Result<Self, RegistryError> {
        let session_timeout = Duration::from_millis(config.session_timeout_ms);
        Ok(Self {
            parent: config.full_path()?,
            wanted,
            place: Place::new(session_timeout * GHOST_SESSION_TIMEOUTS_MAX),
            id: None,
            written: None,
        })
    }

    /// Starts a new connection in `session`.
    pub(crate) fn new_connection(&mut self, session: i64) {
        self.place.new_connection(session);
    }

    /// Returns when something else is wanted.
    pub(crate) async fn wanted_changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            // The end of all readers. The stop order follows.
            std::future::pending::<()>().await;
        }
    }

    /// Executes steps until nothing is left to do for now.
    pub(crate) async fn settle(&mut self, session: &mut Session<'_>) -> Result<State, Broken> {
        for _ in 0..STEPS_MAX {
            let wanted = self.wanted.borrow_and_update().clone();
            let settled = match &wanted {
                Some(wanted) => self.step(session, wanted).await,
                None => self.withdraw(&session.client).await,
            };
            match settled {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => {}
                Err(Failure::Refused(reason)) => return Ok(State::Refused(reason)),
                Err(Failure::Broken(broken)) => return Err(broken),
            }
        }
        Ok(State::Refused(
            "another client changes the znode as fast as this node; does another program write to it?"
                .to_owned(),
        ))
    }

    /// Executes one step. Returns the state once no step is left.
    async fn step(&mut self, session: &mut Session<'_>, wanted: &Wanted) -> Result<Option<State>, Failure> {
        let record = &wanted.record;
        let znode = znode_path::child(&self.parent, &record.id);
        let found = self.look(&session.client, &record.id).await?;
        let stood = self.place.own();
        self.place.found_dead(wanted.dead_run.as_deref());
        match self.place.judge(found.as_ref(), record, Instant::now()) {
            Step::Keep => return Ok(self.place.own().map(|own| State::Own(own.czxid))),
            Step::Wait(waiting) => return Ok(Some(State::Waiting(waiting))),
            Step::Create if wanted.is_held => return Ok(Some(State::Ready)),
            Step::Create => {
                if stood.is_some() {
                    session.tell(Report::Registration(Word::Deleted)).await?;
                }
                self.create(&session.client, &znode, record).await?;
            }
            Step::Write { version } => {
                let is_ours = self.written.as_ref() != Some(record);
                let data = record.to_json().into_bytes();
                let outcome = session.client.replace(&znode, data, version).await?;
                if outcome == Outcome::Done {
                    self.written = Some(Arc::clone(record));
                    let word = if is_ours {
                        Word::Rewritten
                    } else {
                        Word::Overwritten
                    };
                    session.tell(Report::Registration(word)).await?;
                }
            }
            Step::Remove { version, ghost } => match session.client.delete(&znode, version).await {
                Ok(Outcome::Done) => session.tell(Report::Registration(Word::Removed(ghost))).await?,
                Ok(_) => {}
                Err(CallError::NoAuth { .. }) => self.place.removal_refused(),
                Err(error) => return Err(error.into()),
            },
        }
        Ok(None)
    }

    /// Deletes our znode, if there is one.
    async fn withdraw(&mut self, client: &Client) -> Result<Option<State>, Failure> {
        let Some(id) = self.id.clone() else {
            return Ok(Some(State::None));
        };
        let znode = znode_path::child(&self.parent, &id);
        match client.exists(&znode).await? {
            Some(found) if self.place.is_owner(&found) => {
                client.delete(&znode, found.version).await?;
                Ok(None)
            }
            _ => {
                self.written = None;
                self.place.forget_own();
                Ok(Some(State::Withdrawn))
            }
        }
    }

    async fn look(&self, client: &Client, id: &str) -> Result<Option<Found>, CallError> {
        match client.data(&self.parent, id).await {
            Ok(found) => Ok(found.map(|(data, znode)| Found {
                znode,
                data: Some(data),
            })),
            Err(CallError::NoAuth { .. }) => {
                let stat = client.exists(&znode_path::child(&self.parent, id)).await?;
                Ok(stat.map(|znode| Found { znode, data: None }))
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self, client: &Client, znode: &str, wanted: &Arc<Record>) -> Result<(), CallError> {
        self.id = Some(wanted.id.clone());
        let data = wanted.to_json().into_bytes();
        match client.create(znode, data, Kind::Ephemeral).await? {
            Outcome::Done => {
                self.written = Some(Arc::clone(wanted));
                Ok(())
            }
            Outcome::Otherwise => Ok(()),
            Outcome::Missing => create_parents(client, znode).await,
        }
    }

    /// Deletes our znode before the session is closed. If that fails, the end of the session removes it.
    pub(crate) async fn leave(&mut self, client: &Client) {
        if let (Some(own), Some(id)) = (self.place.own(), &self.id) {
            let _ = client
                .delete(&znode_path::child(&self.parent, id), own.version)
                .await;
        }
    }
}

/// Reason why a step was not executed.
enum Failure {
    /// ZooKeeper does not allow it. The session goes on, so that the other nodes stay known.
    Refused(String),
    Broken(Broken),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoAuth { .. } => Self::Refused(error.to_string()),
            _ => Self::Broken(error.into()),
        }
    }
}

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        Self::Broken(gone.into())
    }
}

async fn create_parents(client: &Client, znode: &str) -> Result<(), CallError> {
    let ends = znode.match_indices('/').map(|(end, _)| end).skip(1);
    for end in ends {
        client.create(&znode[..end], Vec::new(), Kind::Persistent).await?;
    }
    Ok(())
}
