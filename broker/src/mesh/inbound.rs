//! What comes over one link: interest into the table of the others', messages to clients here. Synchronous; the socket is its
//! [`task`](super::task)'s.
//!
//! *Architecture invariant:* a message from a link goes to clients here only, never to another link.

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
use standin_wire::client::Publish;
use standin_wire::subject::valid_subscription;
use tracing::{debug, error};

use crate::cache::Found;
use crate::closing::Reason;
use crate::flush::{Flush, PeerFlush};
use crate::interest::Interest;
use crate::route::frame::{self, FRAME_BYTES_MAX, Frame, Message};
use crate::route::hello::Peer;
use crate::route::link::Link;
use crate::router::Router;
use crate::subscription::Subscription;

/// What the node should know of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The peer has told all its interest.
    Synced,
    Peers(Vec<Peer>),
    /// The peer takes clients from now on.
    Serving,
    /// The peer takes no clients any more.
    Draining,
    /// The peer leaves.
    Goodbye,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Inbound {
    link: Arc<Link>,
    /// What the peer wants.
    wanted: HashTable<Arc<Subscription>>,
    /// What of it is still to be taken out, when the link is gone.
    ending: Vec<Arc<Subscription>>,
    hasher: RandomState,
    /// The last message's subject, and who gets it here.
    last: Option<(Vec<u8>, Found)>,
    /// A PING of this side for a sign of life was answered.
    took_pong: bool,
    flush: PeerFlush,
    messages_in: u64,
    bytes_in: u64,
}

impl Inbound {
    /// For a link that [stands](crate::route::links::Links::insert).
    pub(crate) fn new(link: Arc<Link>, interest: &Interest) -> Self {
        Self {
            flush: PeerFlush::new(interest),
            link,
            wanted: HashTable::new(),
            ending: Vec::new(),
            hasher: RandomState::default(),
            last: None,
            took_pong: false,
            messages_in: 0,
            bytes_in: 0,
        }
    }

    /// Whether a PING for a sign of life was answered since last asked.
    pub(crate) fn took_pong(&mut self) -> bool {
        std::mem::take(&mut self.took_pong)
    }

