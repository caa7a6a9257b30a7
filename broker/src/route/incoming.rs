//! What comes over one route: frames, of which those about the peer's interest are applied here, to the table of what other nodes want.
//!
//! *Architecture invariant:* nothing that a peer sends is passed on that could break a client's line.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

// In tests the order in a table is the same each time, so that a seed replays.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::valid_subscription;
use tracing::{debug, error};

use super::event::RouteEvent;
use super::frame::{self, FRAME_BYTES_MAX, Frame};
use super::link::Link;
use crate::closing::Reason;
use crate::subscription::Subscription;
use crate::subscriptions::Subscriptions;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Incoming {
    link: Arc<Link>,
    /// What the peer wants.
    wanted: HashTable<Arc<Subscription>>,
    /// What of it is still to be taken out, when the link is gone.
    ending: Vec<Arc<Subscription>>,
    hasher: RandomState,
}

impl Incoming {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            wanted: HashTable::new(),
            ending: Vec::new(),
            hasher: RandomState::default(),
        }
    }

    /// Returns the frame at the head of `bytes`, with its length; `None` when it has not come wholly.
    ///
    /// # Errors
    /// [`Reason::Protocol`]: what follows cannot be read.
    #[inline]
    pub(crate) fn frame<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Reason> {
        frame::decode(bytes, FRAME_BYTES_MAX).map_err(|error| {
            error!(
                peer = self.link.peer.id,
                "the link sends what is no frame: {error}"
            );
            Reason::Protocol("mesh frame")
        })
    }

    /// Applies a frame that is neither a message nor a PING or PONG. Returns what of it is the node's business.
    ///
    /// # Errors
    /// The reason why the route must end.
    pub(crate) fn apply(
        &mut self,
        frame: &Frame<'_>,
        remote: &Subscriptions,
    ) -> Result<Option<RouteEvent>, Reason> {
        match *frame {
            Frame::Interest {
                subject,
                queue,
                members,
            } => self.wants(subject, queue, members, remote)?,
            Frame::NoInterest { subject, queue } => self.wants_no_more(subject, queue, remote),
            Frame::Synced => return Ok(Some(RouteEvent::Synced)),
            Frame::Serving => {
                self.link.serving.store(true, Relaxed);
                return Ok(Some(RouteEvent::Serving));
            }
            Frame::Draining => {
                self.link.draining.store(true, Relaxed);
                return Ok(Some(RouteEvent::Draining));
            }
            Frame::Goodbye => return Ok(Some(RouteEvent::Goodbye)),
            Frame::Peers(json) => match serde_json::from_slice(json) {
                Ok(peers) => return Ok(Some(RouteEvent::Peers(peers))),
                Err(error) => debug!(peer = self.link.peer.id, "peers that cannot be read: {error}"),
            },
            // It was welcome, but much has happened meanwhile.
            Frame::Refuse(_) => return Err(Reason::Refused),
            Frame::Hello(_) | Frame::Welcome => {
                error!(peer = self.link.peer.id, "the link introduces itself twice");
                return Err(Reason::Protocol("mesh frame"));
            }
            Frame::Unknown(kind) => debug!(
                peer = self.link.peer.id,
                kind, "a frame of a newer version is skipped"
            ),
            Frame::Message(_) | Frame::Ping(_) | Frame::Pong(_) => {}
        }
        Ok(None)
    }

    /// A client's line must not end within a subject, whatever a peer sends.
    pub(crate) fn check(&self, subject: &[u8]) -> Result<(), Reason> {
        let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
        if subject.is_empty() || subject.iter().any(ends) {
            error!(
                peer = self.link.peer.id,
                "the link sends a message to what is no subject"
            );
            return Err(Reason::Protocol("mesh subject"));
        }
        Ok(())
    }

    fn wants(
        &mut self,
        subject: &[u8],
        queue: Option<&[u8]>,
        members: u32,
        remote: &Subscriptions,
    ) -> Result<(), Reason> {
        if !valid_subscription(subject) {
            error!(peer = self.link.peer.id, "the link wants what is no subject");
            return Err(Reason::Protocol("mesh subject"));
        }
        let hasher = &self.hasher;
        let entry = self.wanted.entry(
            hasher.hash_one((subject, queue)),
            |known| known.subject() == subject && known.queue() == queue,
            |known| hasher.hash_one((known.subject(), known.queue())),
        );
        match entry {
            // How many they are decides only how often they are chosen: nothing to look up anew.
            Entry::Occupied(entry) => entry.get().members.store(members, Relaxed),
            Entry::Vacant(entry) => {
                let outbox = Arc::clone(&self.link.outbox);
                let wanted = Arc::new(Subscription::new(outbox, subject, queue, b""));
                wanted.members.store(members, Relaxed);
                remote.add(&wanted);
                entry.insert(wanted);
            }
        }
        self.link.interest.store(self.wanted.len(), Relaxed);
        Ok(())
    }

    fn wants_no_more(&mut self, subject: &[u8], queue: Option<&[u8]>, remote: &Subscriptions) {
        let hash = self.hasher.hash_one((subject, queue));
        let same = |known: &Arc<Subscription>| known.subject() == subject && known.queue() == queue;
        if let Ok(entry) = self.wanted.find_entry(hash, same) {
            let (gone, _) = entry.remove();
            remote.remove(&gone);
        }
        self.link.interest.store(self.wanted.len(), Relaxed);
    }

    /// The link is gone: so many of what the peer wanted go with it. Returns whether there are more. A million at once would hold up the worker.
    pub(crate) fn end_some(&mut self, remote: &Subscriptions, count: usize) -> bool {
        // Not while taking them out: a table that is drained cannot be left half full.
        if self.ending.is_empty() {
            self.ending = std::mem::take(&mut self.wanted).into_iter().collect();
        }
        let rest = self.ending.len().saturating_sub(count);
        for wanted in self.ending.drain(rest..) {
            remote.remove(&wanted);
        }
        self.link.interest.store(rest, Relaxed);
        rest > 0
    }

    /// The link is gone, and what the peer wanted with it: all of it, since a message for it would be lost.
    pub(crate) fn end(&mut self, remote: &Subscriptions) {
        while self.end_some(remote, usize::MAX) {}
    }
}
