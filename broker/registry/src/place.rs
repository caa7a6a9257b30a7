//! The state of our znode's path in ZooKeeper: the znode there, its owner, and the step to take. This is pure state
//! without I/O, so every rule is tested without a server.
//!
//! | znode at the path | step |
//! |---|---|
//! | none | create it |
//! | ours, created in this session, over any of its connections | keep it; write our record if it holds another |
//! | a ghost of ours: our `run`, from an earlier session of this process that cannot be resumed | delete it and
//! create it anew |
//! | a ghost of an earlier process: another `run` at our address, older than our znode here | the same |
//! | that of a dead node: a `run` that does not answer on its mesh address, as our node has found out | the same |
//! | any other: another process has the id, or it has no valid record, or it is persistent | wait until it is gone |
//!
//! This process holds its address now, so no other process can use it. But two nodes may be given the same address by
//! mistake, and each would then take the other for its ghost for ever. So a znode younger than one that this process
//! created or deleted at the path is never a ghost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Znode;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::record::{self, Record};

/// The znode that was read at our path.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) znode: Znode,
    /// Data of the znode; `None` if its ACL does not let us read it.
    pub(crate) data: Option<Vec<u8>>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Keep,
    Write { version: i32 },
    Remove { version: i32, ghost: Ghost },
    Wait(Waiting),
}

/// A znode of ours that no process keeps alive any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ghost {
    EarlierSession,
    EarlierLife,
    Dead,
}

impl fmt::Display for Ghost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EarlierSession => "an earlier session of this process",
            Self::EarlierLife => "an earlier process at this address",
            Self::Dead => "a node that does not answer on its mesh address",
        })
    }
}

/// The reason why our path is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) holder: Holder,
    /// The holder has stayed longer than the znode of a dead session would: it is alive.
    pub(crate) is_taken: bool,
}

/// The holder of our path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A node, known by its own record.
    Node(Arc<Node>),
    /// A session without a valid record.
    Unknown,
    /// No session: the znode is persistent.
    Persistent,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.holder, self.is_taken) {
            (Holder::Persistent, _) => f.write_str(
                "it is a persistent znode, which does not end with a session: delete it (zkCli.sh delete) or take another id",
            ),
            (Holder::Node(node), true) => write!(
                f,
                "the id is taken: the session of a node at {} holds it; if a node runs there, give each node \
                 an id and an address of its own",
                address(&node.mesh, &node.client)
            ),
            (Holder::Unknown, true) => f.write_str(
                "the id is taken by a live session whose record is none of ours: take another id or another path",
            ),
            (Holder::Node(node), false) => write!(
                f,
                "another process holds it, at {}; waiting for its session to end",
                address(&node.mesh, &node.client)
            ),
            (Holder::Unknown, false) => {
                f.write_str("a session holds it whose record is none of ours; waiting for it to end")
            }
        }
    }
}

/// The state of our path as this process knows it, over all its sessions.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A holder that still exists after this time is alive.
    ghost_age_max: Duration,
    /// Id of our session, once there is one.
    session: Option<i64>,
    /// Our znode as last read, while it exists.
    own: Option<Znode>,
    /// The zxid that created the last znode that this process created or deleted at the path. No younger znode is a
    /// ghost of an earlier process.
    ghost_czxid_max: Option<i64>,
    /// Run of a node that was found dead.
    dead_run: Option<String>,
    /// ZooKeeper refused to delete the ghost in this session.
    is_removal_refused: bool,
    stranger: Option<Stranger>,
}

#[derive(Debug, Clone)]
struct Stranger {
    owner: i64,
    since: Instant,
    is_taken: bool,
}

impl Place {
    /// Creates the state with nothing known. After a session that ended without a close, its znode stays for at most
    /// `ghost_age_max`.
    pub(crate) fn new(ghost_age_max: Duration) -> Self {
        Self {
            ghost_age_max,
            session: None,
            own: None,
            ghost_czxid_max: None,
            dead_run: None,
            is_removal_refused: false,
            stranger: None,
        }
    }

