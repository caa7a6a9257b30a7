//! A change of interest in one subject, or in one queue group of it, as other nodes are to learn it: a value, without bytes.

use std::sync::Arc;

use crate::subscription::Subscription;

/// See the file's head.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Any subscription with that subject and queue group.
    subscription: Arc<Subscription>,
    members: u32,
}

impl Change {
    pub(super) fn new(subscription: &Arc<Subscription>, members: u32) -> Self {
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

    /// Members of the queue group, 1 without a group; 0: nobody here is subscribed any more.
    pub(crate) const fn members(&self) -> u32 {
        self.members
    }
}
