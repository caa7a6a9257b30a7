//! Our place in ZooKeeper: what stands there, whose it is, and what is to be done about it. Pure state, no
//! I/O, so that every rule is tested without a server.
//!
//! | what stands there | what is done |
//! |---|---|
//! | nothing | create it |
//! | ours, made in this session, over whichever connection | keep it; write our record when it holds another |
//! | a ghost of ours: our `run`, from an earlier session of this process that cannot be continued | delete it and create it anew |
//! | a ghost of our last life: another `run` at our address, from before our time here | the same |
//! | anything else: another process has the id, or it is no record, or a persistent znode | wait for it to go |
//!
//! We hold our address now, so nobody else can live there. But two nodes may be told the same address by
//! mistake, and each would take the other for its ghost for ever; so what is younger than what we once made or
//! removed here is never a ghost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Znode;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::record::{self, Record};

/// What was read at our place.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) znode: Znode,
    /// `None` when its ACL keeps it from us.
    pub(crate) data: Option<Vec<u8>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Keep,
    Write { version: i32 },
    Remove { version: i32, ghost: Ghost },
    Wait(Waiting),
}

/// A znode of ours that nobody keeps alive any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ghost {
    EarlierSession,
    EarlierLife,
}

impl fmt::Display for Ghost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EarlierSession => "an earlier session of this process",
            Self::EarlierLife => "an earlier process at this address",
        })
    }
}

/// Why our place is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) holder: Holder,
    /// The holder has outlived what a dead one would: it is alive.
    pub(crate) is_taken: bool,
}

/// Who holds our place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A node, by its own record.
    Node(Arc<Node>),
    /// A session that left no record of ours.
    Unknown,
    /// No session.
    Persistent,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.holder, self.is_taken) {
            (Holder::Persistent, _) => f.write_str(
                "it is a persistent znode, which goes with no session: delete it (zkCli.sh delete) or take another id",
            ),
            (Holder::Node(node), true) => write!(
                f,
                "the id is taken: another session holds it, of a node at {}; if one lives there, give each node an id and an address of its own",
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

/// The place as this process knows it, over all its sessions.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A holder that is still there after this is alive.
    ghost_age_max: Duration,
    /// Our session's number, once there is one.
    session: Option<i64>,
    /// Our znode as last seen, while it stands.
    own: Option<Znode>,
    /// The change that created what we last made here or removed: no ghost of our last life is younger.
    ghost_czxid_max: Option<i64>,
    /// A ghost may not be deleted in this session.
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
    /// Nothing known. No session that ended silently leaves its znode for longer than `ghost_age_max`.
    pub(crate) fn new(ghost_age_max: Duration) -> Self {
        Self {
            ghost_age_max,
            session: None,
            own: None,
            ghost_czxid_max: None,
            is_removal_refused: false,
            stranger: None,
        }
    }

    /// Another connection, of this session: what we made in an earlier one is a ghost now. While we were away
    /// ZooKeeper may have been too, and no session ends without it: who is waited for is given its time again.
    pub(crate) fn new_connection(&mut self, session: i64) {
        *self = Self {
            session: Some(session),
            ghost_czxid_max: self.ghost_czxid_max,
            stranger: self.stranger.take().filter(|stranger| stranger.is_taken),
            ..Self::new(self.ghost_age_max)
        };
    }

    /// We may not delete the ghost; it will go when its session ends.
    pub(crate) fn removal_refused(&mut self) {
        self.is_removal_refused = true;
    }

    /// Our znode, while it stands.
    pub(crate) fn own(&self) -> Option<Znode> {
        self.own
    }

    /// What to do about what stands there, when `wanted` should.
    pub(crate) fn judge(&mut self, found: Option<&Found>, wanted: &Record, now: Instant) -> Step {
        self.own = None;
        let Some(Found { znode, data }) = found else {
            self.stranger = None;
            return Step::Create;
        };
        let node = data.as_deref().and_then(record::parse_own);
        let node = node.filter(|node| *node.id == wanted.id);
        // Whatever somebody has written over it since.
        if self.session == Some(znode.owner) {
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

/// Where a node is alone: two processes cannot listen there. The mesh's, because several nodes may be reached
/// by clients at one address.
fn address<'a>(mesh: &'a Option<Endpoint>, client: &'a Endpoint) -> &'a Endpoint {
    mesh.as_ref().unwrap_or(client)
}

#[cfg(test)]
mod tests;
