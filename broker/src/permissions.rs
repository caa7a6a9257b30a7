//! What one user may do: the subjects to which it may publish and subscribe, and the answers to requests that it may send.
//!
//! *Answers* (`allow_responses`). A user that may publish only little may still answer each request that it gets: when a message with a
//! reply subject is delivered to it, that subject is noted, and the user may publish to it a number of times, within a time limit.
//!
//! *Denied messages.* A subscription with wildcards may be allowed although some of its subjects are denied. Messages with these
//! subjects are not delivered to it ([`DeliveryFilter`]), as in `nats-server`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use standin_wire::Permissions;
use standin_wire::client::Publish;

/// Number of reply subjects from which the older half is forgotten. It bounds the memory for one client.
const REPLIES_MAX: usize = 1024 * 1024;

/// The permissions of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPermissions {
    /// Allowed and denied subjects.
    pub subjects: Permissions,
    /// Whether and how the user may answer requests.
    pub answers: Option<Answers>,
}

/// The answers that a user may send to one request (`allow_responses`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Maximum number; `None`: no maximum.
    pub max: Option<u32>,
    /// Time limit; `None`: none.
    pub expires: Option<Duration>,
}

/// The reply subjects to which one client may publish.
#[derive(Debug)]
pub(crate) struct Replies {
    rule: Answers,
    known: Mutex<Known>,
}

/// Reply subjects, with the number of answers left and the end of their time. The map `older` is dropped when `newer` is full.
#[derive(Debug, Default)]
struct Known {
    newer: HashMap<Box<[u8]>, Reply, RandomState>,
    older: HashMap<Box<[u8]>, Reply, RandomState>,
}

#[derive(Debug, Clone, Copy)]
struct Reply {
    left: Option<u32>,
    until: Option<Instant>,
}

impl Replies {
    pub(crate) fn new(rule: Answers) -> Self {
        Self {
            rule,
            known: Mutex::default(),
        }
    }

    /// Notes the reply subject of a request.
    fn note(&self, subject: &[u8], now: Instant) {
        let mut known = self.lock();
        if known.newer.len() >= REPLIES_MAX / 2 {
            known
                .newer
                .retain(|_, reply| reply.until.is_none_or(|until| now < until));
        }
        if known.newer.len() >= REPLIES_MAX / 2 {
            known.older = std::mem::take(&mut known.newer);
        }
        let reply = Reply {
            left: self.rule.max,
            until: self.rule.expires.map(|limit| now + limit),
        };
        known.newer.insert(subject.into(), reply);
    }

    /// Counts an answer. Returns whether it may be sent.
    pub(crate) fn take(&self, subject: &[u8], now: Instant) -> bool {
        let mut known = self.lock();
        let Known { newer, older } = &mut *known;
        for map in [newer, older] {
            let Some(reply) = map.get_mut(subject) else {
                continue;
            };
            let in_time = reply.until.is_none_or(|until| now < until);
            if let Some(left) = &mut reply.left {
                *left = left.saturating_sub(1);
            }
            if !in_time || reply.left == Some(0) {
                map.remove(subject);
            }
            return in_time;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done with each message for a subscription of a client with permissions.
#[derive(Debug)]
pub(crate) struct DeliveryFilter {
    /// The rules that deny some of the subscription's subjects.
    denies: Option<Arc<UserPermissions>>,
    replies: Option<Arc<Replies>>,
}

impl DeliveryFilter {
    /// Returns the filter of a subscription to `pattern`; `None` if nothing is to be done.
    pub(crate) fn new(
        permissions: &Arc<UserPermissions>,
        replies: Option<&Arc<Replies>>,
        pattern: &[u8],
    ) -> Option<Arc<Self>> {
        let overlaps = permissions.subjects.subscribe.deny_overlaps(pattern);
        let denies = overlaps.then(|| Arc::clone(permissions));
        let replies = replies.map(Arc::clone);
        let is_needed = denies.is_some() || replies.is_some();
        is_needed.then(|| Arc::new(Self { denies, replies }))
    }

    /// Returns whether the message may be delivered.
    pub(crate) fn admits(&self, message: &Publish<'_>) -> bool {
        let denies = |user: &Arc<UserPermissions>| user.subjects.subscribe.denies_subject(message.subject);
        !self.denies.as_ref().is_some_and(denies)
    }

    /// Notes the reply subject of a message that is delivered.
    pub(crate) fn delivered(&self, message: &Publish<'_>) {
        if let (Some(replies), Some(reply)) = (&self.replies, message.reply) {
            replies.note(reply, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_be_answered_a_number_of_times_and_in_time() {
        let replies = Replies::new(Answers {
            max: Some(2),
            expires: Some(Duration::from_secs(1)),
        });
        let now = Instant::now();
        assert!(!replies.take(b"r", now));
        replies.note(b"r", now);
        assert!(replies.take(b"r", now) && replies.take(b"r", now) && !replies.take(b"r", now));
        replies.note(b"r", now);
        assert!(!replies.take(b"r", now + Duration::from_secs(1)));
        let free = Replies::new(Answers {
            max: None,
            expires: None,
        });
        free.note(b"r", now);
        assert!((0..1000).all(|_| free.take(b"r", now + Duration::from_secs(1_000_000))));
    }

    #[test]
    fn the_number_of_noted_requests_is_bounded() {
        let replies = Replies::new(Answers {
            max: Some(1),
            expires: None,
        });
        let now = Instant::now();
        for number in 0..3 * REPLIES_MAX {
            replies.note(format!("r.{number}").as_bytes(), now);
        }
        let known = replies.lock();
        assert!(known.newer.len() + known.older.len() <= REPLIES_MAX);
        drop(known);
        assert!(replies.take(format!("r.{}", 3 * REPLIES_MAX - 1).as_bytes(), now));
    }
}
