//! The cluster-wide flush, and the rule that a client that moves between nodes gets no message twice.
//!
//! *Flush.* A client's PONG waits until every route has acked all changes of interest that the client made before its PING. So after
//! SUB, PING and PONG, a message published on any node reaches the client. To ask for an ack, a node first sends all changes of all
//! clients, then PING with the number of the last change. The peer's PONG with this number acks all of them. So one ack serves all
//! clients that wait for it or for an earlier one.
//!
//! *Routes that are not waited for:*
//!
//! - A route that is closing.
//! - A route to a peer that still joins. The peer has no clients yet that could publish, and it will know the complete interest before
//!   it accepts any. (A peer that serves clients is waited for, even while the complete interest is being sent to it.)
//! - A route that did not ack within `flush_timeout`. The waiting clients continue without it. It is waited for again once it has
//!   acked the last change about which it was asked before the timeout.
//!
//! *A client that moves gets no message twice.* The client may have been on another node before, and may have received there messages
//! that are still in flight to this node. So before the client's first SUB, its watermark is set to the number of a new change, and
//! all routes are asked to ack the change of the SUB. From each route, the client gets only messages that follow the ack of the
//! watermark. The client's PONG, which waits for the acks, clears the watermark, even if a route has not acked in time: a duplicate is
//! better than a loss. Members of queue groups are exempt, because a message for a group goes to one node only.
//!
//! *Acks that this node owes.* When a peer's PING arrives, this node may already have sent some copies of a message to other nodes or to
//! local clients. The PONG to the peer must follow the peer's copy of each such message. Two cases could violate this order:
//!
//! - A worker flushes its batch client by client. When the PING arrives, a batch may have been sent to some of its clients and not to
//!   others. The ack, and the frames after the PING, wait until each such batch is sent completely.
//! - A PONG is staged like other bytes. Staged PONGs are sent before a message of the same peer is delivered, because the receiver of
//!   the message may answer at once.
//!
//! *A node that drains.* Each PONG of a client waits for all routes, even if the client has changed nothing. So the messages that other
//! nodes had sent before have arrived, and a client that leaves after its PONG misses none of them.

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
use crate::moving::{MOVING, Source};
use crate::outbox::Outbox;
use crate::route::Route;
use crate::route::frame;
use crate::route::routes::Routes;
use crate::stage::{Split, Stage};

/// Flushes of all clients of this node.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    /// Clients whose PONG waits, by the change that is to be acked and the client's number.
    waiting: Mutex<BTreeMap<(u64, u64), Arc<Outbox>>>,
    is_draining: AtomicBool,
    /// The split counter of each worker's stage.
    splits: ArcSwap<Vec<Split>>,
    given_up: AtomicU64,
}

impl Flush {
    /// Adds the stage of a worker. Acks to peers wait while it is split.
    pub(crate) fn add_stage(&self, stage: &Stage) {
        self.splits.rcu(|splits| {
            let mut splits = Vec::clone(splits);
            splits.push(Arc::clone(stage.split()));
            splits
        });
    }

    /// Makes each client's PONG wait for all routes from now on.
    pub(crate) fn set_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Returns how often a flush was given up because a route did not ack in time.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// Wakes the clients that have nothing more to wait for. To be called when a route has ended.
    pub(crate) fn wake(&self, routes: &Routes) {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.first_entry()
            && is_acked(routes, first.key().0)
        {
            first.remove().wake();
        }
    }

    /// Records the peer's ack of all changes up to `change`.
    fn acked(&self, route: &Route, change: u64, routes: &Routes) {
        let acks = &route.acks;
        if change >= acks.late.load(Relaxed) {
            acks.late.store(0, Relaxed);
        }
        if change > 0 && acks.acked.fetch_max(change, SeqCst) < change {
            self.wake(routes);
        }
    }

    /// Asks the routes that have not acked this change, and registers `client` to be woken when all have. The caller must then check the
    /// acks once more, because the last ack may have arrived before the registration.
    fn ask(&self, change: u64, client: &Arc<Outbox>, routes: &Routes, stage: &mut Stage) {
        for route in routes.load().iter().filter(|route| !has_acked(route, change)) {
            ask(route, change, stage);
        }
        self.waiting().insert((change, client.id), Arc::clone(client));
    }

    fn forget(&self, change: u64, client: &Outbox) {
        self.waiting().remove(&(change, client.id));
    }

    /// Stops waiting for the routes that have not acked this change in time.
    fn give_up(&self, change: u64, after: Duration, routes: &Routes) {
        self.given_up.fetch_add(1, Relaxed);
        for route in routes.load().iter().filter(|route| !has_acked(route, change)) {
            let acks = &route.acks;
            if acks.late.swap(acks.asked.load(SeqCst).max(change), Relaxed) == 0 {
                warn!(
                    peer = route.peer.id,
                    address = %route.address,
                    "the peer did not confirm a change of interest within {after:?}; clients do not wait for it until it answers"
                );
            }
        }
        self.wake(routes);
    }

