//! The sids of subscriptions that ended recently. Their messages may still be in flight from the node (promise S4).
//!
//! Sids are kept as hashes. If two sids have the same hash, a SUB waits for one more PONG. Nothing else changes.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use crate::state_fields::is_default;
use foldhash::fast::{FixedState, RandomState};
use serde::{Deserialize, Serialize};

/// Maximum number of ends that are kept. If there are more, every sid counts as ended until a PONG acks them.
const ENDED_MAX: usize = 4096;

/// Sids of recently ended subscriptions. The order of an end is its number among all changes of the journal.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndedSids {
    /// Order and hash of each end, the oldest first.
    #[serde(default, skip_serializing_if = "is_default")]
    by_age: VecDeque<(u64, u64)>,
    /// For each hash of a sid, the order of its newest end.
    #[serde(default, skip_serializing_if = "is_default")]
    newest: HashMap<u64, u64, RandomState>,
    /// Order of the newest end that was not kept because of [`ENDED_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_kept: Option<u64>,
}

impl EndedSids {
    /// Records the end of the subscription `sid` as change number `order`.
    pub(crate) fn add(&mut self, sid: &[u8], order: u64) {
        if self.by_age.len() >= ENDED_MAX {
            self.not_kept = Some(order);
            return;
        }
        let hash = Self::hash(sid);
        self.by_age.push_back((order, hash));
        self.newest.insert(hash, order);
    }

    /// Records that the node has processed the first `changes` changes, and that all it sent before has arrived.
    pub(crate) fn confirm(&mut self, changes: u64) {
        while let Some((order, hash)) = self.by_age.front().copied()
            && order < changes
        {
            self.by_age.pop_front();
            if self.newest.get(&hash) == Some(&order) {
                self.newest.remove(&hash);
            }
        }
        self.not_kept = self.not_kept.filter(|order| *order >= changes);
        if self.by_age.is_empty() && self.by_age.capacity() > 64 {
            self.by_age = VecDeque::new();
            self.newest = HashMap::default();
        }
    }

    /// Returns whether messages of an ended subscription `sid` may still arrive.
    pub(crate) fn may_be_in_flight(&self, sid: &[u8]) -> bool {
        self.not_kept.is_some() || !self.by_age.is_empty() && self.newest.contains_key(&Self::hash(sid))
    }

    /// Forgets all ends, because nothing arrives from a lost node.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The same in the next program.
    fn hash(sid: &[u8]) -> u64 {
        FixedState::default().hash_one(sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept_until_it_is_acked_or_the_node_is_lost() {
        let mut ended = EndedSids::default();
        ended.add(b"1", 4);
        ended.add(b"2", 5);
        ended.add(b"1", 7);
        ended.confirm(5);
        assert!(ended.may_be_in_flight(b"1") && ended.may_be_in_flight(b"2"));
        ended.confirm(7);
        assert!(ended.may_be_in_flight(b"1") && !ended.may_be_in_flight(b"2"));
        ended.confirm(8);
        assert!(!ended.may_be_in_flight(b"1"));

        ended.add(b"1", 8);
        ended.clear();
        assert!(!ended.may_be_in_flight(b"1"));
    }

    #[test]
    fn above_the_limit_every_sid_counts_as_ended() {
        let mut ended = EndedSids::default();
        for order in 0..2 * ENDED_MAX as u64 {
            ended.add(order.to_string().as_bytes(), order);
        }
        assert_eq!(ended.by_age.len(), ENDED_MAX, "memory is bounded");
        ended.confirm(2 * ENDED_MAX as u64 - 1);
        assert!(ended.may_be_in_flight(b"never seen"));
        ended.confirm(2 * ENDED_MAX as u64);
        assert!(!ended.may_be_in_flight(b"never seen") && !ended.may_be_in_flight(b"1"));
    }
}
