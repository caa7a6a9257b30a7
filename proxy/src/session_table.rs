//! The table of all sessions of the sidecar, for the HTTP pages, the connection limit and the stop.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::session::Traffic;
use crate::session_info::SessionInfo;

/// All sessions, ordered by id, and the traffic of those that have ended.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: Mutex<Sessions>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Sessions {
    live: BTreeMap<u64, Arc<SessionInfo>>,
    ended: Traffic,
}

impl SessionTable {
    /// Goes on with the traffic of sessions that have ended in the former program.
    pub(crate) fn restore(&self, ended: Traffic) {
        self.lock().ended = ended;
    }

    /// Returns the traffic of the sessions that have ended, also of those whose connections are being closed.
    pub(crate) fn ended(&self) -> Traffic {
        let sessions = self.lock();
        let mut ended = sessions.ended;
        let over = sessions
            .live
            .values()
            .filter(|session| session.is_over.load(Relaxed));
        over.for_each(|session| ended += session.traffic());
        ended
    }

    pub(crate) fn insert(&self, session: Arc<SessionInfo>) {
        self.lock().live.insert(session.id, session);
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut sessions = self.lock();
        if let Some(session) = sessions.live.remove(&id) {
            sessions.ended += session.traffic();
        }
        if sessions.live.is_empty() {
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
        self.lock().live.len()
    }

    /// Skips `offset` sessions and returns at most `limit` of the following ones.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<SessionInfo>> {
        let sessions = self.lock();
        sessions.live.values().skip(offset).take(limit).cloned().collect()
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<SessionInfo>> {
        self.lock().live.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<SessionInfo>> {
        self.lock().live.values().cloned().collect()
    }

    /// Returns the traffic of all sessions since the sidecar's start.
    pub(crate) fn traffic(&self) -> Traffic {
        let sessions = self.lock();
        let mut total = sessions.ended;
        sessions
            .live
            .values()
            .for_each(|session| total += session.traffic());
        total
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
