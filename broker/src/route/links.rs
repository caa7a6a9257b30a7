//! The links that stand, and who waits for them: the cluster-wide flush.
//!
//! A client's PONG is held until every link that stands has answered a PING that came behind all changes which the client made
//! before its own PING (DESIGN, *Cluster-wide flush*). The token of such a PING is the number of the last change; so one answer
//! serves all who wait for it or an earlier one.
//!
//! A node that is joining is not waited for: it has no clients that could publish, and knows all before it takes some. One that takes
//! clients is, also while it is still being told what there is.
//!
//! By the same answers a client that comes from another node gets nothing twice: of each link's messages only those behind its
//! answer to the client's first subscription are for it ([`Interest::expect`](crate::interest::Interest::expect)).
//!
//! Of a node that is about to go each PONG waits for all links: what other nodes had sent before it has come then, and a client that leaves
//! behind its PONG misses none of it.
//!
//! *Architecture invariant:* a link that does not answer in time is not waited for again before it has, and one that ends is not waited
//! for at all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tracing::warn;

use super::frame;
use super::hello::Hello;
use crate::closing::{KINDS, Reason};
use crate::outbox::Outbox;
use crate::stage::{Split, Stage};

/// A link to another node.
#[derive(Debug)]
pub(crate) struct Link {
    /// Counted from 1 in the life of this node.
    pub(crate) number: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: Hello,
    pub(crate) address: SocketAddr,
    /// This side dialled.
    pub(crate) dialled: bool,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// The peer takes clients.
    pub(crate) serving: AtomicBool,
    /// The peer takes no clients any more.
    pub(crate) draining: AtomicBool,
    /// The peer was told all there is, so it can be asked what it knows.
    told_all: AtomicBool,
    /// The last change that the peer was asked about, and the last that it is known to know.
    asked: AtomicU64,
    answered: AtomicU64,
    /// It did not answer in time, and is waited for again when it has answered this change; 0: it is in time.
    late: AtomicU64,
    /// The peer is to show that it lives,
    probe: AtomicBool,
    /// because another node claims its id.
    claimed: AtomicBool,
    /// What the peer wants: subjects and groups.
    pub(crate) interest: AtomicUsize,
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    /// Messages that no client here wanted any more when they came.
    pub(crate) undelivered: AtomicU64,
    /// All bytes that came, interest and the rest included.
    pub(crate) raw_bytes_in: AtomicU64,
    heard_ms: AtomicU64,
    rtt_ns: AtomicU64,
}

impl Link {
    pub(crate) fn new(
        number: u64,
        outbox: Arc<Outbox>,
        peer: Hello,
        address: SocketAddr,
        dialled: bool,
    ) -> Self {
        Self {
            number,
            outbox,
            serving: AtomicBool::new(peer.serving),
            draining: AtomicBool::new(peer.draining),
            peer,
            address,
            dialled,
            started: Instant::now(),
            started_at: SystemTime::now(),
            told_all: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            late: AtomicU64::new(0),
            probe: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            interest: AtomicUsize::new(0),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            raw_bytes_in: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
        }
    }

    /// The peer is asked for a sign of life now, and lost when none comes in time.
    pub(crate) fn probe(&self) {
        self.probe.store(true, Relaxed);
        self.outbox.wake();
    }

    /// As [`probe`](Self::probe); its answer shows that another node claims the id of one that lives.
    pub(crate) fn claim(&self) {
        self.claimed.store(true, Relaxed);
        self.probe();
    }

    pub(crate) fn take_claim(&self) -> bool {
        self.claimed.load(Relaxed) && self.claimed.swap(false, Relaxed)
    }

