//! All live subscriptions of one kind (of clients here, or of other nodes), and who gets a message published to a subject.
//!
//! A subscription without wildcards is found by its whole subject in a table, one with wildcards in a tree of tokens. What
//! was found is remembered ([`Cache`](crate::cache::Cache)) as long as [`Generations`] says that nothing changed for this
//! subject: request inboxes come and go all the time, and one of them must not make every other subject be looked up anew.
//!
//! *Architecture invariant:* a message whose subject is remembered takes no lock here. Only one that is not takes the read
//! lock, for as long as one look-up takes.
//!
//! Who follows the table, the links to other nodes, is told what changes under the lock it changes under, so each hears of all
//! changes in their order; and is told all there is in pieces, each under the lock, so that no piece is out of date. Nothing is
//! sent under the lock.

mod equals;
mod matched;
mod page;
mod tree;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

// In tests the order in a table is the same each time, so that a seed replays.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

use self::equals::{Edge, Equals};
pub(crate) use self::matched::Matched;
use self::page::Page;
use self::tree::Tree;
use crate::generations::Generations;
use crate::outbox::Outbox;
use crate::route::frame;
use crate::subscription::Subscription;
use crate::tokens::Tokens;

/// Parts of the table without wildcards. A follower is told one part at a time, and the lock is held no longer.
const SHARDS: usize = 256;
/// Places of the tree with wildcards that a follower is told at a time.
const PLACES_AT_A_TIME: usize = 4096;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    known: RwLock<Known>,
    /// How many there are, to be read without the lock.
    live: AtomicUsize,
    /// Changes that others had to know of, ever.
    changes: AtomicU64,
    generations: Arc<Generations>,
    /// Its seed is new in each process: nobody outside can know which subjects share a place.
    hasher: RandomState,
}

/// A queue group of one subject: both names.
type GroupKey = (Box<[u8]>, Box<[u8]>);

#[derive(Debug)]
struct Known {
    /// Without wildcards, by whole subject. The key stands in the subscriptions themselves.
    literal: Vec<HashTable<Equals>>,
    /// With wildcards.
    wild: Tree,
    counts: Counts,
    followers: Vec<Arc<Outbox>>,
    /// Groups that have more or fewer members than followers know, by subject and name.
    restless: HashMap<GroupKey, u32, RandomState>,
    frame: Vec<u8>,
}

/// How far a follower was told all there is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    shards: usize,
    places: usize,
}

