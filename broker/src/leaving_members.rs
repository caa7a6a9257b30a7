//! The queue group members of clients that leave this node (see [`moves`](crate::moves)). They are announced no more, but messages
//! that other nodes have sent before they knew it still arrive.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use standin_wire::subject;

use crate::account;
use crate::outbox::Outbox;
use crate::subscription::Subscription;

/// The queue group members of clients that leave.
#[derive(Debug, Default)]
pub(crate) struct LeavingMembers {
    /// Their number, to be read without the lock.
    count: AtomicUsize,
    list: Mutex<Vec<Arc<Subscription>>>,
}

impl LeavingMembers {
    pub(crate) fn add(&self, member: &Arc<Subscription>) {
        let mut list = self.list();
        list.push(Arc::clone(member));
        self.count.store(list.len(), Relaxed);
    }

    /// Removes the members of this client.
    pub(crate) fn remove_of(&self, client: &Outbox) {
        let mut list = self.list();
        list.retain(|member| member.client.id != client.id);
        self.count.store(list.len(), Relaxed);
    }

    /// Returns the members of the group that match an inner subject, the last one that left first. A node that has chosen this one for a
    /// message did not know yet that the last one leaves, but may have known it of the others, which get their messages on their new nodes.
    pub(crate) fn matching(&self, subject: &[u8], queue: &[u8]) -> Vec<Arc<Subscription>> {
        if self.count.load(Relaxed) == 0 {
            return Vec::new();
        }
        let (scope, subject) = account::split(subject);
        let is_member = |member: &&Arc<Subscription>| {
            let (member_scope, pattern) = account::split(member.subject());
            member.queue() == Some(queue) && member_scope == scope && subject::matches(pattern, subject)
        };
        self.list().iter().rev().filter(is_member).cloned().collect()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Subscription>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