    /// Takes the whole frames at the head of `bytes`, as many as one turn is for; returns their length.
    ///
    /// # Errors
    /// [`Reason::Protocol`]: what follows cannot be read.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        interest: &Interest,
        flush: &Flush,
        router: &mut Router,
        heard: &mut Vec<Heard>,
    ) -> Result<usize, Reason> {
        let mut at = 0;
        // What is still owed of the turn before comes first, so that it comes at all.
        while !router.is_tired() && (at > 0 || self.flush.ack(&self.link, flush, &mut router.stage)) {
            let frame = match frame::decode(&bytes[at..], FRAME_BYTES_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    error!(
                        peer = self.link.peer.id,
                        "the link sends what is no frame: {error}"
                    );
                    return Err(Reason::Protocol("mesh frame"));
                }
            };
            let (frame, length) = frame;
            if !matches!(frame, Frame::Ping(_)) && !self.flush.ack(&self.link, flush, &mut router.stage) {
                break;
            }
            at += length;
            self.frame(&frame, interest, flush, router, heard)?;
        }
        self.flush.ack(&self.link, flush, &mut router.stage);
        self.link
            .messages_in
            .fetch_add(std::mem::take(&mut self.messages_in), Relaxed);
        self.link
            .bytes_in
            .fetch_add(std::mem::take(&mut self.bytes_in), Relaxed);
        Ok(at)
    }

    /// Whether an ack is owed to the peer: more turns are wanted.
    pub(crate) const fn owes(&self) -> bool {
        self.flush.is_owed()
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        interest: &Interest,
        flush: &Flush,
        router: &mut Router,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Reason> {
        match *frame {
            Frame::Message(message) => return self.message(&message, interest, router),
            Frame::Interest {
                subject,
                queue,
                members,
            } => return self.wants(subject, queue, members, interest),
            Frame::NoInterest { subject, queue } => self.wants_no_more(subject, queue, interest),
            Frame::Ping(frame::PROBE) => {
                frame::put_pong(&mut router.stage.of(&self.link.outbox).bytes, frame::PROBE);
            }
            Frame::Ping(change) => self.flush.asked(change, flush, &mut router.stage),
            Frame::Pong(frame::PROBE) => self.took_pong = true,
            Frame::Pong(change) => {
                self.flush
                    .acked(change, &self.link, flush, interest, &mut router.stage);
            }
            Frame::Synced => heard.push(Heard::Synced),
            Frame::Peers(json) => match serde_json::from_slice(json) {
                Ok(peers) => heard.push(Heard::Peers(peers)),
                Err(error) => debug!(peer = self.link.peer.id, "peers that cannot be read: {error}"),
            },
            Frame::Serving => heard.push(Heard::Serving),
            Frame::Draining => heard.push(Heard::Draining),
            Frame::Goodbye => heard.push(Heard::Goodbye),
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
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &Message<'_>,
        interest: &Interest,
        router: &mut Router,
    ) -> Result<(), Reason> {
        let acked = self.flush.before_message(&mut router.stage);
        self.messages_in += 1;
        self.bytes_in += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        let known = self
            .last
            .as_ref()
            .filter(|(subject, found)| *subject == message.subject && found.holds(interest));
        let found = match known {
            Some((_, found)) => found.clone(),
            None => {
                self.check(message.subject)?;
                let found = router.link_cache.find(message.subject, interest);
                let (subject, last) = self.last.get_or_insert_with(|| (Vec::new(), found.clone()));
                subject.clear();
                subject.extend_from_slice(message.subject);
                *last = found.clone();
                found
            }
        };
        if let Some(reply) = message.reply {
            self.check(reply)?;
        }
        let published = Publish {
            subject: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: message.payload,
        };
        let taken = router.deliver_here(
            &self.link.outbox,
            acked,
            message.queues,
            &published,
            &found.recipients,
            interest,
        );
        if !taken {
            self.link.undelivered.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// A client's line must not end within a subject, whatever a peer sends.
    fn check(&self, subject: &[u8]) -> Result<(), Reason> {
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
        interest: &Interest,
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
                interest.remote.add(&wanted);
                entry.insert(wanted);
            }
        }
        self.link.interest.store(self.wanted.len(), Relaxed);
        Ok(())
    }

    fn wants_no_more(&mut self, subject: &[u8], queue: Option<&[u8]>, interest: &Interest) {
        let hash = self.hasher.hash_one((subject, queue));
        let same = |known: &Arc<Subscription>| known.subject() == subject && known.queue() == queue;
        if let Ok(entry) = self.wanted.find_entry(hash, same) {
            let (gone, _) = entry.remove();
            interest.remote.remove(&gone);
        }
        self.link.interest.store(self.wanted.len(), Relaxed);
    }

    /// The link is gone: so many of what the peer wanted go with it. Returns whether there are more. A million at once would hold up the worker.
    pub(crate) fn end_some(&mut self, interest: &Interest, count: usize) -> bool {
        self.last = None;
        // Not while taking them out: a table that is drained cannot be left half full.
        if self.ending.is_empty() {
            self.ending = std::mem::take(&mut self.wanted).into_iter().collect();
        }
        let rest = self.ending.len().saturating_sub(count);
        for wanted in self.ending.drain(rest..) {
            interest.remote.remove(&wanted);
        }
        self.link.interest.store(rest, Relaxed);
        rest > 0
    }

    /// The link is gone, and what the peer wanted with it: all of it, since a message for it would be lost.
    pub(crate) fn end(&mut self, interest: &Interest) {
        while self.end_some(interest, usize::MAX) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::route::hello::Hello;
    use crate::stage::Stage;

    #[test]
    fn a_ping_is_answered_when_what_another_worker_is_sending_is_sent_and_what_follows_waits() {
        let (interest, flush) = (Interest::new(), Flush::default());
        let (mut router, mut other) = (Router::new(0, 10), Stage::new(1));
        flush.add_stage(&router.stage);
        flush.add_stage(&other);
        let address = ([127, 0, 0, 1], 6222).into();
        let outbox = Arc::new(Outbox::new(1, None, 2));
        let link = Arc::new(Link::new(1, Arc::clone(&outbox), Hello::default(), address, true));
        let mut inbound = Inbound::new(link, &interest);
        let mut words = Vec::new();
        frame::put_ping(&mut words, 3);
        frame::put_ping(&mut words, 4);
        let pings = words.len();
        frame::put_interest(&mut words, b"a", None, 1);
        let mut take = |bytes: &[u8], router: &mut Router| {
            router.begin_turn();
            let taken = inbound.take(bytes, &interest, &flush, router, &mut Vec::new());
            let answered = router.stage.of(&outbox).bytes.clone();
            router.stage.flush();
            (taken.expect("frames"), answered, inbound.owes())
        };
        let sent: Vec<_> = (2..4).map(|id| Arc::new(Outbox::new(id, None, 2))).collect();
        for outbox in &sent {
            other.of(outbox).bytes.push(b'x');
        }
        let mut pong = Vec::new();
        frame::put_pong(&mut pong, 4);
        other.flush_to(&sent[0]);
        assert_eq!(take(&words, &mut router), (pings, Vec::new(), true));
        assert_eq!(take(&words[pings..], &mut router), (0, Vec::new(), true));
        other.flush();
        let rest = words.len() - pings;
        assert_eq!(take(&words[pings..], &mut router), (rest, pong, false));
        // What is sent later is nothing to wait for.
        let mut pong = Vec::new();
        frame::put_pong(&mut pong, 3);
        assert_eq!(take(&words[..pings / 2], &mut router), (pings / 2, pong, false));
    }

    #[test]
    fn messages_that_nobody_wants_any_more_are_counted() {
        let (interest, flush, mut router) = (Interest::new(), Flush::default(), Router::new(0, 10));
        let outbox = Arc::new(Outbox::unconnected(1));
        let address = ([127, 0, 0, 1], 6222).into();
        let link = Arc::new(Link::new(1, outbox, Hello::default(), address, true));
        let mut inbound = Inbound::new(Arc::clone(&link), &interest);
        let mut message = Vec::new();
        frame::put_message_head(&mut message, b"\x01q", b"a", None, None, 2);
        message.extend_from_slice(b"hi");
        let mut undelivered_after = |router: &mut Router| {
            router.begin_turn();
            let taken = inbound.take(&message, &interest, &flush, router, &mut Vec::new());
            assert_eq!(taken, Ok(message.len()));
            link.undelivered.load(Relaxed)
        };
        assert_eq!(undelivered_after(&mut router), 1);
        let client = Arc::new(Outbox::unconnected(2));
        let plain = Arc::new(Subscription::new(client, b"a", None, b"1"));
        interest.local.add(&plain);
        assert_eq!(undelivered_after(&mut router), 1, "it has a taker");
        interest.local.remove(&plain);
        let member = Arc::new(Subscription::new(
            Arc::clone(&plain.client),
            b"a",
            Some(b"q"),
            b"2",
        ));
        interest.local.add(&member);
        assert_eq!(undelivered_after(&mut router), 1, "a member has it");
        interest.local.remove(&member);
        assert_eq!(undelivered_after(&mut router), 2);
        assert_eq!(link.messages_in.load(Relaxed), 4);
    }
}
