//! The rules for the path of our znode in ZooKeeper: whose znode is there, and which step follows. This file is pure state, without
//! I/O, so that each rule is tested without a server.
//!
//! | znode at the path | step |
//! |---|---|
//! | none | create it |
//! | ours, created in this session, over any of its connections | keep it; write our record if it holds another |
//! | a ghost of ours: our `run`, from an earlier session that cannot be resumed | delete it and create it anew |
//! | a ghost of an earlier process: another `run` at our address, older than our znode here | the same |
//! | that of a dead node: our node has found out that the `run` does not answer on its mesh address | the same |
//! | any other: another process has the id, or it has no valid record, or it is persistent | wait until it is gone |
//!
//! An earlier process at our address has ended, because this process uses the address now. But two nodes may be configured with the
//! same address by mistake, and each would then delete the znode of the other again and again. So a znode that is younger than one
//! that this process created or deleted at the path is never a ghost of an earlier process.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::ZnodeStat;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::record;

/// The znode that was read at our path.
#[derive(Debug, Clone)]
pub(crate) struct Znode {
    pub(crate) stat: ZnodeStat,
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

/// A znode at our path that is left over from an ended process or session, or from a node that was found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ghost {
    EarlierSession,
    EarlierProcess,
    DeadNode,
}

impl fmt::Display for Ghost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EarlierSession => "an earlier session of this process",
            Self::EarlierProcess => "an earlier process at this address",
            Self::DeadNode => "a node that does not answer on its mesh address",
        })
    }
}

/// The reason why our path is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) holder: Holder,
    /// Whether the holder is considered alive: its znode exists longer than that of a dead session can, or is persistent.
    pub(crate) is_taken: bool,
}

/// The holder of our path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The node with this address, which is in its record.
    Node(Endpoint),
    /// A session without a valid record.
    Unknown,
    /// No session: the znode is persistent.
    Persistent,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.holder, self.is_taken) {
            (Holder::Persistent, _) => f.write_str(
                "it is a persistent znode, which does not end with a session: delete it (zkCli.sh delete) or use another id",
            ),
            (Holder::Node(address), true) => write!(
                f,
                "the id is taken: the session of a node at {address} holds it; if a node runs there, give each node \
                 an id and an address of its own"
            ),
            (Holder::Unknown, true) => f.write_str(
                "the id is taken by a live session whose record is none of ours: use another id or another path",
            ),
            (Holder::Node(address), false) => write!(
                f,
                "another process holds it, at {address}; waiting for its session to end"
            ),
            (Holder::Unknown, false) => {
                f.write_str("a session without a record of ours holds it; waiting for its end")
            }
        }
    }
}

/// State of our path, over all sessions of this process.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    /// Time after which another owner of the znode is considered alive.
    ghost_age_max: Duration,
    /// Id of our session, once there is one.
    session: Option<i64>,
    /// Our znode as last read, while it exists.
    own: Option<ZnodeStat>,
    /// The zxid that created the last znode that this process created or deleted at the path. No younger znode is a
    /// ghost of an earlier process.
    ghost_czxid_max: Option<i64>,
    /// Run of a node that was found dead.
    dead_run: Option<String>,
    /// Whether ZooKeeper has refused to delete the ghost, over this connection.
    is_removal_refused: bool,
    /// The other owner of the znode, if there is one.
    other_holder: Option<OtherHolder>,
}

/// Another owner of the znode.
#[derive(Debug, Clone)]
struct OtherHolder {
    /// Id of its session.
    owner: i64,
    /// Time since which this process waits for the end of that session.
    since: Instant,
    /// Whether the wait is over, and the owner is alive.
    is_taken: bool,
}

