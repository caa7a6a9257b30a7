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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::subject::has_wildcard;

use crate::outbox::Outbox;

/// One subscription of one client.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) client: Arc<Outbox>,
    /// Subject, sid and queue group, one behind the other: one allocation for all three.
    text: Box<[u8]>,
    sid_at: u32,
    queue_at: u32,
    in_group: bool,
    /// Messages delivered, counted from SUB.
    delivered: AtomicU64,
    /// Delivered messages after which it ends; 0: never.
    max: AtomicU64,
    /// Its place among its equals, so that it is taken out without a search. Changed under the write lock only.
    place: AtomicU32,
}

/// What a delivery means for the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It gets the message.
    Deliver,
    /// It gets the message, its last.
    DeliverLast,
    /// It has had all it asked for.
    Over,
}

impl Subscription {
    pub(crate) fn new(client: Arc<Outbox>, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) -> Self {
        let queue_name = queue.unwrap_or_default();
        Self {
            client,
            text: [subject, sid, queue_name].concat().into(),
            sid_at: subject.len() as u32,
            queue_at: (subject.len() + sid.len()) as u32,
            in_group: queue.is_some(),
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            place: AtomicU32::new(0),
        }
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.text[..self.sid_at as usize]
    }

    pub(crate) fn sid(&self) -> &[u8] {
        &self.text[self.sid_at as usize..self.queue_at as usize]
    }

    /// The queue group it is a member of.
    pub(crate) fn queue(&self) -> Option<&[u8]> {
        self.in_group.then(|| &self.text[self.queue_at as usize..])
    }

    /// Takes its turn at one message. Exact however many threads deliver: the counter is one.
    #[inline]
    pub(crate) fn take_turn(&self) -> Turn {
        let count = self.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        let max = self.max.load(Ordering::Relaxed);
        match max {
            0 => Turn::Deliver,
            _ if count < max => Turn::Deliver,
            _ if count == max => Turn::DeliverLast,
            _ => Turn::Over,
        }
    }

    /// Ends it after `max` messages, counted from SUB. Returns whether it has had them already.
    pub(crate) fn set_max(&self, max: u64) -> bool {
        self.max.store(max, Ordering::Relaxed);
        self.is_over()
    }

    /// Whether it has had all it asked for.
    pub(crate) fn is_over(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        max > 0 && self.delivered.load(Ordering::Relaxed) >= max
    }
}

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

/// The tokens of a subject, from left to right.
#[derive(Debug, Clone)]
struct Tokens<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    const fn of(subject: &'a [u8]) -> Self {
        Self { rest: Some(subject) }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let dot = rest.iter().position(|byte| *byte == b'.');
        let (token, rest) = match dot {
            Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        Some(token)
    }
}

/// How many counters tell of changes. With more, fewer subjects share one.
const COUNTERS: usize = 1 << 14;

/// Tells whether subscriptions changed that a subject could match, without looking at any.
///
/// Each change counts up one counter: a subscription without wildcards that of its subject, one with wildcards that of its
/// literal head (two tokens of it at most). What was found for a subject holds as long as the four counters that could tell
/// of it stand still.
#[derive(Debug)]
pub(crate) struct Generations {
    counters: Box<[AtomicU64]>,
    hasher: FixedState,
}

/// The counters of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched([u16; 4]);

/// Which counter tells of subscriptions whose wildcard is their first token.
const ROOT: u16 = 0;

