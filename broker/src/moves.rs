//! Planned moves: a sidecar moves a client from one node to another, and the client misses no message, gets none twice, and gets those of
//! each publisher in order (promise S13). The frames between sidecar and broker are in [`standin_wire::moves`].
//!
//! *The cut.* The client has subscriptions on both nodes for a while, so each message for it reaches both. For each message, all nodes
//! must agree which of the two delivers it. They agree on one *cut* through the messages of the cluster (the marker of Chandy and Lamport,
//! "Distributed snapshots", 1985). For each worker of each node, the cut is one moment between two turns. In that moment the worker sends
//! all its staged output, and then a MARK to the old node and to the new one. A route keeps the order of its frames, so both nodes know
//! for each message of that worker whether it is before or after the cut. The old node delivers the messages before the cut, the new node
//! those after it. A message between nodes names its worker, because several workers share a route.
//!
//! *The steps.*
//!
//! 1. `arrive`: the new node adds the client's subscriptions. It delivers only messages after the cut, and there are none before `leave`.
//!    `ready` is sent once every node has acked the subscriptions. From here on, every message reaches the new node too.
//! 2. `leave`: the old node sends the client's last publishes, and then CUT to each node. Each worker of each node makes the cut.
//! 3. When all marks have come, nothing before the cut is in flight to the old node. It broadcasts CUT_DONE, removes the client's
//!    subscriptions, and sends `left` after the client's last message.
//! 4. `go`: the sidecar reads and writes the new node from here on. `settled` comes once each route has brought all marks, or has acked
//!    a change made after `go`. Then the client is like any other.
//!
//! *Moves at the same time.* Suppose that a publisher and its subscriber move at once. Let P be the publisher's last message on its old node,
//! and Q its first one on the new node, sent after `left`. P may be after the subscriber's cut, and Q before it. Then the subscriber would
//! get Q first. So `left` also waits for CUT_DONE of each cut that was open on the old node at `leave`. CUT_DONE never waits for anything
//! but marks, so no two moves wait for each other.
//!
//! *Late marks.* A frozen node makes its cut late. Meanwhile the sidecar sends publishes to the old node again. They are after the cut, and
//! change nothing for the client's messages. When `left` has come, the sidecar sends `leave` again, with another id. The second cut moves
//! no subscription; it only makes sure that these publishes, too, come before those on the new node.
//!
//! *Queue groups.* One node gets a message for a group, so it cannot come twice. A member that arrives is announced, but it is not counted
//! until `go`, so no other node chooses it while the client is counted on its old node. A member that leaves is withdrawn just before
//! CUT. A member that arrives or leaves gets a message only if the node has no settled member of the group. Among several, the node prefers
//! one that the sender may have counted on this node. Before the sender's mark has come, this is a guess. So if all members
//! of a group move at once, a member may get two messages in the wrong order.
//!
//! *Nodes that join.* A node that joins during a move must make the cut too, even if all others already have: the node to which the client
//! moves waits for its marks. So the old node sends CUT over each route that is established until some time after the move, and each
//! such route begins with the marks of the cuts that were made.
//!
//! *Faults.* A *source* is one worker of one node. If the mark of a source is missing, the old node may have delivered its latest messages.
//! So after `go`, the new node delivers a message of such a source only if the source had acked a change made after `go` before it sent the
//! message. By then the old node delivered nothing more. If a node dies or loses a route, messages may be lost, but none comes twice.
//!
//! *Architecture invariant:* a client that does not move costs one comparison for each message (its watermark).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use standin_wire::{Move, MoveId};

use crate::client_info::ClientInfo;
use crate::flush;
use crate::interest::Interest;
use crate::moving::Moving;
use crate::outbox::Outbox;
use crate::route::Route;
use crate::route::frame;
use crate::route::hello::MOVES;
use crate::stage::Stage;

/// Time for which a cut is known at least, unless there are too many. Much longer than a move takes.
const CUT_KEPT: Duration = Duration::from_secs(20);
/// Limit on the cuts that are known although every node has made them. A client can cause thousands in a second.
const CLOSED_CUTS_MAX: usize = 10_000;

/// A cut: the move, and the runs of the old and the new node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    id: MoveId,
    from: String,
    to: String,
}

/// A move and the run of its old node. A client chooses the number of its move, so two nodes may have the same.
type CutKey = (MoveId, String);

