//! All live subscriptions of one kind (of clients here, or of other nodes), and who gets a message published to a subject.
//!
//! A subscription without wildcards is found by its whole subject in a table, one with wildcards in a tree of tokens. What
//! was found is remembered ([`Cache`](crate::cache::Cache)) as long as [`Generations`] says that nothing changed for this
//! subject: request inboxes come and go all the time, and one of them must not make every other subject be looked up anew.
//!
//! *Architecture invariant:* a message whose subject is remembered takes no lock here. Only one that is not takes the read
//! lock, for as long as one look-up takes.
//!
//! While other nodes follow the table, it keeps the changes that they are to learn as values, in their order, until
//! [`take_changes`](Subscriptions::take_changes). What the table holds can be read in pieces, each under the read lock. Nothing is
//! encoded or sent under the write lock.

mod change;
mod matched;
mod page;
mod subject_entry;
mod tree;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// In tests the order in a table is the same each time, so that a seed replays.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

pub(crate) use self::change::Change;
pub(crate) use self::matched::Matched;
use self::page::Page;
use self::subject_entry::{Edge, SubjectEntry};
use self::tree::Tree;
use crate::generations::Generations;
use crate::subscription::Subscription;
use crate::tokens::Tokens;

/// Parts of the table without wildcards. A piece is one part, and the lock is held no longer.
const SHARDS: usize = 256;
/// Places of the tree with wildcards that make one piece.
const PLACES_AT_A_TIME: usize = 4096;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    known: RwLock<Known>,
    /// How many there are, to be read without the lock.
    live: AtomicUsize,
    /// Changes that others had to know of, ever.
    changes: AtomicU64,
    /// Those that are still to be announced. Added to under the write lock only, so that they are in their order.
    pending: Mutex<Vec<Change>>,
    generations: Arc<Generations>,
    /// Its seed is new in each process: nobody outside can know which subjects share a place.
    hasher: RandomState,
}

#[derive(Debug)]
struct Known {
    /// Without wildcards, by whole subject. The key stands in the subscriptions themselves.
    literal: Vec<HashTable<SubjectEntry>>,
    /// With wildcards.
    wild: Tree,
    counts: Counts,
    followers: usize,
    /// Groups that have more or fewer members than was announced, by subject and name.
    resized: HashTable<Change>,
}

/// How far the table was read in pieces.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cursor {
    shards: usize,
    places: usize,
}

/// What a subscription that came or went means for other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The number of the last change that others have to know of: when they know it, they know this one too.
    pub(crate) change: u64,
    /// There is something to announce.
    pub(crate) is_new: bool,
}

