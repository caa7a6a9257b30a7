//! The links that stand, and what those that ended have had.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::link::Link;
use crate::closing::{KINDS, Reason};

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
        was_there
    }

    /// A link has ended, and so many bytes were not sent.
    pub(crate) fn ended(&self, reason: Reason, unsent_bytes: usize) {
        let mut past = self.past();
        past.ended[reason.kind()] += 1;
        past.unsent_bytes += unsent_bytes as u64;
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
}