/// A cut that was begun. A node that joins while it is known makes it too.
#[derive(Debug)]
struct KnownCut {
    cut: Cut,
    /// The workers of this node that have made it.
    made: Vec<bool>,
    began: Instant,
}

/// A client that leaves this node.
#[derive(Debug)]
struct Leaving {
    moving: Arc<Moving>,
    client: Arc<ClientInfo>,
    /// All marks have come.
    is_complete: bool,
    /// Earlier cuts that are still open.
    waits_for: BTreeSet<CutKey>,
}

#[derive(Debug, Default)]
struct State {
    leaving: BTreeMap<MoveId, Leaving>,
    arriving: BTreeMap<MoveId, (Arc<Moving>, Arc<ClientInfo>)>,
    cuts: BTreeMap<CutKey, KnownCut>,
    /// The cuts whose CUT_DONE is expected: the route to their old node has not ended since CUT.
    open: BTreeSet<CutKey>,
    /// Time at which old cuts were last forgotten.
    cleaned: Option<Instant>,
}

impl State {
    /// Closes a cut: every worker of every node has made it, or its client is gone. No other move waits for it any more.
    fn close_cut(&mut self, key: &CutKey) {
        self.open.remove(key);
        for leaving in self.leaving.values_mut() {
            leaving.waits_for.remove(key);
        }
    }

    /// Forgets old cuts, and all closed ones if there are too many. Visits all cuts, so it is done rarely.
    fn clean(&mut self, now: Instant) {
        let is_full = self.cuts.len() - self.open.len() >= CLOSED_CUTS_MAX;
        if !is_full && self.cleaned.is_some_and(|cleaned| now < cleaned + CUT_KEPT) {
            return;
        }
        self.cleaned = Some(now);
        let Self { leaving, open, .. } = self;
        self.cuts.retain(|key, known| {
            let is_new = now < known.began + CUT_KEPT && (!is_full || open.contains(key));
            is_new || leaving.contains_key(&key.0)
        });
        self.open.retain(|key| self.cuts.contains_key(key));
    }
}

/// The cuts that one worker has yet to make.
#[derive(Debug, Default)]
struct CutQueue {
    cuts: Mutex<Vec<CutKey>>,
    task: AtomicWaker,
}

/// All moves from and to this node, and the open cuts of other nodes.
#[derive(Debug)]
pub(crate) struct Moves {
    /// Run of this node: `server_id`.
    run: String,
    state: Mutex<State>,
    queues: Box<[CutQueue]>,
    /// Number of clients that arrive.
    arriving: AtomicUsize,
}

impl Moves {
    /// Creates the moves of the node with this run and number of workers.
    pub(crate) fn new(run: &str, workers: usize) -> Self {
        Self {
            run: run.to_owned(),
            state: Mutex::default(),
            queues: (0..workers).map(|_| CutQueue::default()).collect(),
            arriving: AtomicUsize::new(0),
        }
    }

    /// Begins the arrival of `client`, before its first SUB.
    ///
    /// # Errors
    /// The reason why the client cannot arrive here.
    pub(crate) fn arrive(
        &self,
        id: MoveId,
        from: &str,
        client: &Arc<ClientInfo>,
        interest: &Interest,
    ) -> Result<(), &'static str> {
        if client.outbox.moving().is_some() {
            return Err("another move of the client is not over");
        }
        check(from, interest)?;
        let mut state = self.state();
        if state.arriving.contains_key(&id) || state.leaving.contains_key(&id) {
            return Err("the id of the move is in use");
        }
        let moving = Moving::new(id, true, self.queues.len());
        client.outbox.set_moving(Some(Arc::clone(&moving)));
        state.arriving.insert(id, (moving, Arc::clone(client)));
        self.arriving.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Handles `go`: the old node delivers nothing more. Counts the client's members of queue groups, and admits sources without a mark
    /// once they have acked the barrier.
    pub(crate) fn go(&self, client: &Outbox, interest: &Interest, stage: &mut Stage) {
        let Some(moving) = client.moving().filter(|moving| moving.is_arrival) else {
            return;
        };
        let mut state = self.state();
        let Some((_, info)) = state.arriving.get(&moving.id) else {
            return;
        };
        for member in info.subscriptions().iter().filter(|one| one.queue().is_some()) {
            interest.local.count(member);
        }
        let barrier = interest.next_change();
        {
            let mut cut = moving.cut();
            cut.own.fill(true);
            cut.barrier = Some(barrier);
        }
        flush::ask_all(barrier, interest, stage);
        self.settle(&mut state, interest);
    }

