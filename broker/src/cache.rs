//! The cache of one worker: the recipients of messages, by subject.
//!
//! An entry is valid as long as the counters of its subject do not change ([`Generations`](crate::generations::Generations)). A subject is
//! cached when it is seen for the second time. Otherwise, the reply subjects of requests, which are used once, would fill the cache.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::generations::Watched;
use crate::interest::{Interest, Recipients, Scope};

/// Number of slots that record which subjects were seen once.
const TRACES: usize = 8 * 1024;

#[derive(Debug)]
struct Entry {
    subject: Box<[u8]>,
    found: CachedRecipients,
}

/// The recipients for a subject, and the counters that show whether they are still valid.
#[derive(Debug, Clone)]
pub(crate) struct CachedRecipients {
    pub(crate) recipients: Arc<Recipients>,
    watched: Watched,
    sum: u64,
}

impl CachedRecipients {
    fn weight(&self) -> usize {
        1 + self.recipients.len()
    }

    /// Returns whether the entry is still valid.
    #[inline]
    pub(crate) fn holds(&self, interest: &Interest) -> bool {
        interest.generations().sum(self.watched) == self.sum
    }
}

/// The cache of one worker.
#[derive(Debug)]
pub(crate) struct Cache {
    scope: Scope,
    entries: HashTable<Entry>,
    /// Total weight of the entries. The weight of an entry is one, plus one for each subscription in it.
    weight: usize,
    /// Weight above which all entries are dropped. Those in use are soon cached again.
    weight_max: usize,
    traces: Box<[u32]>,
    hasher: RandomState,
    /// Numbers of look-ups and of hits since the last call of [`take_counts`](Self::take_counts).
    total: u64,
    hits: u64,
    /// Number of entries at the last call of [`take_growth`](Self::take_growth).
    known: usize,
}

impl Cache {
    /// Creates a cache with this maximum weight.
    pub(crate) fn new(scope: Scope, weight_max: usize) -> Self {
        Self {
            scope,
            entries: HashTable::new(),
            weight: 0,
            weight_max,
            traces: vec![0; TRACES].into(),
            hasher: RandomState::default(),
            total: 0,
            hits: 0,
            known: 0,
        }
    }

    /// Returns the numbers of look-ups and of hits since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.total), std::mem::take(&mut self.hits))
    }

    /// Returns the growth of the number of entries since the last call. A negative growth wraps around.
    pub(crate) fn take_growth(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.known, self.entries.len());
        (self.known as u64).wrapping_sub(before as u64)
    }

    /// Returns the recipients of a message to `subject`.
    pub(crate) fn find(&mut self, subject: &[u8], interest: &Interest) -> CachedRecipients {
        self.total += 1;
        let hash = self.hasher.hash_one(subject);
        let entry = self.entries.find_mut(hash, |entry| *entry.subject == *subject);
        if let Some(entry) = entry {
            if entry.found.holds(interest) {
                self.hits += 1;
                return entry.found.clone();
            }
            let found = look_up(subject, interest, self.scope);
            self.weight -= entry.found.weight();
            entry.found = found.clone();
            self.weight += found.weight();
            self.bound();
            return found;
        }
        let found = look_up(subject, interest, self.scope);
        let trace = &mut self.traces[hash as usize % TRACES];
        let tag = (hash >> 32) as u32 | 1;
        if *trace == tag {
            self.remember(hash, subject, found.clone());
        } else {
            *trace = tag;
        }
        found
    }

    fn remember(&mut self, hash: u64, subject: &[u8], found: CachedRecipients) {
        self.weight += found.weight();
        let entry = Entry {
            subject: subject.into(),
            found,
        };
        let hasher = &self.hasher;
        self.entries
            .insert_unique(hash, entry, |entry| hasher.hash_one(&*entry.subject));
        self.bound();
    }

    fn bound(&mut self) {
        if self.weight > self.weight_max {
            self.entries = HashTable::new();
            self.weight = 0;
        }
    }
}

/// Looks up the recipients. The counters are read before the look-up, so that a change during the look-up invalidates the entry.
fn look_up(subject: &[u8], interest: &Interest, scope: Scope) -> CachedRecipients {
    let watched = interest.generations().watched(subject);
    let sum = interest.generations().sum(watched);
    CachedRecipients {
        recipients: Arc::new(interest.recipients(subject, scope)),
        watched,
        sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::subscription::Subscription;

    #[test]
    fn what_is_remembered_is_bounded_by_its_subscriptions() {
        let all = Interest::new();
        let client = Arc::new(Outbox::unconnected(1));
        for sid in 0..100 {
            let sid = format!("{sid}");
            all.local.add(&Arc::new(Subscription::new(
                Arc::clone(&client),
                b">",
                None,
                sid.as_bytes(),
            )));
        }
        let mut cache = Cache::new(Scope::Whole, 1000);
        for number in 0..500 {
            let subject = format!("a.{number}");
            for _ in 0..3 {
                assert_eq!(cache.find(subject.as_bytes(), &all).recipients.each.len(), 100);
            }
            let weight: usize = cache.entries.iter().map(|entry| entry.found.weight()).sum();
            assert_eq!(weight, cache.weight);
            assert!(weight <= 1000, "{weight}");
        }
        let (total, hits) = cache.take_counts();
        assert_eq!(total, 1500);
        assert!(hits >= 400, "{hits} were remembered");
        let mut none = Cache::new(Scope::Whole, 0);
        (0..3).for_each(|_| drop(none.find(b"a.1", &all)));
        assert!(none.entries.is_empty());
    }
}
