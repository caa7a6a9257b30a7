//! All live subscriptions, and who gets a message published to a subject.
//!
//! A subscription without wildcards is found by its whole subject in a table, one with wildcards in a tree of tokens. What
//! was found is remembered ([`Cache`](crate::cache::Cache)) as long as [`Generations`] says that nothing changed for this
//! subject: request inboxes come and go all the time, and one of them must not make every other subject be looked up anew.
//!
//! *Architecture invariant:* a message whose subject is remembered takes no lock here. Only one that is not takes the read
//! lock, for as long as one look-up takes.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

use crate::equals::Equals;
use crate::generations::Generations;
use crate::subscription::Subscription;
use crate::tokens::Tokens;
use crate::tree::Tree;

/// Who gets a message.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// Each of these.
    pub(crate) each: Vec<Arc<Subscription>>,
    /// One of each of these.
    pub(crate) groups: Vec<Vec<Arc<Subscription>>>,
}

impl Matched {
    /// Members of a group that subscribed with different patterns are one group all the same.
    pub(crate) fn add_group(&mut self, name: &[u8], members: &[Arc<Subscription>]) {
        let known = self
            .groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|member| member.queue() == Some(name)));
        match known {
            Some(group) => group.extend_from_slice(members),
            None => self.groups.push(members.to_vec()),
        }
    }
}

/// A stretch of all subscriptions.
pub(crate) struct Page {
    skip: usize,
    limit: usize,
    taken: Vec<Arc<Subscription>>,
}

impl Page {
    pub(crate) const fn is_full(&self) -> bool {
        self.taken.len() >= self.limit
    }

    pub(crate) fn offer(&mut self, subscription: &Arc<Subscription>) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if !self.is_full() {
            self.taken.push(Arc::clone(subscription));
        }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    known: RwLock<Known>,
    generations: Generations,
    /// Its seed is new in each process: nobody outside can know which subjects share a place.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Known {
    /// Without wildcards, by whole subject. The key stands in the subscriptions themselves.
    literal: HashTable<Equals>,
    /// With wildcards.
    wild: Tree,
    counts: Counts,
}

/// How many there are, and were.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) live: usize,
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Subscriptions {
    pub(crate) fn new() -> Self {
        Self {
            known: RwLock::default(),
            generations: Generations::new(),
            hasher: RandomState::default(),
        }
    }

    pub(crate) const fn generations(&self) -> &Generations {
        &self.generations
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.counts().live
    }

    /// How many there are, and were.
    pub(crate) fn counts(&self) -> Counts {
        self.read().counts
    }

    /// Adds one. From the return on every message that matches reaches it.
    pub(crate) fn add(&self, subscription: &Arc<Subscription>) {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        known.counts.live += 1;
        known.counts.added += 1;
        let added = Arc::clone(subscription);
        if wild {
            known.wild.add(Tokens::of(subject), added);
        } else {
            let hash = self.hasher.hash_one(subject);
            let same = |equals: &Equals| equals.subject() == subject;
            match known
                .literal
                .entry(hash, same, |equals| self.hasher.hash_one(equals.subject()))
            {
                Entry::Occupied(mut entry) => entry.get_mut().add(added),
                Entry::Vacant(entry) => drop(entry.insert(Equals::One(added))),
            }
        }
        self.generations.changed(subject, wild);
    }

    /// Takes one out; nothing when it is not there.
    pub(crate) fn remove(&self, subscription: &Arc<Subscription>) {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        let removed = if wild {
            known.wild.remove(Tokens::of(subject), subscription)
        } else {
            let hash = self.hasher.hash_one(subject);
            match known
                .literal
                .find_entry(hash, |equals| equals.subject() == subject)
            {
                Ok(mut entry) => {
                    let (removed, none_left) = entry.get_mut().remove(subscription);
                    if none_left {
                        entry.remove();
                    }
                    removed
                }
                Err(_) => false,
            }
        };
        known.counts.live -= usize::from(removed);
        known.counts.removed += u64::from(removed);
        self.generations.changed(subject, wild);
    }

    /// Some of them, in an order that stays as long as none comes or goes.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Subscription>> {
        let known = self.read();
        let mut page = Page {
            skip: offset,
            limit,
            taken: Vec::new(),
        };
        for equals in &known.literal {
            equals.each(&mut page);
            if page.is_full() {
                return page.taken;
            }
        }
        known.wild.each(&mut page);
        page.taken
    }

    /// Who gets a message published to `subject`, added to `matched`: nobody when one of its tokens is empty.
    pub(crate) fn collect(&self, subject: &[u8], matched: &mut Matched) {
        if Tokens::of(subject).any(<[u8]>::is_empty) {
            return;
        }
        let known = self.read();
        let hash = self.hasher.hash_one(subject);
        if let Some(equals) = known.literal.find(hash, |equals| equals.subject() == subject) {
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

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
