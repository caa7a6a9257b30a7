//! One subscription: its client, its subject, and the number of its deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::outbox::Outbox;
use crate::permissions::DeliveryFilter;

/// One subscription of a local client, or the interest of another node in one subject.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) client: Arc<Outbox>,
    /// Subject, sid and queue group, concatenated to save allocations.
    text: Box<[u8]>,
    sid_at: u32,
    queue_at: u32,
    in_group: bool,
    is_filtered: AtomicBool,
    /// What is done with each message, if the client has permissions that require it. Read only if `is_filtered`.
    filter: ArcSwapOption<DeliveryFilter>,
    /// Messages delivered or, at the maximum, refused. Counted from SUB.
    delivered: AtomicU64,
    /// Number of deliveries after which the subscription ends (UNSUB with a maximum); 0 if there is no limit.
    max: AtomicU64,
    /// Index in the list of subscriptions to the same subject (and queue group), so that it is removed without a search. Changed only
    /// under the write lock of the table.
    pub(crate) place: AtomicU32,
    /// Number of members of the queue group on the other node, if this is the interest of another node. It is 0 if all members are
    /// still arriving there; see [`is_counted`](Self::is_counted).
    pub(crate) members: AtomicU32,
    /// See [`is_counted`](Self::is_counted). Changed only under the write lock of the table.
    is_counted: AtomicBool,
}

/// Result of counting a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The subscription gets the message.
    Due,
    /// The subscription gets the message, and it is the last one.
    Last,
    /// The maximum was already reached, so the subscription does not get the message.
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
            is_filtered: AtomicBool::new(false),
            filter: ArcSwapOption::empty(),
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            place: AtomicU32::new(0),
            members: AtomicU32::new(1),
            is_counted: AtomicBool::new(true),
        }
    }

    /// Makes this a subscription that [`is_counted`](Self::is_counted) leaves out.
    pub(crate) fn uncounted(self) -> Self {
        self.set_counted(false);
        self
    }

    pub(crate) fn set_counted(&self, is_counted: bool) {
        self.is_counted.store(is_counted, Ordering::Relaxed);
    }

    /// Returns whether the subscription counts as a member of its queue group. A subscription of a client that is still arriving here
    /// (see [`moves`](crate::moves)) does not, because the client is counted on the node that it leaves.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted.load(Ordering::Relaxed)
    }

    /// Sets or removes the filter.
    pub(crate) fn set_filter(&self, filter: Option<Arc<DeliveryFilter>>) {
        let is_filtered = filter.is_some();
        self.filter.store(filter);
        self.is_filtered.store(is_filtered, Ordering::Release);
    }

    #[inline]
    pub(crate) fn filter(&self) -> Option<Arc<DeliveryFilter>> {
        if self.is_filtered.load(Ordering::Acquire) {
            self.filter.load_full()
        } else {
            None
        }
    }

    /// Returns the subject inside the node, with the scope of its [`account`](crate::account).
    pub(crate) fn subject(&self) -> &[u8] {
        &self.text[..self.sid_at as usize]
    }

    pub(crate) fn sid(&self) -> &[u8] {
        &self.text[self.sid_at as usize..self.queue_at as usize]
    }

    /// Returns the queue group, if there is one.
    pub(crate) fn queue(&self) -> Option<&[u8]> {
        self.in_group.then(|| &self.text[self.queue_at as usize..])
    }

    /// Counts one delivery. The result is exact even if several threads deliver at the same time, because they share one counter.
    /// This function writes the counter and then reads the maximum; [`set_max`](Self::set_max) writes the maximum and then reads the
    /// counter. All accesses are sequentially consistent, so at least one of the two notices that the maximum is reached.
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

    /// Sets the number of messages, counted from SUB, after which the subscription ends. Returns whether that number is reached.
    pub(crate) fn set_max(&self, max: u64) -> bool {
        self.max.store(max, Ordering::SeqCst);
        self.is_over()
    }

    /// Returns the number of messages delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        let count = self.delivered.load(Ordering::Relaxed);
        self.max().map_or(count, |max| count.min(max))
    }

    /// Returns the maximum number of messages, if UNSUB has set one.
    pub(crate) fn max(&self) -> Option<u64> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    /// Returns whether the maximum is reached.
    pub(crate) fn is_over(&self) -> bool {
        let max = self.max.load(Ordering::SeqCst);
        max > 0 && self.delivered.load(Ordering::SeqCst) >= max
    }
}