impl Registration {
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
            other_holder: None,
        }
    }

    /// Starts a new connection in `session`. A znode that this process created in an earlier session is now a ghost.
    /// The wait for another owner starts again, because no session expires while ZooKeeper is down.
    pub(crate) fn new_connection(&mut self, session: i64) {
        *self = Self {
            session: Some(session),
            ghost_czxid_max: self.ghost_czxid_max,
            other_holder: self.other_holder.take().filter(|other| other.is_taken),
            ..Self::new(self.ghost_age_max)
        };
    }

    /// Records that the node with this run is dead.
    pub(crate) fn found_dead(&mut self, run: Option<&str>) {
        self.dead_run = run.map(str::to_owned);
    }

    /// Records that ZooKeeper refused to delete the ghost. It is deleted when its session expires.
    pub(crate) fn removal_refused(&mut self) {
        self.is_removal_refused = true;
    }

    /// Returns whether the znode was created in the present session.
    pub(crate) fn is_owner(&self, stat: &ZnodeStat) -> bool {
        self.session == Some(stat.owner)
    }

    /// Records that our znode is deleted, as requested.
    pub(crate) fn forget_own(&mut self) {
        self.own = None;
    }

    /// Returns our znode, while it exists.
    pub(crate) fn own(&self) -> Option<ZnodeStat> {
        self.own
    }

    /// Returns the next step for the znode `found` at our path, if the record should be `wanted`.
    pub(crate) fn judge(&mut self, found: Option<&Znode>, wanted: &Node, now: Instant) -> Step {
        self.own = None;
        let Some(Znode { stat, data }) = found else {
            self.other_holder = None;
            return Step::Create;
        };
        let node = data.as_deref().and_then(record::parse_own);
        let node = node.filter(|node| node.id == wanted.id);
        // Our session owns it, whatever data another client has written to it.
        if self.is_owner(stat) {
            return self.keep(*stat, data.as_deref(), wanted);
        }
        let ghost = node.as_ref().and_then(|node| self.ghost(stat, node, wanted));
        if let Some(ghost) = ghost.filter(|_| !self.is_removal_refused) {
            self.ghost_czxid_max = Some(stat.czxid);
            let version = stat.version;
            return Step::Remove { version, ghost };
        }
        self.wait(stat, node, now)
    }

    fn keep(&mut self, stat: ZnodeStat, data: Option<&[u8]>, wanted: &Node) -> Step {
        self.own = Some(stat);
        self.ghost_czxid_max = Some(stat.czxid);
        self.other_holder = None;
        if data == Some(wanted.to_record().as_bytes()) {
            return Step::Keep;
        }
        let version = stat.version;
        Step::Write { version }
    }

    fn ghost(&self, stat: &ZnodeStat, node: &Node, wanted: &Node) -> Option<Ghost> {
        if stat.owner == 0 {
            return None;
        }
        if node.run == wanted.run {
            return Some(Ghost::EarlierSession);
        }
        if self.dead_run.as_deref() == Some(&*node.run) {
            return Some(Ghost::DeadNode);
        }
        let is_ours = address(&node.mesh, &node.client) == address(&wanted.mesh, &wanted.client);
        let is_older = self.ghost_czxid_max.is_none_or(|max| stat.czxid <= max);
        (is_ours && is_older).then_some(Ghost::EarlierProcess)
    }

    fn wait(&mut self, stat: &ZnodeStat, node: Option<Node>, now: Instant) -> Step {
        let known = self.other_holder.take();
        let mut other_holder = known
            .filter(|known| known.owner == stat.owner)
            .unwrap_or(OtherHolder {
                owner: stat.owner,
                since: now,
                is_taken: stat.owner == 0,
            });
        other_holder.is_taken |= now.saturating_duration_since(other_holder.since) >= self.ghost_age_max;
        let holder = match node {
            _ if stat.owner == 0 => Holder::Persistent,
            Some(node) => Holder::Node(address(&node.mesh, &node.client).clone()),
            None => Holder::Unknown,
        };
        let is_taken = other_holder.is_taken;
        self.other_holder = Some(other_holder);
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
