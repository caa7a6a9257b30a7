//! A planned move from or to a node that does not know MOVE, such as nats-server. For a while both nodes deliver, and each message that
//! came from both reaches the component once (promise S13, as far as such nodes allow).
//!
//! 1. From now until the switch, each message that the present node delivers is noted. For the first [`SETTLING`], the next node has no
//!    subscriptions yet. It may get copies of these messages later, because others on it have subscribed to the same subjects.
//! 2. The next node gets the component's subscriptions, without those in queue groups. After its PONG, [`SETTLING`] passes again, in which
//!    the other nodes of the cluster learn of the subscriptions. They do not confirm that.
//! 3. The next node gets the subscriptions in queue groups, and the present node their UNSUBs and a PING. A message for a group goes to
//!    one node only, so it has no copy. After the present node's PONG, the session continues on the next node.
//! 4. From what the next node has delivered, each message that was noted is dropped once. The notes are kept until the next node has
//!    answered a PING that was sent [`COPIES_LATE`] after the move.
//!
//! A copy is recognised by its bytes: subject, sid, reply, headers and payload. If a component gets equal messages in this time, one of
//! them may be taken for the copy of another, and is lost.
//!
//! *Max.* The next node counts copies too. So it does not learn a max of these subscriptions. The sidecar counts, and sends UNSUB with the
//! last message; see [`Journal::moved_by_copies`](crate::journal::Journal::moved_by_copies).
//!
//! *Limits.* Other nodes may get the component's last publishes over the present node after its first ones over the next node. nats-server
//! forwards most messages for a queue group that are in flight when the present node gets the member's UNSUB, and loses the others. Plain
//! subscriptions on the other node get a forwarded message twice. Components that have asked for no echo leave without
//! any of this, because the next node would deliver to them what they have published on the present one.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::quality::{FixedState, RandomState};
use serde::{Deserialize, Serialize};

use crate::state_fields::optional_time;

/// Time in which all nodes of a cluster learn of a new subscription, and longest time between two copies of a message.
pub(crate) const SETTLING: Duration = Duration::from_millis(250);
/// Time after the move in which the next node may still get copies.
pub(super) const COPIES_LATE: Duration = Duration::from_millis(500);
/// Number of notes above which a move is given up. Each takes about 24 bytes.
const NOTES_MAX: usize = 1 << 17;

/// The messages that the present node has delivered since the move began.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Copies {
    /// Of the hashes. Random, so that nobody can make another message look like a copy.
    seed: u64,
    /// How often a message with this hash was delivered.
    notes: HashMap<u64, u32, RandomState>,
    /// Set once the session is on the next node: from this time on, the node receives no more copies.
    #[serde(with = "optional_time")]
    until: Option<Instant>,
    /// `until` has passed.
    pub(super) is_over: bool,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self {
            seed: rand::random(),
            ..Self::default()
        }
    }

    /// Notes a message of the present node, or looks for the note of a message of the next node. Returns whether the component has
    /// got this message already.
    pub(super) fn is_copy(&mut self, frame: &[u8]) -> bool {
        let hash = FixedState::with_seed(self.seed).hash_one(frame);
        if self.until.is_none() {
            // While the present node is drained, there may be twice as many.
            if self.notes.len() < 2 * NOTES_MAX {
                *self.notes.entry(hash).or_default() += 1;
            }
            return false;
        }
        let Some(count) = self.notes.get_mut(&hash) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.notes.remove(&hash);
        }
        true
    }

    /// Returns whether there are too many notes to go on.
    pub(super) fn is_full(&self) -> bool {
        self.until.is_none() && self.notes.len() >= NOTES_MAX
    }

    /// Begins to drop copies, which the next node sends from now on.
    pub(super) fn drop_from(&mut self, now: Instant) {
        self.until = Some(now + COPIES_LATE);
    }

    /// Returns the time from which on the next node gets no copy any more, once the session is on it.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_messages_are_dropped_as_were_noted_and_no_others() {
        let mut copies = Copies::default();
        for frame in ["MSG a 1 1\r\nx\r\n", "MSG a 1 1\r\nx\r\n", "MSG a 2 1\r\nx\r\n"] {
            assert!(!copies.is_copy(frame.as_bytes()));
        }
        copies.drop_from(Instant::now());
        for (frame, is_copy) in [
            ("MSG a 1 1\r\ny\r\n", false),
            ("MSG a 2 1\r\nx\r\n", true),
            ("MSG a 2 1\r\nx\r\n", false),
            ("MSG a 1 1\r\nx\r\n", true),
            ("MSG a 1 1\r\nx\r\n", true),
            ("MSG a 1 1\r\nx\r\n", false),
        ] {
            assert_eq!(copies.is_copy(frame.as_bytes()), is_copy, "{frame}");
        }
    }

    #[test]
    fn a_move_is_given_up_when_there_are_too_many_notes() {
        let mut copies = Copies::default();
        for number in 0..3 * NOTES_MAX {
            assert_eq!(copies.is_full(), number >= NOTES_MAX, "{number}");
            copies.is_copy(&number.to_le_bytes());
        }
        assert_eq!(copies.notes.len(), 2 * NOTES_MAX);
    }
}
