//! Subscriptions that ended a moment ago: messages of them may still be on their way from the node (promise S4).
//!
//! Sids are kept as hashes: two that share one cost a component a round trip, not an answer.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// Ends remembered one by one. Above it every sid may be one of them, until a PONG has come.
const ENDED_MAX: usize = 4096;

/// See the file's head. An order is a place among all changes of the journal.
#[derive(Debug, Default)]
pub(crate) struct EndedSids {
    by_age: VecDeque<(u64, u64)>,
    /// Order of the newest end by hash of its sid.
    newest: HashMap<u64, u64, RandomState>,
    /// Order of the newest end for which there was no room.
    unnamed: Option<u64>,
}

impl EndedSids {
    /// The subscription `sid` ended as change number `order`.
    pub(crate) fn add(&mut self, sid: &[u8], order: u64) {
        if self.by_age.len() >= ENDED_MAX {
            self.unnamed = Some(order);
            return;
        }
        let hash = self.hash(sid);
        self.by_age.push_back((order, hash));
        self.newest.insert(hash, order);
    }

    /// The node has processed the first `changes` changes, and what it had sent before has come.
    pub(crate) fn confirm(&mut self, changes: u64) {
        while let Some((order, hash)) = self.by_age.front().copied()
            && order < changes
        {
            self.by_age.pop_front();
            if self.newest.get(&hash) == Some(&order) {
                self.newest.remove(&hash);
            }
        }
        self.unnamed = self.unnamed.filter(|order| *order >= changes);
        if self.by_age.is_empty() && self.by_age.capacity() > 64 {
            self.by_age = VecDeque::new();
            self.newest = HashMap::default();
        }
    }

    /// Whether messages of an ended subscription `sid` may still come.
    pub(crate) fn may_hold(&self, sid: &[u8]) -> bool {
        self.unnamed.is_some() || !self.by_age.is_empty() && self.newest.contains_key(&self.hash(sid))
    }

    /// The node is gone: nothing of it comes any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn hash(&self, sid: &[u8]) -> u64 {
        self.newest.hasher().hash_one(sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_remembered_until_it_is_confirmed() {
        let mut ended = EndedSids::default();
        ended.add(b"1", 4);
        ended.add(b"2", 5);
        ended.add(b"1", 7);
        ended.confirm(5);
        assert!(ended.may_hold(b"1") && ended.may_hold(b"2"));
        ended.confirm(7);
        assert!(ended.may_hold(b"1") && !ended.may_hold(b"2"));
        ended.confirm(8);
        assert!(!ended.may_hold(b"1"));
    }

    #[test]
    fn above_the_limit_every_sid_may_be_one_of_them() {
        let mut ended = EndedSids::default();
        for order in 0..2 * ENDED_MAX as u64 {
            ended.add(order.to_string().as_bytes(), order);
        }
        assert_eq!(ended.by_age.len(), ENDED_MAX, "memory is bounded");
        ended.confirm(2 * ENDED_MAX as u64 - 1);
        assert!(ended.may_hold(b"never seen"));
        ended.confirm(2 * ENDED_MAX as u64);
        assert!(!ended.may_hold(b"never seen") && !ended.may_hold(b"1"));
    }

    #[test]
    fn what_a_lost_node_might_have_sent_is_forgotten() {
        let mut ended = EndedSids::default();
        ended.add(b"1", 0);
        ended.clear();
        assert!(!ended.may_hold(b"1"));
    }
}