    pub(crate) fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }

    /// The peer was told all there is.
    pub(crate) fn set_told_all(&self) {
        self.told_all.store(true, SeqCst);
    }

    /// Asks the peer about this change; one that has not been told all is asked when it has.
    fn ask(&self, change: u64, stage: &mut Stage) {
        let told = self.told_all.load(SeqCst);
        if told && self.asked.fetch_max(change, SeqCst) < change {
            frame::put_ping(&mut stage.of(&self.outbox).bytes, change);
        }
    }

    /// Whether the peer knows this change, as far as anybody waits for it.
    fn knows(&self, change: u64) -> bool {
        self.answered.load(SeqCst) >= change || !self.is_waited_for()
    }

    /// Whether who makes changes waits for it.
    pub(crate) fn is_waited_for(&self) -> bool {
        let joined = self.told_all.load(SeqCst) || self.serving.load(Relaxed);
        joined && self.late.load(Relaxed) == 0 && self.outbox.reason().is_none()
    }

    pub(crate) fn heard(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started);
        self.heard_ms.store(since.as_millis() as u64, Relaxed);
    }

    /// How long ago the peer was last heard of.
    pub(crate) fn idle(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.started.elapsed().saturating_sub(heard)
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
    }

    /// The last measured time to it and back.
    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_nanos(self.rtt_ns.load(Relaxed))
    }
}

/// What all links together have had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkTotals {
    /// Links since start.
    pub(crate) links: u64,
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) raw_bytes_in: u64,
    pub(crate) undelivered: u64,
    /// Times that a flush was given up because a link did not answer.
    pub(crate) flushes_given_up: u64,
    /// Links that ended, by the place of the reason in [`KINDS`], and what waited for them then.
    pub(crate) ended: [u64; KINDS.len()],
    pub(crate) unsent_bytes: u64,
}

impl LinkTotals {
    fn add(&mut self, link: &Link) {
        self.messages_in += link.messages_in.load(Relaxed);
        self.bytes_in += link.bytes_in.load(Relaxed);
        self.messages_out += link.outbox.messages_out.load(Relaxed);
        self.bytes_out += link.outbox.bytes_out.load(Relaxed);
        self.raw_bytes_in += link.raw_bytes_in.load(Relaxed);
        self.undelivered += link.undelivered.load(Relaxed);
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Without the links that stand, but for their number.
    past: Mutex<LinkTotals>,
    list: ArcSwap<Vec<Arc<Link>>>,
    /// By the change that they wait for, and their number.
    waiting: Mutex<BTreeMap<(u64, u64), Arc<Outbox>>>,
    /// This node is about to go.
    draining: AtomicBool,
    /// Of the stage of each worker.
    splits: ArcSwap<Vec<Split>>,
}

impl Links {
    pub(crate) fn load(&self) -> Guard<Arc<Vec<Arc<Link>>>> {
        self.list.load()
    }

    /// To be kept for longer than a moment.
    pub(crate) fn load_full(&self) -> Arc<Vec<Arc<Link>>> {
        self.list.load_full()
    }

