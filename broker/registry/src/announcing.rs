//! The announcing duty. In each session it creates our znode and the parents of it, then guards and repairs the
//! znode. When only the connection is lost, the znode stays: the next connection resumes the session
//! (`zookeeper.rs`). `place.rs` decides on each step. This file executes the steps, one call at a time, and reads the
//! znode again after each. Only a read counts as proof, never the answer to a write.
//!
//! The other nodes are listed in the same session after our znode was read. ZooKeeper orders all changes, and a
//! session sees at least all changes before its own. So if two nodes announce at the same moment, the later one sees
//! the earlier, whichever servers they use.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch as channel;

use crate::children::Children;
use crate::client::{CallError, Client, Kind, Outcome, child_path};
use crate::config::{NODES_MAX_DEFAULT, ZooKeeperConfig};
use crate::duty::{BURST_MS, Broken, Duty, Session, every};
use crate::error::RegistryError;
use crate::node::Node;
use crate::place::{Found, Ghost, Place, Step, Waiting};
use crate::record::Record;

/// Limit on steps in a row. Above it other clients change the znode as fast as this node does, so it is better to
/// start again later.
const STEPS_MAX: u32 = 16;
/// After a session that ended without a close, its znode stays for one timeout. A holder still present after this
/// many timeouts is alive.
const GHOST_SESSION_TIMEOUTS_MAX: u32 = 2;

/// A report of the announcing duty.
#[derive(Debug)]
pub(crate) enum Word {
    /// Our znode exists. `nodes` are the other nodes that existed at that time.
    Announced { nodes: Vec<Arc<Node>> },
    /// The path of our znode is in use.
    Waiting(Waiting),
    /// The path of our znode is free. The znode is created when that is wanted.
    Ready,
    /// The duty deleted a ghost of ours.
    Removed(Ghost),
    /// The duty wrote the changed record, as requested.
    Rewritten,
    /// Another client changed our znode. The duty writes it back.
    Overwritten,
    /// Another client deleted our znode. The duty creates it again.
    Deleted,
}

/// The desired state of our znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) record: Arc<Record>,
    /// The path is watched, but the znode is not created yet.
    pub(crate) is_held: bool,
}

/// The duty of announcing this node.
#[derive(Clone)]
pub(crate) struct Announcing {
    /// Path of the parent of our znode, with the chroot.
    parent: String,
    name: String,
    /// Full path of our znode.
    znode: String,
    heartbeat_ms: u64,
    wanted: channel::Receiver<Wanted>,
    place: Place,
    /// The record written last.
    written: Option<Arc<Record>>,
    /// A watch on our znode is set and has not fired yet.
    is_watched: bool,
}

/// State of our znode after the last step.
#[derive(PartialEq)]
enum Settled {
    /// Our znode exists; the value is the zxid that created it.
    Own(i64),
    Ready,
    Waiting(Waiting),
}

impl Announcing {
    pub(crate) fn new(
        config: &ZooKeeperConfig,
        wanted: channel::Receiver<Wanted>,
    ) -> Result<Self, RegistryError> {
        let (parent, name) = (config.full_path()?, wanted.borrow().record.id.clone());
        let session_timeout = Duration::from_millis(config.session_timeout_ms);
        Ok(Self {
            znode: child_path(&parent, &name),
            parent,
            name,
            heartbeat_ms: config.session_timeout_ms / 3,
            wanted,
            place: Place::new(session_timeout * GHOST_SESSION_TIMEOUTS_MAX),
            written: None,
            is_watched: false,
        })
    }

    /// Returns the full path of our znode.
    pub(crate) fn znode(&self) -> &str {
        &self.znode
    }

