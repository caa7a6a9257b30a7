//! The frames that arrive over one route. Frames about the peer's interest are applied to the table of remote interest.
//!
//! *Architecture invariant:* no subject from a peer can break the protocol line that a client gets.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

// In tests the order in a table is the same each time, so that a seed always gives the same run.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::Rules;
use standin_wire::subject::valid_subscription;
use tracing::{debug, error};

use super::Route;
use super::event::RouteEvent;
use super::frame::{Frame, FrameError};
use crate::account;
use crate::close_reason::CloseReason;
use crate::subscription::Subscription;
use crate::subscriptions::Subscriptions;

#[derive(Debug)]
pub(crate) struct Incoming {
    route: Arc<Route>,
    interest: HashTable<Arc<Subscription>>,
    /// After the end of the route: the peer's interest that is still to be removed.
    ending: Vec<Arc<Subscription>>,
    hasher: RandomState,
    /// The interest that is accepted.
    accepted: Rules,
}

impl Incoming {
    pub(crate) fn new(route: Arc<Route>, accepted: Rules) -> Self {
        Self {
            route,
            interest: HashTable::new(),
            ending: Vec::new(),
            hasher: RandomState::default(),
            accepted,
        }
    }

    /// Logs the invalid frame, and returns the reason to close the route: the bytes after the frame cannot be parsed.
    pub(crate) fn invalid_frame(&self, error: FrameError) -> CloseReason {
        self.violation("mesh frame", format_args!("invalid frame from the peer: {error}"))
    }

    /// Applies a frame that is not about messages, acks or cuts. Returns the event for the keeper, if there is one.
    pub(crate) fn apply(
        &mut self,
        frame: &Frame<'_>,
        remote: &Subscriptions,
    ) -> Result<Option<RouteEvent>, CloseReason> {
        match *frame {
            Frame::Interest {
                subject,
                queue,
                members,
            } => self.add_interest(subject, queue, members, remote)?,
            Frame::NoInterest { subject, queue } => self.remove_interest(subject, queue, remote),
            Frame::Synced => return Ok(Some(RouteEvent::Synced)),
            Frame::Serving => {
                self.route.serving.store(true, Relaxed);
                return Ok(Some(RouteEvent::Serving));
            }
            Frame::Draining => {
                self.route.draining.store(true, Relaxed);
                return Ok(Some(RouteEvent::Draining));
            }
            Frame::Goodbye => return Ok(Some(RouteEvent::Goodbye)),
            Frame::Peers(json) => match serde_json::from_slice(json) {
                Ok(peers) => return Ok(Some(RouteEvent::Peers(peers))),
                Err(error) => debug!(peer = self.route.peer.id, "invalid PEERS frame: {error}"),
            },
            // A peer refuses after its own WELCOME if its state has changed since.
            Frame::Refuse(_) => return Err(CloseReason::Refused),
            Frame::Hello(_) | Frame::Welcome => {
                let error = format_args!("second HELLO or WELCOME from the peer");
                return Err(self.violation("mesh frame", error));
            }
            Frame::Unknown(kind) => debug!(
                peer = self.route.peer.id,
                kind, "frame of an unknown kind skipped, from a newer version"
            ),
            Frame::Message(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Cut { .. }
            | Frame::Mark { .. }
            | Frame::CutDone(_) => {}
        }
        Ok(None)
    }

    /// Rejects a subject that would break the protocol line of a client.
    pub(crate) fn check_subject(&self, subject: &[u8]) -> Result<(), CloseReason> {
        let ends_token = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
        if subject.is_empty() || subject.iter().any(ends_token) {
            let error = format_args!("message with an invalid subject from the peer");
            return Err(self.violation("mesh subject", error));
        }
        Ok(())
    }

    /// Logs a violation of the protocol by the peer, and returns the reason to end the route.
    #[cold]
    fn violation(&self, what: &'static str, error: fmt::Arguments<'_>) -> CloseReason {
        error!(peer = self.route.peer.id, "{error}");
        CloseReason::Protocol(what)
    }

    fn add_interest(
        &mut self,
        subject: &[u8],
        queue: Option<&[u8]>,
        members: u32,
        remote: &Subscriptions,
    ) -> Result<(), CloseReason> {
        let (_, seen) = account::split(subject);
        if !valid_subscription(seen) {
            let error = format_args!("interest in an invalid subject from the peer");
            return Err(self.violation("mesh subject", error));
        }
        if !self.accepted.allow_all() && !self.accepted.allows_subscription(seen, None) {
            return Ok(());
        }
        let hasher = &self.hasher;
        let entry = self.interest.entry(
            hasher.hash_one((subject, queue)),
            |known| known.subject() == subject && known.queue() == queue,
            |known| hasher.hash_one((known.subject(), known.queue())),
        );
        match entry {
            // The number of members is only the weight of a group, so cached look-ups stay valid.
            Entry::Occupied(entry) => entry.get().members.store(members, Relaxed),
            Entry::Vacant(entry) => {
                let outbox = Arc::clone(&self.route.outbox);
                let interest = Arc::new(Subscription::new(outbox, subject, queue, b""));
                interest.members.store(members, Relaxed);
                remote.add(&interest);
                entry.insert(interest);
            }
        }
        self.route.interest.store(self.interest.len(), Relaxed);
        Ok(())
    }

    fn remove_interest(&mut self, subject: &[u8], queue: Option<&[u8]>, remote: &Subscriptions) {
        let hash = self.hasher.hash_one((subject, queue));
        let same = |known: &Arc<Subscription>| known.subject() == subject && known.queue() == queue;
        if let Ok(entry) = self.interest.find_entry(hash, same) {
            let (removed, _) = entry.remove();
            remote.remove(&removed);
        }
        self.route.interest.store(self.interest.len(), Relaxed);
    }

    /// Removes up to `count` subscriptions of the peer after the end of the route. Returns whether more are left. The caller does this in
    /// steps, because removing a million at once would delay the worker.
    pub(crate) fn remove_some(&mut self, remote: &Subscriptions, count: usize) -> bool {
        // The table is moved into a list first, because a hash table cannot be drained in steps.
        if self.ending.is_empty() {
            self.ending = std::mem::take(&mut self.interest).into_iter().collect();
        }
        let rest = self.ending.len().saturating_sub(count);
        for interest in self.ending.drain(rest..) {
            remote.remove(&interest);
        }
        self.route.interest.store(rest, Relaxed);
        rest > 0
    }

    /// Removes all subscriptions of the peer, so that no message is sent to a route that has ended.
    pub(crate) fn remove_all(&mut self, remote: &Subscriptions) {
        while self.remove_some(remote, usize::MAX) {}
    }
}
