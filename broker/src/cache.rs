//! What a worker remembers of who gets the messages to a subject.
//!
//! An entry holds as long as the subject's counters stand still ([`Generations`](crate::generations::Generations)). Subjects seen once are not remembered:
//! each request has a reply subject of its own, and they would push out those that come again.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::generations::Watched;
use crate::subscriptions::{Matched, Subscriptions};

/// Subjects remembered by one worker at most; above it all are forgotten and those in use come back at once.
const ENTRIES_MAX: usize = 16 * 1024;
/// Traces kept of subjects that were seen once.
const TRACES: usize = 8 * 1024;

#[derive(Debug)]
struct Entry {
    subject: Box<[u8]>,
    found: Found,
}

/// What was found for a subject, and how to tell whether it still holds.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) matched: Arc<Matched>,
    watched: Watched,
    sum: u64,
}

impl Found {
    /// Whether it still holds.
    #[inline]
    pub(crate) fn holds(&self, all: &Subscriptions) -> bool {
        all.generations().sum(self.watched) == self.sum
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashTable<Entry>,
    traces: Box<[u32]>,
    hasher: FixedState,
    /// Look-ups, and those that were answered from memory, since last asked.
    total: u64,
    hits: u64,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            entries: HashTable::new(),
            traces: vec![0; TRACES].into(),
            hasher: FixedState::with_seed(0xcace),
            total: 0,
            hits: 0,
        }
    }

    /// Look-ups, and those answered from memory, since last asked.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.total), std::mem::take(&mut self.hits))
    }

    /// Who gets a message published to `subject`.
    pub(crate) fn find(&mut self, subject: &[u8], all: &Subscriptions) -> Found {
        self.total += 1;
        let hash = self.hasher.hash_one(subject);
        let entry = self.entries.find_mut(hash, |entry| *entry.subject == *subject);
        if let Some(entry) = entry {
            if entry.found.holds(all) {
                self.hits += 1;
            } else {
                entry.found = look_up(subject, all);
            }
            return entry.found.clone();
        }
        let found = look_up(subject, all);
        let trace = &mut self.traces[hash as usize % TRACES];
        let tag = (hash >> 32) as u32 | 1;
        if *trace == tag {
            self.remember(hash, subject, found.clone());
        } else {
            *trace = tag;
        }
        found
    }

    fn remember(&mut self, hash: u64, subject: &[u8], found: Found) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.clear();
        }
        let entry = Entry {
            subject: subject.into(),
            found,
        };
        let hasher = &self.hasher;
        self.entries
            .insert_unique(hash, entry, |entry| hasher.hash_one(&*entry.subject));
    }
}

/// The counters are read before the look-up: a change during it then makes it count as old, never as new.
fn look_up(subject: &[u8], all: &Subscriptions) -> Found {
    let watched = all.generations().watched(subject);
    let sum = all.generations().sum(watched);
    let mut matched = Matched::default();
    all.collect(subject, &mut matched);
    Found {
        matched: Arc::new(matched),
        watched,
        sum,
    }
}