/// How many there are, and were.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) live: usize,
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Subscriptions {
    pub(crate) fn new(generations: Arc<Generations>) -> Self {
        Self {
            known: RwLock::new(Known {
                literal: (0..SHARDS).map(|_| HashTable::new()).collect(),
                wild: Tree::default(),
                counts: Counts::default(),
                followers: 0,
                resized: HashTable::new(),
            }),
            live: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            pending: Mutex::default(),
            generations,
            hasher: RandomState::default(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// How many there are, and were.
    pub(crate) fn counts(&self) -> Counts {
        self.read().counts
    }

    /// The number of the last change that others had to know of.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// A number for what is no change, to ask others behind all that they have sent. All changes before it can be taken.
    pub(crate) fn next_change(&self) -> u64 {
        // Whoever makes a change holds the lock until it is recorded.
        let _all_recorded = self.write();
        self.count_change()
    }

    fn count_change(&self) -> u64 {
        self.changes.fetch_add(1, SeqCst) + 1
    }

    /// Adds one. From the return on every message that matches reaches it.
    pub(crate) fn add(&self, subscription: &Arc<Subscription>) -> Recorded {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        known.counts.live += 1;
        known.counts.added += 1;
        self.live.store(known.counts.live, Relaxed);
        let added = Arc::clone(subscription);
        let edge = if wild {
            known.wild.add(Tokens::of(subject), added)
        } else {
            let hash = self.hasher.hash_one(subject);
            let same = |entry: &SubjectEntry| entry.subject() == subject;
            let shard = &mut known.literal[shard_of(hash)];
            match shard.entry(hash, same, |entry| self.hasher.hash_one(entry.subject())) {
                Entry::Occupied(mut entry) => entry.get_mut().add(added),
                Entry::Vacant(entry) => {
                    entry.insert(SubjectEntry::One(added));
                    Edge::First
                }
            }
        };
        self.generations.changed(subject, wild);
        self.record(&mut known, subscription, edge)
    }

    /// Takes one out; nothing when it is not there.
    pub(crate) fn remove(&self, subscription: &Arc<Subscription>) -> Recorded {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        let removed = if wild {
            known.wild.remove(Tokens::of(subject), subscription)
        } else {
            let hash = self.hasher.hash_one(subject);
            let shard = &mut known.literal[shard_of(hash)];
            let entry = shard.find_entry(hash, |entry| entry.subject() == subject);
            entry.ok().and_then(|mut entry| {
                let edge = entry.get_mut().remove(subscription)?;
                if entry.get().is_empty(edge) {
                    entry.remove();
                }
                Some(edge)
            })
        };
        known.counts.live -= usize::from(removed.is_some());
        known.counts.removed += u64::from(removed.is_some());
        self.live.store(known.counts.live, Relaxed);
        self.generations.changed(subject, wild);
        self.record(&mut known, subscription, removed.unwrap_or(Edge::None))
    }

    /// Keeps what others are to learn of a change, if anything. Members of groups come and go without all being announced at once:
    /// [`count_members`](Self::count_members).
    fn record(&self, known: &mut Known, changed: &Arc<Subscription>, edge: Edge) -> Recorded {
        let is_followed = known.followers > 0;
        let members = match edge {
            Edge::Members(members) if changed.queue().is_some() => {
                if is_followed {
                    self.resize(known, Change::new(changed, members));
                }
                None
            }
            Edge::None | Edge::Members(_) => None,
            Edge::First => Some(1),
            Edge::Last => Some(0),
        };
        let Some(members) = members else {
            return Recorded {
                change: self.changes(),
                is_new: false,
            };
        };
        let change = self.count_change();
        if is_followed {
            if changed.queue().is_some() && !known.resized.is_empty() {
                drop(self.take_resized(known, changed));
            }
            self.pending().push(Change::new(changed, members));
        }
        Recorded {
            change,
            is_new: is_followed,
        }
    }

    fn resize(&self, known: &mut Known, change: Change) {
        let hash = self.hash_of(change.subject(), change.queue());
        let entry = known.resized.entry(
            hash,
            |other| other.is_for(change.subject(), change.queue()),
            |other| self.hash_of(other.subject(), other.queue()),
        );
        entry.insert(change);
    }

    fn take_resized(&self, known: &mut Known, of: &Subscription) -> Option<Change> {
        let hash = self.hash_of(of.subject(), of.queue());
        let entry = known
            .resized
            .find_entry(hash, |other| other.is_for(of.subject(), of.queue()));
        entry.ok().map(|entry| entry.remove().0)
    }

    fn hash_of(&self, subject: &[u8], queue: Option<&[u8]>) -> u64 {
        self.hasher.hash_one((subject, queue))
    }

    /// Records how many members those groups have in which some came or went since last asked. Returns whether there was any.
    pub(crate) fn count_members(&self) -> bool {
        if self.read().resized.is_empty() {
            return false;
        }
        let mut known = self.write();
        let resized = std::mem::take(&mut known.resized);
        let any = !resized.is_empty();
        self.pending().extend(resized);
        any
    }

    /// Takes out what is to be announced, in its order. `into` must be empty.
    pub(crate) fn take_changes(&self, into: &mut Vec<Change>) {
        std::mem::swap(&mut *self.pending(), into);
    }

    /// One more follows: changes are kept from now on.
    pub(crate) fn follow(&self) {
        self.write().followers += 1;
    }

    /// One less follows. When none is left, no changes are kept any more.
    pub(crate) fn unfollow(&self) {
        let mut known = self.write();
        known.followers -= 1;
        if known.followers == 0 {
            known.resized = HashTable::new();
            *self.pending() = Vec::new();
        }
    }

    #[cfg(test)]
    pub(crate) fn followers_len(&self) -> usize {
        self.read().followers
    }

    /// Reads the next piece of the table, each subject and each queue group as if it had come now. Returns the number of the last change
    /// when that was the last piece.
    pub(crate) fn next_piece(&self, cursor: &mut Cursor, mut each: impl FnMut(Change)) -> Option<u64> {
        let mut read = |entry: &SubjectEntry| entry.interest(|one, members| each(Change::new(one, members)));
        let known = self.read();
        if let Some(shard) = known.literal.get(cursor.shards) {
            shard.iter().for_each(&mut read);
            cursor.shards += 1;
            return None;
        }
        let more = known.wild.stretch(cursor.places, PLACES_AT_A_TIME, &mut read);
        cursor.places += PLACES_AT_A_TIME;
        (!more).then(|| self.changes())
    }

    /// Some of them, in an order that stays as long as none comes or goes.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Subscription>> {
        let known = self.read();
        let mut page = Page::new(offset, limit);
        for entry in known.literal.iter().flatten() {
            entry.each(&mut page);
            if page.is_full() {
                return page.into_taken();
            }
        }
        known.wild.each(&mut page);
        page.into_taken()
    }

    /// Who gets a message published to `subject`, added to `matched`: nobody when one of its tokens is empty.
    pub(crate) fn collect(&self, subject: &[u8], matched: &mut Matched) {
        if self.len() == 0 || Tokens::of(subject).any(<[u8]>::is_empty) {
            return;
        }
        let known = self.read();
        let hash = self.hasher.hash_one(subject);
        let shard = &known.literal[shard_of(hash)];
        if let Some(entry) = shard.find(hash, |entry| entry.subject() == subject) {
            entry.collect(matched);
        }
        known.wild.collect(Tokens::of(subject), matched);
    }

    // A panic under the lock is a bug that ends one client; the others go on with what is there.
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Change>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bits of a hash that a table looks at least.
const fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests;
