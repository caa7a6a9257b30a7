//! The cluster-wide flush, and the rule that a client that moves between nodes gets nothing twice. All of both is here.
//!
//! *Flush.* A client's PONG waits until every route has acked all changes of interest that the client made before its PING. So after
//! SUB, PING, PONG a message published on any node reaches the client. To ask for an ack, a node sends PING with the number of the last
//! change, behind that change and all before it, whichever client made them; the peer's PONG with this number acks them. So one ack serves
//! all clients that wait for it or an earlier one.
//!
//! *Routes that are not waited for.* One that is closing. One that joins: the peer has no clients yet that could publish, and knows all
//! before it has some. (A peer that serves clients is waited for, also while it is still told what there is.) One that did not ack within
//! `flush_timeout`: the clients that waited go on without it, and it is waited for again once it has acked what it was asked then.
//!
//! *A client that moves gets nothing twice.* The client may have been on another node until now and have had there what is still on its
//! way to this node. So, before a client's first SUB, its watermark becomes the number of a new change, and all routes are asked about the
//! SUB's change. From each route only messages behind the ack of the watermark are for this client. Its PONG, which waits for the acks,
//! ends that: better twice than never. Members of queue groups are exempt, because a message goes to one node for a group.
//!
//! *Acks that this node owes.* The PONG to a peer goes behind each message that another node or a client here has been sent when the
//! peer's PING came. Two things could put it before one. A worker flushes its batch client by client, so when the PING comes, a batch may be
//! sent to some of its clients and not to others: the ack, and what follows the PING, wait until each such batch is through. A PONG is staged
//! like any other bytes: before a message of the same peer is delivered, staged PONGs are sent, because whoever gets the message may answer it
//! at once.
//!
//! *A node that drains.* Each PONG of a client waits for all routes, whether the client changed anything or not: what other nodes had
//! sent before has then come, and a client that leaves after its PONG misses none of it.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use standin_wire::encode;
use tracing::warn;

use crate::interest::Interest;
use crate::outbox::Outbox;
use crate::route::frame;
use crate::route::link::Link;
use crate::route::links::Links;
use crate::stage::{Split, Stage};

/// Flushes of all clients of this node.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// Clients whose PONG waits, by the change that is to be acked and the client's number.
    waiting: Mutex<BTreeMap<(u64, u64), Arc<Outbox>>>,
    is_draining: AtomicBool,
    /// Whether the stage of each worker is split.
    splits: ArcSwap<Vec<Split>>,
    given_up: AtomicU64,
}

impl Flush {
    /// Includes a worker's stage in what acks to peers wait for.
    pub(crate) fn add_stage(&self, stage: &Stage) {
        self.splits.rcu(|splits| {
            let mut splits = Vec::clone(splits);
            splits.push(Arc::clone(stage.split()));
            splits
        });
    }

    /// From now on each client's PONG waits for all routes.
    pub(crate) fn set_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Returns how often a flush was given up because a route did not ack in time.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// Wakes the clients that have nothing more to wait for. To be called when a route has ended.
    pub(crate) fn wake(&self, links: &Links) {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.first_entry()
            && is_acked(links, first.key().0)
        {
            first.remove().wake();
        }
    }

    /// Takes the peer's ack of all changes up to this one.
    fn acked(&self, link: &Link, change: u64, links: &Links) {
        let acks = &link.acks;
        if change >= acks.late.load(Relaxed) {
            acks.late.store(0, Relaxed);
        }
        if change > 0 && acks.acked.fetch_max(change, SeqCst) < change {
            self.wake(links);
        }
    }

    /// Asks the routes that have not acked this change, and has `client` woken when all have. The caller checks once more after that.
    fn ask(&self, change: u64, client: &Arc<Outbox>, links: &Links, stage: &mut Stage) {
        for link in links.load().iter().filter(|link| !has_acked(link, change)) {
            ask(link, change, stage);
        }
        self.waiting().insert((change, client.id), Arc::clone(client));
    }

    fn forget(&self, change: u64, client: &Outbox) {
        self.waiting().remove(&(change, client.id));
    }

    /// Stops waiting for the routes that have not acked this change in time.
    fn give_up(&self, change: u64, after: Duration, links: &Links) {
        self.given_up.fetch_add(1, Relaxed);
        for link in links.load().iter().filter(|link| !has_acked(link, change)) {
            let acks = &link.acks;
            if acks.late.swap(acks.asked.load(SeqCst).max(change), Relaxed) == 0 {
                warn!(
                    peer = link.peer.id,
                    address = %link.address,
                    "the link did not confirm a change of interest within {after:?}; clients do not wait for it until it answers"
                );
            }
        }
        self.wake(links);
    }

    /// Notes which stages are split now, and their counts.
    fn note_splits(&self, noted: &mut Vec<(usize, u64)>) {
        let splits = self.splits.load();
        let counts = splits.iter().map(|split| split.load(Acquire)).enumerate();
        noted.clear();
        noted.extend(counts.filter(|(_, count)| count & 1 == 1));
    }