    /// Notes the stages that are split now, with their split counters.
    fn note_splits(&self, noted: &mut Vec<(usize, u64)>) {
        let splits = self.splits.load();
        let counts = splits.iter().map(|split| split.load(Acquire)).enumerate();
        noted.clear();
        noted.extend(counts.filter(|(_, count)| count & 1 == 1));
    }

    /// Returns whether each noted stage has completely sent the batch that was partly sent when it was noted.
    fn are_finished(&self, noted: &[(usize, u64)]) -> bool {
        let splits = self.splits.load();
        let mut noted = noted.iter();
        noted.all(|(stage, count)| splits[*stage].load(Acquire) != *count)
    }

    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting().len()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Arc<Outbox>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the peer to ack this change, unless a client of any worker has asked for this ack or a later one.
fn ask(route: &Route, change: u64, stage: &mut Stage) {
    if route.acks.asked.load(SeqCst) < change {
        ask_before_what_follows(route, change, stage);
    }
}

/// Asks the peer to ack this change before it gets anything that this worker stages later. The PING of another worker would not do: that
/// worker may still have it on its stage. Does nothing while the complete interest is being sent to the peer, because a PING follows it.
fn ask_before_what_follows(route: &Route, change: u64, stage: &mut Stage) {
    if route.acks.snapshot_sent.load(SeqCst) {
        route.acks.asked.fetch_max(change, SeqCst);
        frame::put_token(&mut stage.of(&route.outbox).bytes, frame::PING, change);
    }
}

/// Returns whether clients wait for this route's acks.
pub(crate) fn is_waited_for(route: &Route) -> bool {
    let joined = route.acks.snapshot_sent.load(SeqCst) || route.serving.load(Relaxed);
    joined && route.acks.late.load(Relaxed) == 0 && route.outbox.reason().is_none()
}

fn has_acked(route: &Route, change: u64) -> bool {
    route.acks.acked.load(SeqCst) >= change || !is_waited_for(route)
}

fn is_acked(routes: &Routes, change: u64) -> bool {
    routes.load().iter().all(|route| has_acked(route, change))
}

/// Returns whether this client gets messages of this source: see *A client that moves* above, and [`moves`](crate::moves).
#[inline]
pub(crate) fn admits(client: &Outbox, source: Source) -> bool {
    let watermark = client.watermark.load(Relaxed);
    watermark <= source.acked() || watermark == MOVING && admits_moving(client, source)
}

/// Returns whether a member of a queue group may get a message of this source: if it has just moved here, only if the message was sent after
/// all messages of the source that the member has got on its former node.
#[inline]
pub(crate) fn is_in_order(member: &Outbox, source: Source) -> bool {
    member.watermark.load(Relaxed) != MOVING || admits_moving(member, source)
}

#[cold]
fn admits_moving(client: &Outbox, source: Source) -> bool {
    client.moving().is_none_or(|moving| moving.admits(source))
}

/// Asks all routes to ack this change, before anything that this worker stages later.
pub(crate) fn ask_all(change: u64, interest: &Interest, stage: &mut Stage) {
    let routes = interest.routes.load();
    routes
        .iter()
        .for_each(|route| ask_before_what_follows(route, change, stage));
}

/// State of one client's flush.
#[derive(Debug, Default)]
pub(crate) struct ClientFlush {
    has_subscribed: bool,
    /// The number of the client's last change, or of a later one of any client.
    last_change: u64,
    /// Set if other nodes may not know the client's last change yet: the number of this change, or of a later one of any client, whose
    /// ack covers it.
    changed: Option<u64>,
    /// The change for whose acks the PONG waits.
    waits_for: Option<u64>,
    /// Time limit of that wait.
    until: Option<Instant>,
}

impl ClientFlush {
    /// Called before each SUB. Before the client's first SUB, sets the watermark: messages in flight on a route are suppressed until that
    /// route has acked the watermark. Returns whether the SUB is the first. If so, the caller calls [`ask_all`](Self::ask_all) after it.
    pub(crate) fn suppress_in_flight(&mut self, client: &Outbox, interest: &Interest) -> bool {
        let is_first = !std::mem::replace(&mut self.has_subscribed, true);
        let is_moving = client.watermark.load(Relaxed) == MOVING;
        if is_first && !is_moving && !interest.routes.load().is_empty() {
            client.watermark.store(interest.next_change(), Relaxed);
        }
        is_first
    }