    /// Begins to move `client` to the node with the run `to`, after its last frame. If the client has left already and has published since
    /// (see *late marks*), makes a second cut after these publishes.
    ///
    /// # Errors
    /// The reason why the client must stay.
    pub(crate) fn leave(
        &self,
        id: MoveId,
        to: &str,
        client: &Arc<ClientInfo>,
        interest: &Interest,
        stage: &mut Stage,
    ) -> Result<(), &'static str> {
        check(to, interest)?;
        // The client's last publishes come before CUT.
        stage.flush();
        let mut state = self.state();
        if state.cuts.contains_key(&self.key(id)) {
            return Err("the id of the move is in use");
        }
        let is_settled = |moving: Arc<Moving>| !moving.is_arrival && !state.leaving.contains_key(&moving.id);
        if !client.outbox.moving().is_none_or(is_settled) {
            return Err("another move of the client is not over");
        }
        let moving = Moving::new(id, false, self.queues.len());
        client.outbox.set_moving(Some(Arc::clone(&moving)));
        for member in client.subscriptions().iter().filter(|one| one.queue().is_some()) {
            interest.leaving_members.add(member);
            interest.local.remove(member);
        }
        interest.local.count_members();
        interest.announce_all();
        let cut = Cut {
            id,
            from: self.run.clone(),
            to: to.to_owned(),
        };
        let (line, routes) = (frame::cut(id.0, to), interest.routes.load());
        for route in routes.iter() {
            moving.cut().add_route(route.number, route.peer.workers());
            route.send(&line);
        }
        let leaving = Leaving {
            moving,
            client: Arc::clone(client),
            is_complete: false,
            waits_for: state.open.clone(),
        };
        state.leaving.insert(id, leaving);
        self.open(&mut state, cut);
        Ok(())
    }

    /// Begins a cut here: all workers of this node will make it.
    fn open(&self, state: &mut State, cut: Cut) {
        let (id, key) = (cut.id, (cut.id, cut.from.clone()));
        let (made, began) = (vec![false; self.queues.len()], Instant::now());
        state.clean(began);
        if let Some((moving, _)) = state.arriving.get(&id) {
            moving.cut().has_begun = true;
        }
        state.cuts.insert(key.clone(), KnownCut { cut, made, began });
        state.open.insert(key.clone());
        for queue in &self.queues {
            queue.cuts().push(key.clone());
            queue.task.wake();
        }
    }

    /// Sets the waker of the task that calls [`make_cuts`](Self::make_cuts) of this worker.
    pub(crate) fn register(&self, worker: usize, waker: &Waker) {
        self.queues[worker].task.register(waker);
    }

    /// Makes the cuts that this worker has yet to make. Called between two turns.
    pub(crate) fn make_cuts(&self, worker: usize, interest: &Interest, stage: &mut Stage) {
        let cuts = std::mem::take(&mut *self.queues[worker].cuts());
        if cuts.is_empty() {
            return;
        }
        stage.flush();
        let mut state = self.state();
        for key in cuts {
            let Some(known) = state.cuts.get_mut(&key) else {
                continue;
            };
            let (id, is_own) = (key.0, key.1 == self.run);
            known.made[worker] = true;
            for run in [&known.cut.from, &known.cut.to] {
                if let Some(route) = interest.routes.with_run(run) {
                    route.send(&frame::mark(id.0, worker));
                }
            }
            let leaving = state.leaving.get(&id).filter(|_| is_own);
            let leaving = leaving.map(|leaving| &leaving.moving);
            let arriving = state.arriving.get(&id).map(|(moving, _)| moving);
            for moving in leaving.into_iter().chain(arriving) {
                moving.cut().own[worker] = true;
            }
        }
        self.complete(&mut state, interest);
    }

    /// Handles CUT of a peer.
    pub(crate) fn cut_received(&self, id: MoveId, to: &str, route: &Route) {
        let mut state = self.state();
        // The peer sends its cuts again over a new route. The route has begun with this node's marks, and CUT_DONE will come again.
        let key = (id, route.peer.run.clone());
        if state.cuts.contains_key(&key) {
            state.open.insert(key);
            return;
        }
        let cut = Cut {
            id,
            from: route.peer.run.clone(),
            to: to.to_owned(),
        };
        self.open(&mut state, cut);
    }

    /// Handles MARK of a peer's worker. All messages that came before it must have been sent to their recipients.
    pub(crate) fn marked(&self, id: MoveId, worker: usize, route: &Route, interest: &Interest) {
        let mut state = self.state();
        if let Some((moving, _)) = state.arriving.get(&id) {
            moving.cut().mark(route.number, route.peer.workers(), worker);
            self.settle(&mut state, interest);
        }
        if let Some(leaving) = state.leaving.get(&id) {
            leaving
                .moving
                .cut()
                .mark(route.number, route.peer.workers(), worker);
            self.complete(&mut state, interest);
        }
    }

    /// Handles CUT_DONE of a peer.
    pub(crate) fn cut_done(&self, id: MoveId, route: &Route, interest: &Interest) {
        let mut state = self.state();
        state.close_cut(&(id, route.peer.run.clone()));
        self.complete(&mut state, interest);
    }

    /// Handles an ack of a peer.
    pub(crate) fn acked(&self, interest: &Interest) {
        if self.arriving.load(Relaxed) > 0 {
            self.settle(&mut self.state(), interest);
        }
    }

    /// Adds an established route to `interest`. It begins with the marks of the cuts that were made here, and with the CUTs of the clients
    /// that leave or have left.
    pub(crate) fn add_route(&self, route: &Arc<Route>, interest: &Interest) {
        // Under the lock, so that each cut that a worker makes later finds the route.
        let state = self.state();
        for ((id, from), KnownCut { cut, made, .. }) in &state.cuts {
            if route.peer.run == cut.from || route.peer.run == cut.to {
                let workers = made.iter().enumerate().filter(|(_, made)| **made);
                workers.for_each(|(worker, _)| route.outbox.append(&frame::mark(id.0, worker)));
            }
            if *from != self.run {
                continue;
            }
            route.outbox.append(&frame::cut(id.0, &cut.to));
            match state.leaving.get(id).filter(|leaving| !leaving.is_complete) {
                Some(leaving) => leaving.moving.cut().add_route(route.number, route.peer.workers()),
                // All other nodes have made it, or its client is gone. So no client that leaves the peer waits for it.
                None => route.outbox.append(&frame::cut_done(id.0)),
            }
        }
        interest.add_route(route);
    }

    /// Handles the end of a route, which was removed from `interest`.
    pub(crate) fn route_ended(&self, route: &Route, interest: &Interest) {
        let mut state = self.state();
        let leaving = state.leaving.values().map(|leaving| &leaving.moving);
        let arriving = state.arriving.values().map(|(moving, _)| moving);
        for moving in leaving.chain(arriving) {
            moving.cut().routes.remove(&route.number);
        }
        // Nothing reports the end of its cuts any more.
        let is_reported = |(_, from): &CutKey| *from != route.peer.run;
        state.open.retain(is_reported);
        for leaving in state.leaving.values_mut() {
            leaving.waits_for.retain(is_reported);
        }
        self.complete(&mut state, interest);
        self.settle(&mut state, interest);
    }

    /// Forgets a client whose connection has ended.
    pub(crate) fn forget(&self, client: &Outbox, interest: &Interest) {
        let Some(moving) = client.moving() else { return };
        let mut state = self.state();
        if moving.is_arrival {
            if state.arriving.remove(&moving.id).is_some() {
                self.arriving.fetch_sub(1, Relaxed);
            }
        } else if let Some(leaving) = state.leaving.remove(&moving.id) {
            interest.leaving_members.remove_of(&leaving.client.outbox);
            if !leaving.is_complete {
                self.broadcast_done(&mut state, moving.id, interest);
                self.complete(&mut state, interest);
            }
        }
    }

    /// Broadcasts CUT_DONE for each client that leaves and whose marks have all come. Sends `left` for each one that waits for no other
    /// cut.
    fn complete(&self, state: &mut State, interest: &Interest) {
        let all = state.leaving.iter_mut();
        let marked = all.filter(|(_, leaving)| !leaving.is_complete && leaving.moving.cut().is_complete());
        let marked: Vec<MoveId> = marked
            .map(|(id, leaving)| {
                leaving.is_complete = true;
                *id
            })
            .collect();
        for id in marked {
            self.broadcast_done(state, id, interest);
        }
        let is_over = |leaving: &Leaving| leaving.is_complete && leaving.waits_for.is_empty();
        let over = state.leaving.iter().filter(|(_, leaving)| is_over(leaving));
        let over: Vec<MoveId> = over.map(|(id, _)| *id).collect();
        for leaving in over.iter().filter_map(|id| state.leaving.remove(id)) {
            leaving.release(interest);
        }
    }

    fn broadcast_done(&self, state: &mut State, id: MoveId, interest: &Interest) {
        for route in interest.routes.load().iter() {
            route.send(&frame::cut_done(id.0));
        }
        state.close_cut(&self.key(id));
    }

    /// Returns the key of a cut of a client that leaves this node.
    fn key(&self, id: MoveId) -> CutKey {
        (id, self.run.clone())
    }

    /// Ends each arrival that has got `go`, once each route has brought all marks or has acked the barrier.
    fn settle(&self, state: &mut State, interest: &Interest) {
        let routes = interest.routes.load();
        let is_settled = |moving: &Moving| {
            let cut = moving.cut();
            let Some(barrier) = cut.barrier else { return false };
            routes
                .iter()
                .all(|route| cut.is_marked(route.number) || route.acks.acked.load(Relaxed) >= barrier)
        };
        let settled = state
            .arriving
            .iter()
            .filter(|(_, (moving, _))| is_settled(moving));
        let settled: Vec<MoveId> = settled.map(|(id, _)| *id).collect();
        for (_, client) in settled.iter().filter_map(|id| state.arriving.remove(id)) {
            self.arriving.fetch_sub(1, Relaxed);
            client.outbox.set_moving(None);
            send(&client.outbox, &Move::Settled);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leaving {
    /// Removes the client's subscriptions, and tells the sidecar that no message follows.
    fn release(self, interest: &Interest) {
        let outbox = &self.client.outbox;
        interest.leaving_members.remove_of(outbox);
        let subscriptions = std::mem::take(&mut *self.client.subscriptions());
        for subscription in &subscriptions {
            interest.unsubscribe(subscription);
        }
        interest.wake_routes();
        send(outbox, &Move::Left);
    }
}

impl CutQueue {
    fn cuts(&self) -> MutexGuard<'_, Vec<CutKey>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns why no client can be moved between this node and the one with the run `other`.
fn check(other: &str, interest: &Interest) -> Result<(), &'static str> {
    let routes = interest.routes.load();
    if !routes.iter().all(|route| route.peer.has(MOVES)) {
        return Err("a node of the cluster does not know moves");
    }
    let is_open = |route: &Arc<Route>| route.peer.run == other && route.outbox.reason().is_none();
    if !routes.iter().any(is_open) {
        return Err("no route between the two nodes");
    }
    Ok(())
}

/// Sends a step to the client, after all that it was sent before.
fn send(client: &Outbox, step: &Move) {
    let mut line = Vec::new();
    step.encode(&mut line);
    client.append(&line);
    client.wake();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_forgotten_by_age_and_closed_ones_also_by_number() {
        let (mut state, began) = (State::default(), Instant::now());
        let add = |state: &mut State, id: usize| {
            let (id, from, to) = (MoveId(id as u128), "a".to_owned(), "b".to_owned());
            let cut = Cut { id, from, to };
            let key = (id, cut.from.clone());
            let made = Vec::new();
            state.cuts.insert(key.clone(), KnownCut { cut, made, began });
            key
        };
        for id in 1..CLOSED_CUTS_MAX {
            add(&mut state, id);
        }
        let open = add(&mut state, 0);
        state.open.insert(open.clone());
        state.clean(began);
        assert_eq!(state.cuts.len(), CLOSED_CUTS_MAX);
        add(&mut state, CLOSED_CUTS_MAX);
        state.clean(began);
        assert_eq!(state.cuts.keys().collect::<Vec<_>>(), [&open]);
        state.clean(began + CUT_KEPT);
        assert!(state.cuts.is_empty() && state.open.is_empty());
    }
}
