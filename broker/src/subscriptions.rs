//! All live subscriptions, and who gets a message published to a subject.
//!
//! A subscription without wildcards is found by its whole subject in a table, one with wildcards in a tree of tokens. What
//! was found is remembered ([`Cache`](crate::cache::Cache)) as long as [`Generations`] says that nothing changed for this
//! subject: request inboxes come and go all the time, and one of them must not make every other subject be looked up anew.
//!
//! *Architecture invariant:* a message whose subject is remembered takes no lock here. Only one that is not takes the read
//! lock, for as long as one look-up takes.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

use crate::generations::Generations;
use crate::subscription::Subscription;
use crate::tokens::Tokens;

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
    fn add_group(&mut self, name: &[u8], members: &[Arc<Subscription>]) {
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

/// The subscriptions with one and the same subject. Most subjects have one, so that is kept without a list.
#[derive(Debug)]
enum Equals {
    One(Arc<Subscription>),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
struct Many {
    each: Vec<Arc<Subscription>>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: Box<[u8]>,
    members: Vec<Arc<Subscription>>,
}

impl Equals {
    fn subject(&self) -> &[u8] {
        match self {
            Self::One(one) => one.subject(),
            Self::Many(many) => many.first().map_or(&[], |first| first.subject()),
        }
    }

    fn add(&mut self, subscription: Arc<Subscription>) {
        if let Self::One(one) = self {
            let mut many = Box::<Many>::default();
            many.add(Arc::clone(one));
            *self = Self::Many(many);
        }
        if let Self::Many(many) = self {
            many.add(subscription);
        }
    }

    /// Returns whether it was there, and whether none is left.
    fn remove(&mut self, subscription: &Arc<Subscription>) -> (bool, bool) {
        match self {
            Self::One(one) => {
                let it = Arc::ptr_eq(one, subscription);
                (it, it)
            }
            Self::Many(many) => {
                let removed = many.remove(subscription);
                (removed, many.first().is_none())
            }
        }
    }

    fn collect(&self, matched: &mut Matched) {
        match self {
            Self::One(one) => match one.queue() {
                Some(name) => matched.add_group(name, std::slice::from_ref(one)),
                None => matched.each.push(Arc::clone(one)),
            },
            Self::Many(many) => {
                matched.each.extend_from_slice(&many.each);
                for group in &many.groups {
                    matched.add_group(&group.name, &group.members);
                }
            }
        }
    }
}

impl Equals {
    fn each(&self, page: &mut Page) {
        match self {
            Self::One(one) => page.offer(one),
            Self::Many(many) => {
                let in_groups = many.groups.iter().flat_map(|group| &group.members);
                many.each.iter().chain(in_groups).for_each(|one| page.offer(one));
            }
        }
    }
}

impl Many {
    fn first(&self) -> Option<&Arc<Subscription>> {
        let in_groups = || self.groups.first().and_then(|group| group.members.first());
        self.each.first().or_else(in_groups)
    }

    fn add(&mut self, subscription: Arc<Subscription>) {
        let list = match subscription.queue() {
            None => &mut self.each,
            Some(name) => {
                let at = self.groups.iter().position(|group| *group.name == *name);
                let at = at.unwrap_or_else(|| {
                    self.groups.push(Group {
                        name: name.into(),
                        members: Vec::new(),
                    });
                    self.groups.len() - 1
                });
                &mut self.groups[at].members
            }
        };
        subscription.place.store(list.len() as u32, Ordering::Relaxed);
        list.push(subscription);
    }

    fn remove(&mut self, subscription: &Arc<Subscription>) -> bool {
        let Some(name) = subscription.queue() else {
            return take_out(&mut self.each, subscription);
        };
        let Some(at) = self.groups.iter().position(|group| *group.name == *name) else {
            return false;
        };
        let removed = take_out(&mut self.groups[at].members, subscription);
        if self.groups[at].members.is_empty() {
            self.groups.swap_remove(at);
        }
        removed
    }
}

fn take_out(list: &mut Vec<Arc<Subscription>>, subscription: &Arc<Subscription>) -> bool {
    let place = subscription.place.load(Ordering::Relaxed) as usize;
    if !list.get(place).is_some_and(|it| Arc::ptr_eq(it, subscription)) {
        return false;
    }
    list.swap_remove(place);
    if let Some(moved) = list.get(place) {
        moved.place.store(place as u32, Ordering::Relaxed);
    }
    true
}

/// One token of the tree of subjects with wildcards.
#[derive(Debug, Default)]
struct Branch {
    tokens: HashMap<Box<[u8]>, Branch, FixedState>,
    /// `*` here.
    any: Option<Box<Branch>>,
    /// `>` here.
    rest: Option<Equals>,
    /// Subjects that end here.
    end: Option<Equals>,
}

impl Branch {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.any.is_none() && self.rest.is_none() && self.end.is_none()
    }

    fn add(&mut self, mut tokens: Tokens<'_>, subscription: Arc<Subscription>) {
        let slot = match tokens.next() {
            None => &mut self.end,
            Some(b">") => &mut self.rest,
            Some(b"*") => return self.any.get_or_insert_default().add(tokens, subscription),
            Some(token) => {
                if !self.tokens.contains_key(token) {
                    self.tokens.insert(token.into(), Self::default());
                }
                if let Some(branch) = self.tokens.get_mut(token) {
                    branch.add(tokens, subscription);
                }
                return;
            }
        };
        match slot {
            Some(equals) => equals.add(subscription),
            None => *slot = Some(Equals::One(subscription)),
        }
    }

    fn remove(&mut self, mut tokens: Tokens<'_>, subscription: &Arc<Subscription>) -> bool {
        let slot = match tokens.next() {
            None => &mut self.end,
            Some(b">") => &mut self.rest,
            Some(b"*") => {
                let Some(any) = &mut self.any else { return false };
                let removed = any.remove(tokens, subscription);
                if any.is_empty() {
                    self.any = None;
                }
                return removed;
            }
            Some(token) => {
                let Some(branch) = self.tokens.get_mut(token) else {
                    return false;
                };
                let removed = branch.remove(tokens, subscription);
                if branch.is_empty() {
                    self.tokens.remove(token);
                }
                return removed;
            }
        };
        let Some(equals) = slot else { return false };
        let (removed, none_left) = equals.remove(subscription);
        if none_left {
            *slot = None;
        }
        removed
    }

    fn each(&self, page: &mut Page) {
        if page.is_full() {
            return;
        }
        for equals in [&self.end, &self.rest].into_iter().flatten() {
            equals.each(page);
        }
        let below = self.any.iter().map(|any| &**any).chain(self.tokens.values());
        below.for_each(|branch| branch.each(page));
    }

    fn collect(&self, mut tokens: Tokens<'_>, matched: &mut Matched) {
        let Some(token) = tokens.next() else {
            if let Some(end) = &self.end {
                end.collect(matched);
            }
            return;
        };
        if let Some(rest) = &self.rest {
            rest.collect(matched);
        }
        if let Some(any) = &self.any {
            any.collect(tokens.clone(), matched);
        }
        if let Some(branch) = self.tokens.get(token) {
            branch.collect(tokens, matched);
        }
    }
}

/// A stretch of all subscriptions.
struct Page {
    skip: usize,
    limit: usize,
    taken: Vec<Arc<Subscription>>,
}

impl Page {
    const fn is_full(&self) -> bool {
        self.taken.len() >= self.limit
    }

    fn offer(&mut self, subscription: &Arc<Subscription>) {
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
    hasher: FixedState,
}

#[derive(Debug, Default)]
struct Known {
    /// Without wildcards, by whole subject. The key stands in the subscriptions themselves.
    literal: HashTable<Equals>,
    /// With wildcards.
    wild: Branch,
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
            hasher: FixedState::with_seed(0xb5),
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