    /// Asks all routes to ack the client's last change, before any message that the client publishes next: the answer to such a message
    /// must follow the ack, or it is suppressed. Also asks the routes that are not waited for, because the client gets only messages that
    /// follow their acks.
    pub(crate) fn ask_all(&self, interest: &Interest, stage: &mut Stage) {
        let has_routes = !interest.routes.load().is_empty();
        if let Some(change) = self.changed.filter(|_| has_routes) {
            interest.announce_all();
            ask_all(change, interest, stage);
        }
    }

    pub(crate) const fn changed(&mut self, change: u64) {
        self.changed = Some(change);
        self.last_change = change;
    }

    /// Returns whether every node that may serve clients has acked all changes of the client.
    pub(crate) fn is_known_everywhere(&self, routes: &Routes) -> bool {
        routes.load().iter().all(|route| {
            let acks = &route.acks;
            let joins = !acks.snapshot_sent.load(SeqCst) && !route.serving.load(Relaxed);
            joins || acks.acked.load(SeqCst) >= self.last_change
        })
    }

    /// Returns whether the client has subscribed.
    pub(crate) const fn has_subscribed(&self) -> bool {
        self.has_subscribed
    }

    /// Handles the client's PING: sends the PONG, or lets it wait for the acks.
    pub(crate) fn ping(
        &mut self,
        client: &Arc<Outbox>,
        flush: &Flush,
        interest: &Interest,
        stage: &mut Stage,
    ) {
        let changed = self.changed.take();
        let barrier = flush.is_draining.load(Relaxed).then(|| interest.next_change());
        match barrier.or(changed) {
            Some(change) if !is_acked(&interest.routes, change) => {
                self.waits_for = Some(change);
                interest.announce_all();
                flush.ask(change, client, &interest.routes, stage);
            }
            _ => pong(client, stage),
        }
    }

    /// Returns whether the PONG waits. Meanwhile no input of the client is processed.
    pub(crate) const fn is_started(&self) -> bool {
        self.waits_for.is_some()
    }

    /// Returns the time limit if the PONG has to wait longer. If not, [`send_pong`](Self::send_pong) sends the PONG in the client's next
    /// turn.
    pub(crate) fn waits_until(
        &mut self,
        client: &Outbox,
        timeout: Duration,
        flush: &Flush,
        routes: &Routes,
        now: Instant,
    ) -> Option<Instant> {
        let change = self.waits_for?;
        let until = *self.until.get_or_insert_with(|| now + timeout);
        if !is_acked(routes, change) {
            if now < until {
                return Some(until);
            }
            flush.give_up(change, timeout, routes);
        }
        flush.forget(change, client);
        self.until = None;
        None
    }

    pub(crate) fn send_pong(&mut self, client: &Arc<Outbox>, stage: &mut Stage) {
        if self.waits_for.take().is_some() {
            pong(client, stage);
        }
    }

    pub(crate) fn end(&mut self, client: &Outbox, flush: &Flush) {
        if let Some(change) = self.waits_for.take() {
            flush.forget(change, client);
        }
    }
}

/// Sends PONG, and clears the client's watermark. From now on the client also gets messages of routes that have not acked in time.
fn pong(client: &Arc<Outbox>, stage: &mut Stage) {
    if client.watermark.load(Relaxed) != MOVING {
        client.watermark.store(0, Relaxed);
    }
    stage.of(client).bytes.extend_from_slice(encode::PONG);
}

/// State of the acks between this node and one peer.
#[derive(Debug)]
pub(crate) struct PeerFlush {
    /// The last change that the peer has asked about and that is not acked yet.
    owed: Option<u64>,
    /// The stages that were split when the peer's last PING arrived.
    splits: Vec<(usize, u64)>,
    /// A PONG may still be on the stage.
    is_staged: bool,
    /// The last change that the peer has acked; at first, the last change before this route.
    acked: u64,
}

impl PeerFlush {
    /// Creates the state of a route that [was added](Interest::add_route).
    pub(crate) fn new(interest: &Interest) -> Self {
        Self {
            owed: None,
            splits: Vec::new(),
            is_staged: false,
            acked: interest.local.changes(),
        }
    }

    pub(crate) fn peer_pinged(&mut self, change: u64, flush: &Flush, stage: &mut Stage) {
        self.owed = self.owed.max(Some(change));
        stage.finish_split();
        flush.note_splits(&mut self.splits);
    }

    /// Acks the peer's last PING, and thereby all earlier ones, once all noted stages have sent their batches. Returns whether no ack is
    /// owed. Frames after the PING wait until then.
    pub(crate) fn ack(&mut self, route: &Route, flush: &Flush, stage: &mut Stage) -> bool {
        if let Some(change) = self.owed
            && flush.are_finished(&self.splits)
        {
            self.owed = None;
            frame::put_token(&mut stage.of(&route.outbox).bytes, frame::PONG, change);
            self.is_staged = true;
        }
        !self.is_owed()
    }

