//! The established routes, and the totals of all routes since the start.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::Route;
use crate::close_reason::{CloseReason, KINDS};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteTotals {
    /// Routes established since the start.
    pub(crate) routes: u64,
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) raw_bytes_in: u64,
    pub(crate) undelivered: u64,
    /// Routes that ended, by the index of the reason in [`KINDS`].
    pub(crate) ended: [u64; KINDS.len()],
    /// Bytes that were pending when routes ended.
    pub(crate) unsent_bytes: u64,
}

impl RouteTotals {
    fn add(&mut self, route: &Route) {
        self.messages_in += route.stats.messages_in.load(Relaxed);
        self.bytes_in += route.stats.bytes_in.load(Relaxed);
        self.messages_out += route.outbox.messages_out.load(Relaxed);
        self.bytes_out += route.outbox.bytes_out.load(Relaxed);
        self.raw_bytes_in += route.raw_bytes_in.load(Relaxed);
        self.undelivered += route.undelivered.load(Relaxed);
    }
}

/// The established routes, and the totals of the routes that ended.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Totals of the routes that ended. Only the field `routes` also counts the established ones.
    past: Mutex<RouteTotals>,
    list: ArcSwap<Vec<Arc<Route>>>,
}

impl Routes {
    pub(crate) fn load(&self) -> Guard<Arc<Vec<Arc<Route>>>> {
        self.list.load()
    }

    /// Like [`load`](Self::load), for callers that keep the list for longer.
    pub(crate) fn load_full(&self) -> Arc<Vec<Arc<Route>>> {
        self.list.load_full()
    }

    /// Returns the route to the node with this run, if it is not closing.
    pub(crate) fn with_run(&self, run: &str) -> Option<Arc<Route>> {
        let routes = self.load();
        let mut open = routes.iter().filter(|route| route.outbox.reason().is_none());
        open.find(|route| route.peer.run == run).cloned()
    }

    pub(crate) fn insert(&self, route: &Arc<Route>) {
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push(Arc::clone(route));
            list
        });
        self.past().routes += 1;
    }

    /// Removes a route. Returns whether it was in the list.
    pub(crate) fn remove(&self, route: &Route) -> bool {
        // Locked while the list changes, so that `totals` counts each route exactly once.
        let mut past = self.past();
        let before = self.list.rcu(|list| {
            let others = list.iter().filter(|known| known.number != route.number);
            others.cloned().collect::<Vec<_>>()
        });
        let was_there = before.iter().any(|known| known.number == route.number);
        if was_there {
            past.add(route);
        }
        was_there
    }

    /// Counts a route that has ended, and its unsent bytes.
    pub(crate) fn ended(&self, reason: CloseReason, unsent_bytes: usize) {
        let mut past = self.past();
        past.ended[reason.kind()] += 1;
        past.unsent_bytes += unsent_bytes as u64;
    }

    pub(crate) fn totals(&self) -> RouteTotals {
        let past = self.past();
        let mut totals = *past;
        self.load().iter().for_each(|route| totals.add(route));
        totals
    }

    fn past(&self) -> MutexGuard<'_, RouteTotals> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::route::hello::Hello;

    #[test]
    fn totals_never_decrease_while_routes_end() {
        let routes = Routes::default();
        let begin_and_end = |number| {
            let outbox = Arc::new(Outbox::unconnected(number));
            let address = ([127, 0, 0, 1], 6222).into();
            let route = Arc::new(Route::new(number, outbox, Hello::default(), address, None));
            route.stats.messages_in.store(1, Relaxed);
            routes.insert(&route);
            routes.remove(&route);
        };
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| (0..20_000).for_each(begin_and_end));
            let mut last = 0;
            while !ending.is_finished() {
                let now = routes.totals().messages_in;
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
    }
}
