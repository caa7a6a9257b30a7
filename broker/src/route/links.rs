//! The established links, and the totals of all links since the start.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::link::Link;
use crate::closing::{KINDS, Reason};

/// Totals of all links.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkTotals {
    /// Links established since the start.
    pub(crate) links: u64,
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) raw_bytes_in: u64,
    pub(crate) undelivered: u64,
    /// Links that ended, by the index of the reason in [`KINDS`].
    pub(crate) ended: [u64; KINDS.len()],
    /// Bytes that were pending when links ended.
    pub(crate) unsent_bytes: u64,
}

impl LinkTotals {
    fn add(&mut self, link: &Link) {
        self.messages_in += link.stats.messages_in.load(Relaxed);
        self.bytes_in += link.stats.bytes_in.load(Relaxed);
        self.messages_out += link.outbox.messages_out.load(Relaxed);
        self.bytes_out += link.outbox.bytes_out.load(Relaxed);
        self.raw_bytes_in += link.raw_bytes_in.load(Relaxed);
        self.undelivered += link.undelivered.load(Relaxed);
    }
}

/// The established links, and the totals of the links that ended.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Totals of the links that ended. Only the field `links` also counts the established ones.
    past: Mutex<LinkTotals>,
    list: ArcSwap<Vec<Arc<Link>>>,
}

impl Links {
    pub(crate) fn load(&self) -> Guard<Arc<Vec<Arc<Link>>>> {
        self.list.load()
    }

    /// Like [`load`](Self::load), for callers that keep the list for longer.
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

    /// Removes a link. Returns whether it was in the list.
    pub(crate) fn remove(&self, link: &Link) -> bool {
        let before = self.list.rcu(|list| {
            let others = list.iter().filter(|known| known.number != link.number);
            others.cloned().collect::<Vec<_>>()
        });
        let was_there = before.iter().any(|known| known.number == link.number);
        if was_there {
            self.past().add(link);
        }
        was_there
    }

    /// Counts a link that has ended, and its unsent bytes.
    pub(crate) fn ended(&self, reason: Reason, unsent_bytes: usize) {
        let mut past = self.past();
        past.ended[reason.kind()] += 1;
        past.unsent_bytes += unsent_bytes as u64;
    }

    /// Returns the totals of all links, ended and established.
    pub(crate) fn totals(&self) -> LinkTotals {
        let mut totals = *self.past();
        self.load().iter().for_each(|link| totals.add(link));
        totals
    }

    fn past(&self) -> MutexGuard<'_, LinkTotals> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