    /// Returns whether an ack is owed. The route needs further turns until it is sent.
    pub(crate) const fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    pub(crate) fn acked(
        &mut self,
        change: u64,
        route: &Route,
        flush: &Flush,
        interest: &Interest,
        stage: &mut Stage,
    ) {
        if flush.is_draining.load(Relaxed) {
            // Messages that arrived before the ack are sent before the PONG of a client that waits for it.
            stage.flush();
        }
        self.acked = self.acked.max(change);
        flush.acked(route, change, &interest.routes);
    }

    /// Sends staged acks. Called before each message of the peer. Returns the last change that the peer has acked.
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
    fn clients_wait_for_a_late_route_again_once_it_has_acked_what_it_was_asked_before_the_timeout() {
        let (flush, routes, mut stage) = (Flush::default(), Routes::default(), Stage::new(0));
        let address = ([127, 0, 0, 1], 6222).into();
        let outbox = Arc::new(Outbox::unconnected(1));
        let route = Arc::new(Route::new(1, outbox, Hello::default(), address, None));
        routes.insert(&route);
        route.set_snapshot_sent();
        let client = Arc::new(Outbox::unconnected(2));
        flush.ask(5, &client, &routes, &mut stage);
        assert!(!is_acked(&routes, 5));
        flush.give_up(5, Duration::from_secs(1), &routes);
        assert!(is_acked(&routes, 5), "no client waits for the late route");
        ask(&route, 8, &mut stage);
        flush.acked(&route, 4, &routes);
        assert!(is_acked(&routes, 8), "the route is still late");
        flush.acked(&route, 5, &routes);
        assert!(!is_acked(&routes, 8), "clients wait for the route again");
        flush.acked(&route, 8, &routes);
        assert!(is_acked(&routes, 8));
    }

    #[test]
    fn a_clients_first_sub_asks_for_acks_although_the_ping_of_another_worker_is_not_sent_yet() {
        let (interest, wire) = (Interest::new(), Wire::default());
        let outbox = Arc::new(Outbox::on_wire(1, 2, &wire));
        let address = ([127, 0, 0, 1], 6222).into();
        let route = Arc::new(Route::new(1, outbox, Hello::default(), address, None));
        interest.add_route(&route);
        route.set_snapshot_sent();
        let mut flushes = [2, 3].map(|id| {
            let client = Arc::new(Outbox::unconnected(id));
            let mut flush = ClientFlush::default();
            assert!(flush.suppress_in_flight(&client, &interest));
            let subscription = Arc::new(Subscription::new(client, b"a", None, b"1"));
            flush.changed(interest.subscribe(&subscription).change);
            flush
        });
        let [first, second] = &mut flushes;
        let mut stages = [Stage::new(0), Stage::new(1)];
        second.ask_all(&interest, &mut stages[1]);
        first.ask_all(&interest, &mut stages[0]);
        stages[0].flush();
        let mut ping = Vec::new();
        frame::put_token(&mut ping, frame::PING, first.changed.unwrap());
        let sent = std::mem::take(&mut *wire.lock().unwrap());
        let sent: Vec<u8> = sent.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(
            sent.ends_with(&ping),
            "a request would overtake the PING: {sent:?}"
        );
    }

    #[test]
    fn a_ping_waits_for_a_change_that_another_client_made_and_that_is_not_announced_yet() {
        let (flush, interest, wire) = (Flush::default(), Interest::new(), Wire::default());
        let outbox = Arc::new(Outbox::on_wire(1, 1, &wire));
        let address = ([127, 0, 0, 1], 6222).into();
        let route = Arc::new(Route::new(1, outbox, Hello::default(), address, None));
        interest.add_route(&route);
        route.set_snapshot_sent();
        let [one, other] = [2, 3].map(|id| {
            let client = Arc::new(Outbox::unconnected(id));
            Arc::new(Subscription::new(client, b"a", None, b"1"))
        });
        // Another thread has recorded this SUB, and has not announced it yet.
        interest.local.add(&one);
        let (mut stage, mut client) = (Stage::new(0), ClientFlush::default());
        let recorded = interest.subscribe(&other);
        client.changed(recorded.change);
        client.ping(&other.client, &flush, &interest, &mut stage);
        assert!(client.is_started());
        stage.flush();
        let mut expected = Vec::new();
        frame::put_interest(&mut expected, b"a", None, Some(1));
        frame::put_token(&mut expected, frame::PING, recorded.change);
        let sent = std::mem::take(&mut *wire.lock().unwrap());
        let sent: Vec<u8> = sent.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(sent, expected);
    }
}
