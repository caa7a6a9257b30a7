//! The table of live subscriptions of local clients, or of other nodes, and the lookup of the recipients for a subject.
//!
//! Subscriptions without wildcards are in a hash table, by subject; those with wildcards are in a tree of tokens. The result of a
//! lookup is cached ([`Cache`](crate::cache::Cache)) until [`Generations`] shows a change that may affect its subject. Request inboxes
//! come and go all the time, and must not invalidate the cached results of other subjects.
//!
//! *Architecture invariant:* a message whose subject is cached takes no lock here. A message whose subject is not cached takes the read
//! lock for one lookup.
//!
//! While other nodes follow the table, it keeps the changes to be announced, in order, until
//! [`take_changes`](Subscriptions::take_changes). The complete table can be read in pieces, each under the read lock. No frame is
//! encoded or sent under the write lock.

mod change;
mod matched;
mod subject_entry;
mod tree;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// In tests the order in a table is the same each time, so that a seed always gives the same run.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

pub(crate) use self::change::Change;
pub(crate) use self::matched::Matched;
use self::subject_entry::{Edge, SubjectEntry};
use self::tree::Tree;
use crate::generations::Generations;
use crate::subscription::Subscription;
use crate::tokens::Tokens;

/// Number of shards of the hash table. A shard is read in one piece, under the lock.
const SHARDS: usize = 256;
/// Number of nodes of the tree that are read in one piece.
const NODES_PER_PIECE: usize = 4096;

/// The table of live subscriptions.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    known: RwLock<Known>,
    /// Number of live subscriptions, to be read without the lock.
    live: AtomicUsize,
    /// Number of the last change.
    changes: AtomicU64,
    /// Changes that are not announced yet, in order. Changes are added only under the write lock.
    pending: Mutex<Vec<Change>>,
    generations: Arc<Generations>,
    /// Seeded randomly in each process, so that clients cannot choose subjects with the same hash.
    hasher: RandomState,
}

#[derive(Debug)]
struct Known {
    /// Subscriptions without wildcards, by subject. The key is in the subscriptions themselves.
    literal: Vec<HashTable<SubjectEntry>>,
    /// Subscriptions with wildcards.
    wild: Tree,
    counts: Counts,
    followers: usize,
    /// Queue groups whose size has changed since it was announced, by subject and name.
    resized: HashTable<Change>,
}

/// Position in the table while it is read in pieces.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cursor {
    shards: usize,
    nodes: usize,
}

/// Effect of an added or removed subscription on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Number of the last change to be announced. An ack of it covers the effect of this subscription too.
    pub(crate) change: u64,
    /// There is a change to announce at once. Changed sizes of queue groups are announced later.
    pub(crate) is_new: bool,
}

/// Numbers of live, added and removed subscriptions.
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

    /// Returns the number of live subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Returns the numbers of live, added and removed subscriptions.
    pub(crate) fn counts(&self) -> Counts {
        self.read().counts
    }

    /// Returns the number of the last change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Takes the next change number without a change, and returns it. All earlier changes are recorded when this returns.
    pub(crate) fn next_change(&self) -> u64 {
        // Each change holds the write lock until it is recorded.
        let _all_recorded = self.write();
        self.count_change()
    }

    fn count_change(&self) -> u64 {
        self.changes.fetch_add(1, SeqCst) + 1
    }

    /// Adds a subscription. All later lookups find it.
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

    /// Removes a subscription. Does nothing if it is not in the table.
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

    /// Counts a member of a queue group that was not [counted](Subscription::is_counted). Its group's size is announced later.
    pub(crate) fn count(&self, member: &Arc<Subscription>) {
        let subject = member.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        let entry = if wild {
            known.wild.find_mut(Tokens::of(subject))
        } else {
            let hash = self.hasher.hash_one(subject);
            known.literal[shard_of(hash)].find_mut(hash, |entry| entry.subject() == subject)
        };
        let edge = entry.map_or(Edge::None, |entry| entry.count(member));
        self.generations.changed(subject, wild);
        self.record(&mut known, member, edge);
    }

    /// Records the change to be announced, if there is one. Changed sizes of queue groups are recorded later, by
    /// [`count_members`](Self::count_members).
    fn record(&self, known: &mut Known, changed: &Arc<Subscription>, edge: Edge) -> Recorded {
        let is_followed = known.followers > 0;
        let members = match edge {
            Edge::Members(members) if changed.queue().is_some() => {
                if is_followed {
                    self.resize(known, Change::new(changed, Some(members)));
                }
                None
            }
            Edge::None | Edge::Members(_) => None,
            Edge::First => Some(Some(changed.is_counted().into())),
            Edge::Last => Some(None),
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
                self.forget_resized(known, changed);
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

    fn forget_resized(&self, known: &mut Known, of: &Subscription) {
        let (subject, queue) = (of.subject(), of.queue());
        let is_for = |other: &Change| other.is_for(subject, queue);
        if let Ok(entry) = known.resized.find_entry(self.hash_of(subject, queue), is_for) {
            entry.remove();
        }
    }

    fn hash_of(&self, subject: &[u8], queue: Option<&[u8]>) -> u64 {
        self.hasher.hash_one((subject, queue))
    }

    /// Records the new sizes of the queue groups whose size has changed since the last call. Returns whether there was any.
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

    /// Moves the changes to be announced into `into`, in order. `into` must be empty.
    pub(crate) fn take_changes(&self, into: &mut Vec<Change>) {
        std::mem::swap(&mut *self.pending(), into);
    }

    /// Adds a follower. Changes are kept from now on.
    pub(crate) fn follow(&self) {
        self.write().followers += 1;
    }

    /// Removes a follower. Without followers, no changes are kept.
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

    /// Reads the next piece of the table: calls `each` with a change that adds the interest, for each subject and queue group. Returns the
    /// number of the last change if this was the last piece.
    pub(crate) fn next_piece(&self, cursor: &mut Cursor, mut each: impl FnMut(Change)) -> Option<u64> {
        let mut read =
            |entry: &SubjectEntry| entry.interest(|one, members| each(Change::new(one, Some(members))));
        let known = self.read();
        if let Some(shard) = known.literal.get(cursor.shards) {
            shard.iter().for_each(&mut read);
            cursor.shards += 1;
            return None;
        }
        let more = known.wild.piece(cursor.nodes, NODES_PER_PIECE, &mut read);
        cursor.nodes += NODES_PER_PIECE;
        (!more).then(|| self.changes())
    }

    /// Returns up to `limit` subscriptions from `offset` on. The order is stable while no subscription is added or removed.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Subscription>> {
        let known = self.read();
        let entries = known.literal.iter().flatten().chain(known.wild.entries());
        let all = entries.flat_map(SubjectEntry::iter);
        all.skip(offset).take(limit).map(Arc::clone).collect()
    }

    /// Adds the subscriptions that match `subject` to `matched`. A subject with an empty token has none.
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

    // A panic under the lock ends one client only, so the poison flag is ignored.
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

/// Returns the shard of a hash, from bits that the hash table uses least.
const fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests;