    /// Returns whether the noted stages have sent all of the batch that was partly sent then.
    fn are_mended(&self, noted: &[(usize, u64)]) -> bool {
        let splits = self.splits.load();
        noted
            .iter()
            .all(|(which, count)| splits[*which].load(Acquire) != *count)
    }

    /// Returns how many clients wait.
    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Arc<Outbox>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the peer to ack this change. One that has not been told all is asked when it has.
fn ask(link: &Link, change: u64, stage: &mut Stage) {
    let told = link.acks.told_all.load(SeqCst);
    if told && link.acks.asked.fetch_max(change, SeqCst) < change {
        frame::put_ping(&mut stage.of(&link.outbox).bytes, change);
    }
}

/// Returns whether clients wait for this route's acks.
pub(crate) fn is_waited_for(link: &Link) -> bool {
    let joined = link.acks.told_all.load(SeqCst) || link.serving.load(Relaxed);
    joined && link.acks.late.load(Relaxed) == 0 && link.outbox.reason().is_none()
}

fn has_acked(link: &Link, change: u64) -> bool {
    link.acks.acked.load(SeqCst) >= change || !is_waited_for(link)
}

fn is_acked(links: &Links, change: u64) -> bool {
    links.load().iter().all(|link| has_acked(link, change))
}

/// Returns whether a message from a route that has acked the change `acked` is for this client: see *A client that moves* above.
#[inline]
pub(crate) fn admits(client: &Outbox, acked: u64) -> bool {
    client.watermark.load(Relaxed) <= acked
}

/// State of one client's flush.
#[derive(Debug, Default)]
pub(crate) struct ClientFlush {
    has_subscribed: bool,
    /// Number of the last change of interest, of any client, up to a change of this client that other nodes may not know yet.
    changed: Option<u64>,
    /// The PONG waits for the acks of this change,
    waits_for: Option<u64>,
    /// at most until then.
    until: Option<Instant>,
}

impl ClientFlush {
    /// Before the client's first SUB: suppresses what is in flight from each route until that route has acked the SUB. Returns whether it
    /// is the first; then [`ask_all`](Self::ask_all) is called behind it.
    pub(crate) fn suppress_in_flight(&mut self, client: &Outbox, interest: &Interest) -> bool {
        let is_first = !std::mem::replace(&mut self.has_subscribed, true);
        if is_first && !interest.links.load().is_empty() {
            client.watermark.store(interest.next_change(), Relaxed);
        }
        is_first
    }

    /// Asks all routes about the client's last change, also those that are not waited for: messages behind their acks are for the client.
    pub(crate) fn ask_all(&self, interest: &Interest, stage: &mut Stage) {
        let links = interest.links.load();
        if let Some(change) = self.changed.filter(|_| !links.is_empty()) {
            interest.announce_all();
            links.iter().for_each(|link| ask(link, change, stage));
        }
    }

    /// Records a change of the client's interest.
    pub(crate) const fn changed(&mut self, change: u64) {
        self.changed = Some(change);
    }

    /// Answers the client's PING, or has the PONG wait.
    pub(crate) fn ping(
        &mut self,
        client: &Arc<Outbox>,
        flush: &Flush,
        interest: &Interest,
        stage: &mut Stage,
    ) {
        let changed = self.changed.take();
        let in_flight = flush.is_draining.load(Relaxed).then(|| interest.next_change());
        match in_flight.or(changed) {
            Some(change) if !is_acked(&interest.links, change) => {
                self.waits_for = Some(change);
                interest.announce_all();
                flush.ask(change, client, &interest.links, stage);
            }
            _ => pong(client, stage),
        }
    }

    /// Returns whether the PONG waits. Meanwhile no input of the client is processed.
    pub(crate) const fn is_begun(&self) -> bool {
        self.waits_for.is_some()
    }

    /// Returns when the wait ends, acked or not.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Returns whether the PONG has to wait longer. If not, it is sent by [`go_on`](Self::go_on) in the client's next turn.
    pub(crate) fn is_waiting(
        &mut self,
        client: &Outbox,
        timeout: Duration,
        flush: &Flush,
        links: &Links,
        now: Instant,
    ) -> bool {
        let Some(change) = self.waits_for else {
            return false;
        };
        let until = *self.until.get_or_insert_with(|| now + timeout);
        if !is_acked(links, change) {
            if now < until {
                return true;
            }
            flush.give_up(change, timeout, links);
        }
        flush.forget(change, client);
        self.until = None;
        false
    }

    /// Sends the PONG that waited, if one did.
    pub(crate) fn go_on(&mut self, client: &Arc<Outbox>, stage: &mut Stage) {
        if self.waits_for.take().is_some() {
            pong(client, stage);
        }
    }

