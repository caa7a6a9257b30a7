//! State of a client that moves, for the delivery of its messages: which of them this node delivers. The steps and the rules of a move
//! are in [`moves`](crate::moves).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use standin_wire::MoveId;

/// [Watermark](crate::outbox::Outbox::watermark) of a client that moves: [`Moving::admits`] decides about each message.
pub(crate) const MOVING: u64 = u64::MAX;

/// The source of a message: the worker that published it, here or on another node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// This worker of this node.
    Own(usize),
    Route {
        /// Number of the route.
        number: u64,
        /// Worker of the other node.
        worker: usize,
        /// The last change that the route acked before the message.
        acked: u64,
    },
}

impl Source {
    /// Returns the last change that the source acked before the message; less than [`MOVING`].
    #[inline]
    pub(crate) const fn acked(self) -> u64 {
        match self {
            Self::Own(_) => MOVING - 1,
            Self::Route { acked, .. } => acked,
        }
    }
}

/// State of a client that moves, for the delivery of its messages.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) id: MoveId,
    pub(crate) is_arrival: bool,
    cut: Mutex<CutState>,
}

/// The sources that have made the cut of one move.
#[derive(Debug)]
pub(crate) struct CutState {
    /// The workers of this node.
    pub(crate) own: Vec<bool>,
    /// The workers of other nodes, by number of the route.
    pub(crate) routes: HashMap<u64, Vec<bool>>,
    /// The cut has begun, as far as this node knows.
    pub(crate) has_begun: bool,
    /// If the client arrives: the change after whose ack a source is admitted without a mark. Set by `go`.
    pub(crate) barrier: Option<u64>,
}

impl CutState {
    /// Returns whether messages of this source are after the cut.
    fn is_after(&self, source: Source) -> bool {
        match source {
            Source::Own(worker) => self.own.get(worker).is_some_and(|made| *made),
            Source::Route { number, worker, .. } => {
                let route = self.routes.get(&number);
                route.and_then(|made| made.get(worker)).is_some_and(|made| *made)
            }
        }
    }

    /// Returns whether every source has made the cut.
    pub(crate) fn is_complete(&self) -> bool {
        let mut all = self.own.iter().chain(self.routes.values().flatten());
        all.all(|made| *made)
    }

    /// Adds a route to a peer with this number of workers, none of which has made the cut.
    pub(crate) fn add_route(&mut self, number: u64, workers: usize) {
        self.routes.insert(number, vec![false; workers]);
    }

    /// Records that a worker of the peer, which has this number of workers, has made the cut.
    pub(crate) fn mark(&mut self, number: u64, workers: usize, worker: usize) {
        let made = self.routes.entry(number).or_insert_with(|| vec![false; workers]);
        if let Some(made) = made.get_mut(worker) {
            *made = true;
        }
    }

    /// Returns whether all workers of the peer have made the cut.
    pub(crate) fn is_marked(&self, number: u64) -> bool {
        let made = self.routes.get(&number);
        made.is_some_and(|made| made.iter().all(|made| *made))
    }
}

impl Moving {
    pub(crate) fn new(id: MoveId, is_arrival: bool, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            is_arrival,
            cut: Mutex::new(CutState {
                own: vec![false; workers],
                routes: HashMap::new(),
                has_begun: false,
                barrier: None,
            }),
        })
    }

    /// Returns whether the client arrives, and its old node may still deliver to it.
    pub(crate) fn arrives(&self) -> bool {
        self.is_arrival && self.cut().barrier.is_none()
    }

    /// Returns whether the client gets a message of this source here, if it has no queue group.
    pub(crate) fn admits(&self, source: Source) -> bool {
        let cut = self.cut();
        if !self.is_arrival {
            return !cut.is_after(source);
        }
        cut.is_after(source) || cut.barrier.is_some_and(|barrier| source.acked() >= barrier)
    }

    /// Returns the rank of the client among the members of a queue group that move, for a message of this source; the lowest is tried first.
    /// The sender chose this node for a member that it counts here. With `to_arriving` it counted none anywhere, and chose the node for a
    /// member that still arrives.
    pub(crate) fn distance(&self, source: Source, to_arriving: bool) -> u8 {
        let cut = self.cut();
        let is_counted_elsewhere = cut.is_after(source) != self.is_arrival;
        match (self.is_arrival == to_arriving, is_counted_elsewhere) {
            (true, false) => 0,
            // The source may have begun the cut.
            (true, true) if self.is_arrival && cut.has_begun => 1,
            (false, false) => 2,
            (true, true) => 3,
            (false, true) => 4,
        }
    }

    pub(crate) fn cut(&self) -> MutexGuard<'_, CutState> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
