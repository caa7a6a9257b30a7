//! The duty of announcing: in each session our znode is made, with what is above it, then guarded and
//! mended. Over a lost connection it stands: the next connection continues the session (`zookeeper.rs`). What is to be done is said by `place.rs`; here it is done, one call at a time, and looked at again
//! after each: no answer is trusted for more than what a read shows.
//!
//! The other nodes are listed in the same session after our znode was seen to stand. ZooKeeper orders all
//! changes, and a session sees at least all that came before its own; so of two nodes that announce in one
//! moment the later one sees the earlier, whichever servers they are at.

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

/// More steps than this without an end, and others change our place as fast as we do: better begin again later.
const STEPS_MAX: u32 = 16;
/// A session that ended without a word leaves its znode for one timeout; a holder that is there for this many
/// is alive.
const GHOST_SESSION_TIMEOUTS_MAX: u32 = 2;

/// What an announcement tells.
#[derive(Debug)]
pub(crate) enum Word {
    /// Our znode stands, and these are the others that did then.
    Announced { nodes: Vec<Arc<Node>> },
    /// Our place is not free.
    Waiting(Waiting),
    /// Our place is free; our znode is made when that is wanted.
    Ready,
    /// A ghost of ours was deleted.
    Removed(Ghost),
    /// The other record that was asked for is written.
    Rewritten,
    /// Our znode was changed by somebody, and is written back.
    Overwritten,
    /// Our znode was deleted by somebody, and is made again.
    Deleted,
}

/// What is to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) record: Arc<Record>,
    /// Our place is seen to, but our znode is not made yet.
    pub(crate) is_held: bool,
}

/// The duty.
#[derive(Clone)]
pub(crate) struct Announcing {
    /// What our znode is below, with the chroot.
    parent: String,
    name: String,
    /// Both as one.
    znode: String,
    heartbeat_ms: u64,
    wanted: channel::Receiver<Wanted>,
    place: Place,
    /// What we wrote last.
    written: Option<Arc<Record>>,
    /// A watch on our place is set that has not fired yet.
    is_watched: bool,
}

/// How our place was left for now.
#[derive(PartialEq)]
enum Settled {
    /// The change that created what stands and is ours.
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

    /// Our znode's full path.
    pub(crate) fn znode(&self) -> &str {
        &self.znode
    }

    /// Does what is to be done until nothing is for now.
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
            "{}: others change it as fast as we do; is another program at work on it?",
            self.znode
        )))
    }

    async fn look(&mut self, client: &Client) -> Result<Option<Found>, CallError> {
        let mut read = client.data(&self.parent, &self.name).await;
        if !self.is_watched && matches!(read, Ok(Some(_))) {
            // Only what is there and may be read: of all else no watch tells, and the library keeps its callback.
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

    /// Tells how our place was left, when that is another than was told before.
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
                // The read asks for more than whether it is there: also whose it is, and what it says.
                _ = heartbeat.tick() => {}
                // Fails with the end of the announcement, which comes as an order to end.
                Ok(()) = self.wanted.changed() => {}
            }
        }
    }

    async fn leave(&mut self, client: &Client) {
        if let Some(own) = self.place.own() {
            // Should it fail, the end of the session takes the znode along.
            let _ = client.delete(&self.znode, own.version).await;
        }
    }
}