    /// Executes steps until nothing is left to do for now.
    async fn settle(&mut self, session: &mut Session<'_, Word>) -> Result<Settled, Broken> {
        for _ in 0..STEPS_MAX {
            let found = self.look(&session.client).await?;
            let Wanted {
                record: wanted,
                is_held,
            } = self.wanted.borrow_and_update().clone();
            let stood = self.place.own();
            match self.place.judge(found.as_ref(), &wanted, Instant::now()) {
                Step::Keep => {
                    if let Some(own) = self.place.own() {
                        return Ok(Settled::Own(own.czxid));
                    }
                }
                Step::Wait(waiting) => return Ok(Settled::Waiting(waiting)),
                Step::Create if is_held => return Ok(Settled::Ready),
                Step::Create => {
                    if stood.is_some() {
                        session.tell(Word::Deleted).await?;
                    }
                    self.create(&session.client, wanted).await?;
                }
                Step::Write { version } => {
                    let is_ours = self.written.as_ref() != Some(&wanted);
                    let data = wanted.to_json().into_bytes();
                    let outcome = session.client.replace(&self.znode, data, version).await?;
                    if outcome == Outcome::Done {
                        self.written = Some(wanted);
                        let word = if is_ours {
                            Word::Rewritten
                        } else {
                            Word::Overwritten
                        };
                        session.tell(word).await?;
                    }
                }
                Step::Remove { version, ghost } => match session.client.delete(&self.znode, version).await {
                    Ok(Outcome::Done) => session.tell(Word::Removed(ghost)).await?,
                    Ok(_) => {}
                    Err(CallError::NoAuth { .. }) => self.place.removal_refused(),
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Err(Broken::Failed(format!(
            "{}: another client changes it as fast as this node; does another program write to it?",
            self.znode
        )))
    }

    async fn look(&mut self, client: &Client) -> Result<Option<Found>, CallError> {
        let mut read = client.data(&self.parent, &self.name).await;
        if !self.is_watched && matches!(read, Ok(Some(_))) {
            // A watch is set only if the znode exists and is readable. On any other, no watch fires, and the library
            // would keep its callback.
            read = client.data_watched(&self.parent, &self.name).await;
            self.is_watched = matches!(read, Ok(Some(_)));
        }
        match read {
            Ok(found) => Ok(found.map(|(data, znode)| Found {
                znode,
                data: Some(data),
            })),
            Err(CallError::NoAuth { .. }) => {
                let stat = client.exists(&self.znode).await?;
                Ok(stat.map(|znode| Found { znode, data: None }))
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self, client: &Client, wanted: Arc<Record>) -> Result<(), CallError> {
        let data = wanted.to_json().into_bytes();
        match client.create(&self.znode, data, Kind::Ephemeral).await? {
            Outcome::Done => {
                self.written = Some(wanted);
                Ok(())
            }
            Outcome::Otherwise => Ok(()),
            Outcome::Missing => self.create_parents(client).await,
        }
    }

    async fn create_parents(&self, client: &Client) -> Result<(), CallError> {
        let ends = self.znode.match_indices('/').map(|(end, _)| end).skip(1);
        for end in ends {
            client
                .create(&self.znode[..end], Vec::new(), Kind::Persistent)
                .await?;
        }
        Ok(())
    }

    /// Reports the state of our znode. For our own znode this includes the list of the other nodes. The caller checks
    /// whether the state has changed.
    async fn tell(&self, session: &mut Session<'_, Word>, settled: &Settled) -> Result<(), Broken> {
        let word = match settled {
            Settled::Own(_) => {
                let others =
                    Children::once(&session.client, &self.parent, NODES_MAX_DEFAULT, &self.name).await?;
                let nodes = others.nodes;
                Word::Announced { nodes }
            }
            Settled::Ready => Word::Ready,
            Settled::Waiting(waiting) => Word::Waiting(waiting.clone()),
        };
        Ok(session.tell(word).await?)
    }
}

impl Duty for Announcing {
    type Word = Word;
    const NAME: &'static str = "zk-announce";

    async fn serve(&mut self, session: &mut Session<'_, Word>) -> Result<Infallible, Broken> {
        self.place.new_connection(session.number);
        self.is_watched = false;
        let mut told = None;
        let mut heartbeat = every(self.heartbeat_ms);
        loop {
            let settled = self.settle(session).await?;
            if told.as_ref() != Some(&settled) {
                self.tell(session, &settled).await?;
                told = Some(settled);
            }
            tokio::select! {
                _ = session.changes.next() => {
                    tokio::time::sleep(Duration::from_millis(BURST_MS)).await;
                    while session.changes.try_next().is_some() {}
                    self.is_watched = false;
                }
                // The heartbeat read checks more than existence: also the owner and the data of the znode.
                _ = heartbeat.tick() => {}
                // An error means the end of the announcement. The stop order follows.
                Ok(()) = self.wanted.changed() => {}
            }
        }
    }

    async fn leave(&mut self, client: &Client) {
        if let Some(own) = self.place.own() {
            // If the delete fails, the end of the session removes the znode.
            let _ = client.delete(&self.znode, own.version).await;
        }
    }
}
