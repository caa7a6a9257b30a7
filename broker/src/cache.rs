//! A worker's cache of the recipients of messages, by subject.
//!
//! An entry is valid as long as the counters of its subject do not change ([`Generations`](crate::generations::Generations)). A subject is
//! cached when it is seen for the second time. Otherwise, the reply subjects of requests, which are used once, would fill the cache.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::generations::SubjectCounters;
use crate::interest::{Interest, Recipients, Scope};

/// Number of slots that record which subjects were seen once.
const SEEN_ONCE_SLOTS: usize = 8 * 1024;

#[derive(Debug)]
struct Entry {
    subject: Box<[u8]>,
    found: CachedRecipients,
}

/// The recipients for a subject. They are valid while the sum of the subject's counters is unchanged.
#[derive(Debug, Clone)]
pub(crate) struct CachedRecipients {
    pub(crate) recipients: Arc<Recipients>,
    counters: SubjectCounters,
    sum: u64,
}

impl CachedRecipients {
    fn weight(&self) -> usize {
        1 + self.recipients.len()
    }

    /// Returns whether the entry is still valid.
    #[inline]
    pub(crate) fn is_valid(&self, interest: &Interest) -> bool {
        interest.generations().sum(self.counters) == self.sum
    }
}

/// Cache of one worker for one [`Scope`].
#[derive(Debug)]
pub(crate) struct Cache {
    scope: Scope,
    entries: HashTable<Entry>,
    /// Total weight of the entries. The weight of an entry is one, plus one for each recipient in it.
    weight: usize,
    /// Weight above which all entries are dropped. Subjects in use are soon cached again.
    weight_max: usize,
    /// In each slot, part of the hash of the last subject that was seen once.
    seen_once: Box<[u32]>,
    hasher: RandomState,
    /// Numbers of lookups and of hits since the last call of [`take_counts`](Self::take_counts).
    lookups: u64,
    hits: u64,
    /// Number of entries at the last call of [`take_growth`](Self::take_growth).
    entries_before: usize,
}

impl Cache {
    /// Creates a cache with this maximum weight.
    pub(crate) fn new(scope: Scope, weight_max: usize) -> Self {
        Self {
            scope,
            entries: HashTable::new(),
            weight: 0,
            weight_max,
            seen_once: vec![0; SEEN_ONCE_SLOTS].into(),
            hasher: RandomState::default(),
            lookups: 0,
            hits: 0,
            entries_before: 0,
        }
    }

    /// Returns the numbers of lookups and of hits since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.lookups), std::mem::take(&mut self.hits))
    }

    /// Returns the growth of the number of entries since the last call. A negative growth wraps around.
    pub(crate) fn take_growth(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.entries_before, self.entries.len());
        (self.entries_before as u64).wrapping_sub(before as u64)
    }

    /// Returns the recipients of a message to `subject`.
    pub(crate) fn find(&mut self, subject: &[u8], interest: &Interest) -> CachedRecipients {
        self.lookups += 1;
        let hash = self.hasher.hash_one(subject);
        let entry = self.entries.find_mut(hash, |entry| *entry.subject == *subject);
        if let Some(entry) = entry {
            if entry.found.is_valid(interest) {
                self.hits += 1;
                return entry.found.clone();
            }
            let found = look_up(subject, interest, self.scope);
            self.weight -= entry.found.weight();
            entry.found = found.clone();
            self.weight += found.weight();
            self.enforce_weight_max();
            return found;
        }
        let found = look_up(subject, interest, self.scope);
        let slot = &mut self.seen_once[hash as usize % SEEN_ONCE_SLOTS];
        let tag = (hash >> 32) as u32 | 1;
        if *slot == tag {
            self.remember(hash, subject, found.clone());
        } else {
            *slot = tag;
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
        self.enforce_weight_max();
    }

    fn enforce_weight_max(&mut self) {
        if self.weight > self.weight_max {
            self.entries = HashTable::new();
            self.weight = 0;
        }
    }
}

/// Looks up the recipients. The counters are read before the lookup, so that a change during the lookup invalidates the entry.
fn look_up(subject: &[u8], interest: &Interest, scope: Scope) -> CachedRecipients {
    let counters = interest.generations().counters_of(subject);
    let sum = interest.generations().sum(counters);
    CachedRecipients {
        recipients: Arc::new(interest.recipients(subject, scope)),
        counters,
        sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::subscription::Subscription;

    #[test]
    fn the_total_number_of_cached_recipients_is_bounded() {
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
        assert!(hits >= 400, "{hits} hits");
        let mut none = Cache::new(Scope::Whole, 0);
        (0..3).for_each(|_| drop(none.find(b"a.1", &all)));
        assert!(none.entries.is_empty());
    }
}
