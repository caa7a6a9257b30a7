//! A change of interest in one subject or queue group, to be announced to other nodes. `route/announcer.rs` encodes it.

use std::sync::Arc;

use crate::subscription::Subscription;

/// A change of interest in one subject or queue group.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// A subscription with the subject and the queue group of the change.
    subscription: Arc<Subscription>,
    members: Option<u32>,
}

impl Change {
    pub(super) fn new(subscription: &Arc<Subscription>, members: Option<u32>) -> Self {
        Self {
            subscription: Arc::clone(subscription),
            members,
        }
    }

    pub(crate) fn subject(&self) -> &[u8] {
        self.subscription.subject()
    }

    pub(crate) fn queue(&self) -> Option<&[u8]> {
        self.subscription.queue()
    }

    pub(super) fn is_for(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        self.subject() == subject && self.queue() == queue
    }

    /// Returns the number of members of the queue group that are [counted](Subscription::is_counted); 1 for subscriptions without a
    /// group; `None` if no subscription is left.
    pub(crate) const fn members(&self) -> Option<u32> {
        self.members
    }
}