    /// Starts a new connection in `session`. A znode that this process created in an earlier session is now a ghost.
    /// The wait for another holder starts anew: ZooKeeper may have been down as well, and without it no session
    /// expires.
    pub(crate) fn new_connection(&mut self, session: i64) {
        *self = Self {
            session: Some(session),
            ghost_czxid_max: self.ghost_czxid_max,
            stranger: self.stranger.take().filter(|stranger| stranger.is_taken),
            ..Self::new(self.ghost_age_max)
        };
    }

    /// Records that the node with this run is dead.
    pub(crate) fn found_dead(&mut self, run: Option<&str>) {
        self.dead_run = run.map(str::to_owned);
    }

    /// Records that we may not delete the ghost. It will be gone when its session expires.
    pub(crate) fn removal_refused(&mut self) {
        self.is_removal_refused = true;
    }

    /// Returns whether the znode was created in the present session.
    pub(crate) fn is_owner(&self, znode: &Znode) -> bool {
        self.session == Some(znode.owner)
    }

    /// Records that our znode is deleted, as requested.
    pub(crate) fn forget_own(&mut self) {
        self.own = None;
    }

    /// Returns our znode, while it exists.
    pub(crate) fn own(&self) -> Option<Znode> {
        self.own
    }

    /// Returns the next step for the znode `found` at our path, if the record should be `wanted`.
    pub(crate) fn judge(&mut self, found: Option<&Found>, wanted: &Record, now: Instant) -> Step {
        self.own = None;
        let Some(Found { znode, data }) = found else {
            self.stranger = None;
            return Step::Create;
        };
        let node = data.as_deref().and_then(record::parse_own);
        let node = node.filter(|node| *node.id == wanted.id);
        // Our session owns it, whatever data another client has written to it.
        if self.is_owner(znode) {
            return self.keep(*znode, data.as_deref(), wanted);
        }
        let ghost = node.as_ref().and_then(|node| self.ghost(znode, node, wanted));
        if let Some(ghost) = ghost.filter(|_| !self.is_removal_refused) {
            self.ghost_czxid_max = Some(znode.czxid);
            let version = znode.version;
            return Step::Remove { version, ghost };
        }
        self.wait(znode, node, now)
    }

    fn keep(&mut self, znode: Znode, data: Option<&[u8]>, wanted: &Record) -> Step {
        self.own = Some(znode);
        self.ghost_czxid_max = Some(znode.czxid);
        self.stranger = None;
        if data == Some(wanted.to_json().as_bytes()) {
            return Step::Keep;
        }
        let version = znode.version;
        Step::Write { version }
    }

    fn ghost(&self, znode: &Znode, node: &Node, wanted: &Record) -> Option<Ghost> {
        if znode.owner == 0 {
            return None;
        }
        if *node.run == wanted.run {
            return Some(Ghost::EarlierSession);
        }
        if self.dead_run.as_deref() == Some(&*node.run) {
            return Some(Ghost::Dead);
        }
        let is_ours = address(&node.mesh, &node.client) == address(&wanted.mesh, &wanted.client);
        let is_older = self.ghost_czxid_max.is_none_or(|max| znode.czxid <= max);
        (is_ours && is_older).then_some(Ghost::EarlierLife)
    }

    fn wait(&mut self, znode: &Znode, node: Option<Node>, now: Instant) -> Step {
        let known = self.stranger.take();
        let mut stranger = known
            .filter(|known| known.owner == znode.owner)
            .unwrap_or(Stranger {
                owner: znode.owner,
                since: now,
                is_taken: znode.owner == 0,
            });
        stranger.is_taken |= now.saturating_duration_since(stranger.since) >= self.ghost_age_max;
        let holder = match node {
            _ if znode.owner == 0 => Holder::Persistent,
            Some(node) => Holder::Node(Arc::new(node)),
            None => Holder::Unknown,
        };
        let is_taken = stranger.is_taken;
        self.stranger = Some(stranger);
        Step::Wait(Waiting { holder, is_taken })
    }
}

/// Returns the address that identifies a node, because two processes cannot listen on it. This is the mesh address if
/// there is one: clients may reach several nodes at one address.
fn address<'a>(mesh: &'a Option<Endpoint>, client: &'a Endpoint) -> &'a Endpoint {
    mesh.as_ref().unwrap_or(client)
}

#[cfg(test)]
mod tests;