impl Generations {
    fn new() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: FixedState::with_seed(0x5eed),
        }
    }

    /// The counter of these bytes in this role; heads and whole subjects must not be taken for each other.
    fn counter(&self, role: u8, bytes: &[u8]) -> u16 {
        (self.hasher.hash_one((role, bytes)) as usize % COUNTERS) as u16
    }

    /// The counters that tell of subscriptions that `subject` could match.
    pub(crate) fn watched(&self, subject: &[u8]) -> Watched {
        let mut dots = (0..subject.len()).filter(|at| subject[*at] == b'.');
        let first = dots.next();
        let second = dots.next();
        let one = &subject[..first.unwrap_or(subject.len())];
        let two = &subject[..second.unwrap_or(subject.len())];
        Watched([
            ROOT,
            self.counter(1, one),
            self.counter(2, two),
            self.counter(0, subject),
        ])
    }

    /// A number that changes when one of the counters does.
    #[inline]
    pub(crate) fn sum(&self, watched: Watched) -> u64 {
        let mut sum = 0u64;
        for at in watched.0 {
            sum = sum.wrapping_add(self.counters[usize::from(at)].load(Ordering::Acquire));
        }
        sum
    }

    /// A subscription to `subject` came or went.
    fn changed(&self, subject: &[u8], wild: bool) {
        let at = if wild {
            let mut head = 0;
            let mut tokens = 0u8;
            for token in Tokens::of(subject) {
                if tokens == 2 || token == b"*" || token == b">" {
                    break;
                }
                head += token.len() + usize::from(tokens > 0);
                tokens += 1;
            }
            match tokens {
                0 => ROOT,
                _ => self.counter(tokens, &subject[..head]),
            }
        } else {
            self.counter(0, subject)
        };
        self.counters[usize::from(at)].fetch_add(1, Ordering::Release);
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
    count: usize,
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
        self.read().count
    }

    /// Adds one. From the return on every message that matches reaches it.
    pub(crate) fn add(&self, subscription: &Arc<Subscription>) {
        let subject = subscription.subject();
        let wild = has_wildcard(subject);
        let mut known = self.write();
        known.count += 1;
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
        known.count -= usize::from(removed);
        self.generations.changed(subject, wild);
    }

    /// Who gets a message published to `subject`, added to `matched`.
    pub(crate) fn collect(&self, subject: &[u8], matched: &mut Matched) {
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use standin_wire::subject::matches;

    fn subscription(subject: &str, queue: Option<&str>, sid: &str) -> Arc<Subscription> {
        let queue = queue.map(str::as_bytes);
        let client = Arc::new(Outbox::unconnected(1));
        Arc::new(Subscription::new(
            client,
            subject.as_bytes(),
            queue,
            sid.as_bytes(),
        ))
    }

    /// The sids that match, and those of each group, sorted.
    fn found(all: &Subscriptions, subject: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let mut matched = Matched::default();
        all.collect(subject.as_bytes(), &mut matched);
        let sids = |list: &[Arc<Subscription>]| {
            let mut sids: Vec<String> = list
                .iter()
                .map(|one| String::from_utf8_lossy(one.sid()).into_owned())
                .collect();
            sids.sort();
            sids
        };
        let mut groups: Vec<_> = matched.groups.iter().map(|group| sids(group)).collect();
        groups.sort();
        (sids(&matched.each), groups)
    }

    #[test]
    fn members_of_a_group_are_one_group_whatever_their_pattern() {
        let all = Subscriptions::new();
        for (subject, queue, sid) in [
            ("a.b", Some("q"), "1"),
            ("a.*", Some("q"), "2"),
            (">", Some("q"), "3"),
            ("a.b", Some("r"), "4"),
            ("a.b", None, "5"),
        ] {
            all.add(&subscription(subject, queue, sid));
        }
        let (each, groups) = found(&all, "a.b");
        assert_eq!(each, ["5"]);
        assert_eq!(groups, [vec!["1", "2", "3"], vec!["4"]]);
    }

    #[test]
    fn one_of_many_equals_is_taken_out_and_the_others_stay() {
        let all = Subscriptions::new();
        let many: Vec<_> = (0..50)
            .map(|number| subscription("a", None, &number.to_string()))
            .collect();
        many.iter().for_each(|one| all.add(one));
        for (gone, one) in many.iter().enumerate() {
            all.remove(one);
            all.remove(one);
            assert_eq!(all.len(), 49 - gone);
            assert_eq!(found(&all, "a").0.len(), 49 - gone);
        }
        assert!(all.read().literal.is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_change_is_told_of_to_the_subjects_that_it_can_touch() {
        let all = Subscriptions::new();
        let generations = all.generations();
        for (pattern, touched, untouched) in [
            ("a.b.c", "a.b.c", "a.b.d"),
            ("a.b.*", "a.b.c", "a.c.d"),
            ("a.b.c.*", "a.b.x", "a.c"),
            ("a.*", "a.x", "b.x"),
            ("a.>", "a.x.y", "b"),
            ("*.b", "x.b", ""),
            (">", "anything.at.all", ""),
        ] {
            let before = |subject: &str| generations.sum(generations.watched(subject.as_bytes()));
            let (one, other) = (before(touched), before(untouched));
            let added = subscription(pattern, None, "1");
            all.add(&added);
            assert_ne!(before(touched), one, "{pattern} touches {touched}");
            if !untouched.is_empty() {
                assert_eq!(before(untouched), other, "{pattern} does not touch {untouched}");
            }
            let one = before(touched);
            all.remove(&added);
            assert_ne!(before(touched), one, "{pattern} goes");
        }
    }

    #[test]
    fn a_turn_after_the_last_is_none() {
        let three = subscription("a", None, "1");
        assert_eq!(three.take_turn(), Turn::Deliver);
        assert!(!three.set_max(3));
        let turns = [three.take_turn(), three.take_turn(), three.take_turn()];
        assert_eq!(turns, [Turn::Deliver, Turn::DeliverLast, Turn::Over]);
        assert!(three.is_over());
    }

    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just("*x".to_owned()),
            Just("c>".to_owned())
        ]
    }

    fn subject() -> impl Strategy<Value = String> {
        prop::collection::vec(token(), 1..5).prop_map(|tokens| tokens.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        let token = prop_oneof![3 => token(), 2 => Just("*".to_owned())];
        (prop::collection::vec(token, 0..4), prop::bool::ANY).prop_map(|(mut tokens, open)| {
            if open || tokens.is_empty() {
                tokens.push(">".to_owned());
            }
            tokens.join(".")
        })
    }

    proptest! {
        /// Whatever came and went: found is what the plain rule says, and a subject whose counters stand still finds the same.
        #[test]
        fn what_is_found_is_what_the_plain_rule_says(
            patterns in prop::collection::vec((pattern(), prop::option::of("[qr]"), any::<bool>()), 0..30),
            subjects in prop::collection::vec(subject(), 1..10),
        ) {
            let all = Subscriptions::new();
            let generations = all.generations();
            let mut live: Vec<(usize, &str, Option<&str>)> = Vec::new();
            let mut seen: Vec<_> = subjects.iter().map(|subject| {
                (generations.sum(generations.watched(subject.as_bytes())), found(&all, subject))
            }).collect();
            for (number, (pattern, queue, stays)) in patterns.iter().enumerate() {
                let one = subscription(pattern, queue.as_deref(), &number.to_string());
                all.add(&one);
                if *stays {
                    live.push((number, pattern, queue.as_deref()));
                } else {
                    all.remove(&one);
                }
                for (subject, seen) in subjects.iter().zip(&mut seen) {
                    let now = generations.sum(generations.watched(subject.as_bytes()));
                    let found = found(&all, subject);
                    prop_assert!(now != seen.0 || found == seen.1, "{pattern} changed {subject} unsaid");
                    *seen = (now, found);
                }
            }
            for (subject, (_, (each, groups))) in subjects.iter().zip(&seen) {
                let plain = |queue: Option<&str>| {
                    let mut sids: Vec<String> = live.iter()
                        .filter(|(_, pattern, of)| *of == queue && matches(pattern.as_bytes(), subject.as_bytes()))
                        .map(|(number, ..)| number.to_string())
                        .collect();
                    sids.sort();
                    sids
                };
                prop_assert_eq!(each, &plain(None));
                let mut wanted = vec![plain(Some("q")), plain(Some("r"))];
                wanted.retain(|group| !group.is_empty());
                wanted.sort();
                prop_assert_eq!(groups, &wanted);
            }
            prop_assert_eq!(all.len(), live.len());
        }
    }
}
