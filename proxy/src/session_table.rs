//! The table of all sessions of the sidecar, for the HTTP pages, the connection limit and the stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::session_info::SessionInfo;

/// All sessions, ordered by id.
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

    /// Skips `offset` sessions and returns at most `limit` of the following ones.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<SessionInfo>> {
        self.lock().values().skip(offset).take(limit).cloned().collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<SessionInfo>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<SessionInfo>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