    /// Ends the wait because the client ends.
    pub(crate) fn end(&mut self, client: &Outbox, flush: &Flush) {
        if let Some(change) = self.waits_for.take() {
            flush.forget(change, client);
        }
    }
}

/// Sends PONG. From here on the client gets all messages, also of routes that have not acked in time.
fn pong(client: &Arc<Outbox>, stage: &mut Stage) {
    client.watermark.store(0, Relaxed);
    stage.of(client).bytes.extend_from_slice(encode::PONG);
}

/// State of the acks between this node and one peer.
#[derive(Debug)]
pub(crate) struct PeerFlush {
    /// The last change that the peer has asked about and that is not acked yet.
    owed: Option<u64>,
    /// The stages that were split when it asked.
    splits: Vec<(usize, u64)>,
    /// A PONG may be on the stage still.
    is_staged: bool,
    /// The last change that the peer has acked, or that was before there was this route.
    acked: u64,
}

impl PeerFlush {
    /// For a route that [stands](Interest::add_link).
    pub(crate) fn new(interest: &Interest) -> Self {
        Self {
            owed: None,
            splits: Vec::new(),
            is_staged: false,
            acked: interest.local.changes(),
        }
    }

    /// Takes the peer's PING.
    pub(crate) fn asked(&mut self, change: u64, flush: &Flush, stage: &mut Stage) {
        self.owed = self.owed.max(Some(change));
        stage.mend();
        flush.note_splits(&mut self.splits);
    }

    /// Acks the peer's last PING, and with it those before, as soon as that may be. Returns whether nothing is owed; what comes
    /// behind the PING waits until then.
    pub(crate) fn ack(&mut self, link: &Link, flush: &Flush, stage: &mut Stage) -> bool {
        if let Some(change) = self.owed
            && flush.are_mended(&self.splits)
        {
            self.owed = None;
            frame::put_pong(&mut stage.of(&link.outbox).bytes, change);
            self.is_staged = true;
        }
        !self.is_owed()
    }

    /// Returns whether an ack is owed. Further turns are wanted until it is given.
    pub(crate) const fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// Takes the peer's PONG.
    pub(crate) fn acked(
        &mut self,
        change: u64,
        link: &Link,
        flush: &Flush,
        interest: &Interest,
        stage: &mut Stage,
    ) {
        if flush.is_draining.load(Relaxed) {
            // A client that waits for it goes on behind all that came before it.
            stage.flush();
        }
        self.acked = self.acked.max(change);
        flush.acked(link, change, &interest.links);
    }

    /// Before a message of the peer: sends staged acks. Returns the last change that the peer has acked.
    #[inline]
    pub(crate) fn before_message(&mut self, stage: &mut Stage) -> u64 {
        if std::mem::take(&mut self.is_staged) {
            stage.flush();
        }
        self.acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Wire;
    use crate::route::hello::Hello;
    use crate::subscription::Subscription;

    #[test]
    fn a_link_that_was_late_is_waited_for_again_once_it_has_answered_also_while_new_clients_ask() {
        let (flush, links, mut stage) = (Flush::default(), Links::default(), Stage::new(0));
        let address = ([127, 0, 0, 1], 6222).into();
        let outbox = Arc::new(Outbox::unconnected(1));
        let link = Arc::new(Link::new(1, outbox, Hello::default(), address, true));
        links.insert(&link);
        link.set_told_all();
        let client = Arc::new(Outbox::unconnected(2));
        flush.ask(5, &client, &links, &mut stage);
        assert!(!is_acked(&links, 5));
        flush.give_up(5, Duration::from_secs(1), &links);
        assert!(is_acked(&links, 5), "nobody waits for it");
        ask(&link, 8, &mut stage);
        flush.acked(&link, 4, &links);
        assert!(is_acked(&links, 8), "it is still late");
        flush.acked(&link, 5, &links);
        assert!(!is_acked(&links, 8), "it is waited for again");
        flush.acked(&link, 8, &links);
        assert!(is_acked(&links, 8));
    }

    #[test]
    fn a_ping_goes_behind_the_change_that_another_client_has_made_and_not_announced_yet() {
        let (flush, interest, wire) = (Flush::default(), Interest::new(), Wire::default());
        let outbox = Arc::new(Outbox::on_wire(1, 1, &wire));
        let address = ([127, 0, 0, 1], 6222).into();
        let link = Arc::new(Link::new(1, outbox, Hello::default(), address, true));
        interest.add_link(&link);
        link.set_told_all();
        let [one, other] = [2, 3].map(|id| {
            let client = Arc::new(Outbox::unconnected(id));
            Arc::new(Subscription::new(client, b"a", None, b"1"))
        });
        // As a thread has it that was stopped between the two steps of a SUB.
        interest.local.add(&one);
        let (mut stage, mut client) = (Stage::new(0), ClientFlush::default());
        let recorded = interest.subscribe(&other);
        client.changed(recorded.change);
        client.ping(&other.client, &flush, &interest, &mut stage);
        assert!(client.is_begun());
        stage.flush();
        let mut expected = Vec::new();
        frame::put_interest(&mut expected, b"a", None, 1);
        frame::put_ping(&mut expected, recorded.change);
        let sent = std::mem::take(&mut *wire.lock().unwrap());
        let sent: Vec<u8> = sent.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(sent, expected);
    }
}
