//! The table of all sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::session_info::SessionInfo;

/// All sessions, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: Mutex<BTreeMap<u64, Arc<SessionInfo>>>,
    emptied: Notify,
}

impl SessionTable {
    pub(crate) fn insert(&self, session: Arc<SessionInfo>) {
        self.lock().insert(session.id, session);
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut sessions = self.lock();
        sessions.remove(&id);
        if sessions.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until there are no sessions.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns at most `limit` sessions after the first `offset`.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<SessionInfo>> {
        self.lock().values().skip(offset).take(limit).cloned().collect()
    }

    /// Returns all sessions.
    pub(crate) fn all(&self) -> Vec<Arc<SessionInfo>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<SessionInfo>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
