//! One subscription: whose it is, what to, and how many messages it has had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::outbox::Outbox;

/// One subscription of one client, or what one node wants of one subject.
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
    pub(crate) place: AtomicU32,
    /// Of another node's: the members of the group there.
    pub(crate) members: AtomicU32,
}

/// What a delivery means for the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It gets the message.
    Due,
    /// It gets the message, its last.
    Last,
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
            members: AtomicU32::new(1),
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

    /// Counts one message. Exact however many threads deliver: the counter is one. Here and in
    /// [`set_max`](Self::set_max) each side writes its own and reads the other's, in one order for all: one of the two sees that the
    /// last message was delivered.
    #[inline]
    pub(crate) fn take_delivery(&self) -> Delivery {
        let count = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
        let max = self.max.load(Ordering::SeqCst);
        match max {
            0 => Delivery::Due,
            _ if count < max => Delivery::Due,
            _ if count == max => Delivery::Last,
            _ => Delivery::Over,
        }
    }

    /// Ends it after `max` messages, counted from SUB. Returns whether it has had them already.
    pub(crate) fn set_max(&self, max: u64) -> bool {
        self.max.store(max, Ordering::SeqCst);
        self.is_over()
    }

    /// Messages delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Messages after which it ends, if it does.
    pub(crate) fn max(&self) -> Option<u64> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    /// Whether the maximum of its UNSUB is reached.
    pub(crate) fn is_over(&self) -> bool {
        let max = self.max.load(Ordering::SeqCst);
        max > 0 && self.delivered.load(Ordering::SeqCst) >= max
    }
}