/// What a change means for followers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    /// The number of the last change that others had to know of: when they know it, they know this one too.
    pub(crate) changes: u64,
    /// Followers were told, and what they were told waits to be sent.
    pub(crate) told: bool,
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
                followers: Vec::new(),
                restless: HashMap::default(),
                frame: Vec::new(),
            }),
            live: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
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

    /// A number for what is no change, to ask others behind all that they have sent. Followers were told of all changes before.
    pub(crate) fn next_change(&self) -> u64 {
        // Whoever makes a change holds the lock until it is told.
        let _all_told = self.write();
        self.count_change()
    }

    fn count_change(&self) -> u64 {
        self.changes.fetch_add(1, SeqCst) + 1
    }

    /// Adds one. From the return on every message that matches reaches it.
    pub(crate) fn add(&self, subscription: &Arc<Subscription>) -> News {
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
            let same = |equals: &Equals| equals.subject() == subject;
            let shard = &mut known.literal[shard_of(hash)];
            match shard.entry(hash, same, |equals| self.hasher.hash_one(equals.subject())) {
                Entry::Occupied(mut entry) => entry.get_mut().add(added),
                Entry::Vacant(entry) => {
                    entry.insert(Equals::One(added));
                    Edge::First
                }
            }
        };
        self.generations.changed(subject, wild);
        self.tell(&mut known, subscription, edge)
    }

    /// Takes one out; nothing when it is not there.
    pub(crate) fn remove(&self, subscription: &Arc<Subscription>) -> News {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        let removed = if wild {
            known.wild.remove(Tokens::of(subject), subscription)
        } else {
            let hash = self.hasher.hash_one(subject);
            let shard = &mut known.literal[shard_of(hash)];
            let entry = shard.find_entry(hash, |equals| equals.subject() == subject);
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
        self.tell(&mut known, subscription, removed.unwrap_or(Edge::None))
    }

    /// Tells followers what a change means for them, if anything. Members of groups come and go without all being told at once:
    /// [`tell_members`](Self::tell_members).
    fn tell(&self, known: &mut Known, changed: &Subscription, edge: Edge) -> News {
        let (subject, queue) = (changed.subject(), changed.queue());
        let key = |queue: &[u8]| (subject.into(), queue.into());
        match (edge, queue) {
            (Edge::None, _) | (Edge::Members(_), None) => {
                return News {
                    changes: self.changes(),
                    told: false,
                };
            }
            (Edge::Members(members), Some(queue)) => {
                if !known.followers.is_empty() {
                    known.restless.insert(key(queue), members);
                }
                return News {
                    changes: self.changes(),
                    told: false,
                };
            }
            (_, Some(queue)) if !known.restless.is_empty() => drop(known.restless.remove(&key(queue))),
            _ => {}
        }
        let changes = self.count_change();
        let told = !known.followers.is_empty();
        if told {
            let mut frame = std::mem::take(&mut known.frame);
            frame.clear();
            match edge {
                Edge::Last => frame::put_no_interest(&mut frame, subject, queue),
                _ => frame::put_interest(&mut frame, subject, queue, 1),
            }
            known
                .followers
                .iter()
                .for_each(|follower| follower.append(&frame));
            known.frame = frame;
        }
        News { changes, told }
    }

    /// Tells followers how many members those groups have in which some came or went. Returns whether there was anything to tell.
    pub(crate) fn tell_members(&self) -> bool {
        if self.read().restless.is_empty() {
            return false;
        }
        let mut known = self.write();
        let restless = std::mem::take(&mut known.restless);
        let mut frame = Vec::new();
        for ((subject, queue), members) in &restless {
            frame::put_interest(&mut frame, subject, Some(queue), *members);
        }
        known
            .followers
            .iter()
            .for_each(|follower| follower.append(&frame));
        !restless.is_empty()
    }

    /// `outbox` is told of all changes from now on.
    pub(crate) fn follow(&self, outbox: &Arc<Outbox>) {
        self.write().followers.push(Arc::clone(outbox));
    }

    /// `outbox` is told nothing any more.
    pub(crate) fn unfollow(&self, outbox: &Arc<Outbox>) {
        let mut known = self.write();
        known.followers.retain(|follower| !Arc::ptr_eq(follower, outbox));
        if known.followers.is_empty() {
            known.restless = HashMap::default();
        }
    }

    #[cfg(test)]
    pub(crate) fn followers_len(&self) -> usize {
        self.read().followers.len()
    }

    /// Tells a follower the next piece of all there is. With the last one, what `end` makes of the number of changes is appended.
    /// Returns whether that was the last.
    pub(crate) fn tell_all(
        &self,
        told: &mut Told,
        follower: &Outbox,
        end: impl FnOnce(u64, &mut Vec<u8>),
    ) -> bool {
        let mut frame = Vec::new();
        let mut put = |equals: &Equals| {
            equals.interest(|one, members| {
                frame::put_interest(&mut frame, one.subject(), one.queue(), members)
            });
        };
        let known = self.read();
        let done = if let Some(shard) = known.literal.get(told.shards) {
            shard.iter().for_each(&mut put);
            told.shards += 1;
            false
        } else {
            let more = known.wild.stretch(told.places, PLACES_AT_A_TIME, &mut put);
            told.places += PLACES_AT_A_TIME;
            !more
        };
        if done {
            end(self.changes(), &mut frame);
        }
        follower.append(&frame);
        done
    }

    /// Some of them, in an order that stays as long as none comes or goes.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Subscription>> {
        let known = self.read();
        let mut page = Page::new(offset, limit);
        for equals in known.literal.iter().flatten() {
            equals.each(&mut page);
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
        if let Some(equals) = shard.find(hash, |equals| equals.subject() == subject) {
            equals.collect(matched);
        }
        known.wild.collect(Tokens::of(subject), matched);
    }

    // A panic under the lock is a bug that ends one client; the others go on with what is there.
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
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