    pub(crate) fn insert(&self, link: &Arc<Link>) {
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push(Arc::clone(link));
            list
        });
        self.past().links += 1;
    }

    /// Returns whether it was there.
    pub(crate) fn remove(&self, link: &Link) -> bool {
        let before = self.list.rcu(|list| {
            let others = list.iter().filter(|known| known.number != link.number);
            others.cloned().collect::<Vec<_>>()
        });
        let was_there = before.iter().any(|known| known.number == link.number);
        if was_there {
            self.past().add(link);
        }
        self.wake();
        was_there
    }

    /// A link has ended, and so many bytes were not sent.
    pub(crate) fn ended(&self, reason: Reason, unsent_bytes: usize) {
        let mut past = self.past();
        past.ended[reason.kind()] += 1;
        past.unsent_bytes += unsent_bytes as u64;
    }

    /// What a worker stages may go over links.
    pub(crate) fn add_stage(&self, stage: &Stage) {
        self.splits.rcu(|splits| {
            let mut splits = Vec::clone(splits);
            splits.push(Arc::clone(stage.split()));
            splits
        });
    }

    /// The stages that are [split](Split) now: which, and how they are counted.
    pub(crate) fn note_splits(&self, noted: &mut Vec<(usize, u64)>) {
        let splits = self.splits.load();
        let counts = splits.iter().map(|split| split.load(Acquire)).enumerate();
        noted.clear();
        noted.extend(counts.filter(|(_, count)| count & 1 == 1));
    }

    /// Whether all of those have sent what they had staged then.
    pub(crate) fn are_mended(&self, noted: &[(usize, u64)]) -> bool {
        let splits = self.splits.load();
        noted
            .iter()
            .all(|(which, count)| splits[*which].load(Acquire) != *count)
    }

    /// Whether all links know this change.
    pub(crate) fn know(&self, change: u64) -> bool {
        self.load().iter().all(|link| link.knows(change))
    }

    /// From now on each PONG comes behind what is on its way to this node.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Asks those that may not know this change, and has `client` woken when all do. The caller looks once more after that.
    pub(crate) fn ask(&self, change: u64, client: &Arc<Outbox>, stage: &mut Stage) {
        for link in self.load().iter().filter(|link| !link.knows(change)) {
            link.ask(change, stage);
        }
        self.waiting().insert((change, client.id), Arc::clone(client));
    }

    /// Asks all links about this change, also those that nobody waits for. For what is told to follow it.
    pub(crate) fn ask_all(&self, change: u64, stage: &mut Stage) {
        self.load().iter().for_each(|link| link.ask(change, stage));
    }

    /// `client` does not wait any longer.
    pub(crate) fn forget(&self, change: u64, client: &Outbox) {
        self.waiting().remove(&(change, client.id));
    }

    /// `client` has waited as long as it may: those that still do not know the change are not waited for any more.
    pub(crate) fn give_up(&self, change: u64, after: Duration) {
        self.past().flushes_given_up += 1;
        for link in self.load().iter().filter(|link| !link.knows(change)) {
            if link.late.swap(link.asked.load(SeqCst).max(change), Relaxed) == 0 {
                warn!(
                    peer = link.peer.id,
                    address = %link.address,
                    "the link did not confirm a change of interest within {after:?}; clients do not wait for it until it answers"
                );
            }
        }
        self.wake();
    }

    /// The peer knows all up to this change.
    pub(crate) fn answered(&self, link: &Link, change: u64) {
        if change >= link.late.load(Relaxed) {
            link.late.store(0, Relaxed);
        }
        if change > 0 && link.answered.fetch_max(change, SeqCst) < change {
            self.wake();
        }
    }

    /// Wakes those who have nothing more to wait for.
    pub(crate) fn wake(&self) {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.first_entry()
            && self.know(first.key().0)
        {
            first.remove().wake();
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting().len()
    }

    /// What all links, those that ended and those that stand, have had so far.
    pub(crate) fn totals(&self) -> LinkTotals {
        let mut totals = *self.past();
        self.load().iter().for_each(|link| totals.add(link));
        totals
    }

    fn past(&self) -> MutexGuard<'_, LinkTotals> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Arc<Outbox>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_late_is_waited_for_again_once_it_has_answered_also_while_new_clients_ask() {
        let (links, mut stage) = (Links::default(), Stage::new(0));
        let address = ([127, 0, 0, 1], 6222).into();
        let outbox = Arc::new(Outbox::unconnected(1));
        let link = Arc::new(Link::new(1, outbox, Hello::default(), address, true));
        links.insert(&link);
        link.set_told_all();
        let client = Arc::new(Outbox::unconnected(2));
        links.ask(5, &client, &mut stage);
        assert!(!links.know(5));
        links.give_up(5, Duration::from_secs(1));
        assert!(links.know(5), "nobody waits for it");
        links.ask_all(8, &mut stage);
        links.answered(&link, 4);
        assert!(links.know(8), "it is still late");
        links.answered(&link, 5);
        assert!(!links.know(8), "it is waited for again");
        links.answered(&link, 8);
        assert!(links.know(8));
    }
}
