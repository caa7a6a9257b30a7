//! A range of the subscriptions of one table, for the monitoring pages.

use std::sync::Arc;

use crate::subscription::Subscription;

/// Collects up to `limit` subscriptions after the first `skip`.
pub(super) struct Page {
    skip: usize,
    limit: usize,
    taken: Vec<Arc<Subscription>>,
}

impl Page {
    pub(super) const fn new(skip: usize, limit: usize) -> Self {
        Self {
            skip,
            limit,
            taken: Vec::new(),
        }
    }

    pub(super) fn into_taken(self) -> Vec<Arc<Subscription>> {
        self.taken
    }

    pub(super) const fn is_full(&self) -> bool {
        self.taken.len() >= self.limit
    }

    pub(super) fn offer(&mut self, subscription: &Arc<Subscription>) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if !self.is_full() {
            self.taken.push(Arc::clone(subscription));
        }
    }
}
