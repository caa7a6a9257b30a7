//! The session's entry in the recovery after a loss, and in the node book's count of served sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Endpoint;

use crate::doubt::InDoubtCount;
use crate::recovery::Served;
use crate::session::{EndReason, SessionEnd};
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// The session's entry in the recovery after a loss. Dropping it removes the entry, even when the session panics.
pub(super) struct RecoveryEntry {
    shared: Arc<SidecarState>,
    session: Arc<SessionInfo>,
    /// Set once the present node has taken the session.
    served: Option<Served>,
    /// Whether the node has the session's subscriptions again, while the session still holds publishes.
    is_back: bool,
    /// Number of publishes abandoned at the end of the session.
    abandoned: u64,
    /// Whether the session ended because it had no node.
    expired: bool,
}

impl RecoveryEntry {
    pub(super) fn new(shared: &Arc<SidecarState>, session: &Arc<SessionInfo>) -> Self {
        Self {
            shared: Arc::clone(shared),
            session: Arc::clone(session),
            served: None,
            is_back: false,
            abandoned: 0,
            expired: false,
        }
    }

    /// Returns the proof that the present node has taken the session, for the next program.
    pub(super) fn served_record(&self) -> Option<Served> {
        self.served.clone()
    }

    /// Returns whether the session has its subscriptions back while it holds publishes.
    pub(super) fn is_back(&self) -> bool {
        self.is_back
    }

    /// Goes on with the entry of a session of the former program. [`Recovery`](crate::recovery::Recovery) has it already.
    pub(super) fn restore(&mut self, served: Option<Served>, is_back: bool) {
        if let Some(served) = &served {
            self.shared.book.count_served(&served.node, true, Instant::now());
        }
        (self.served, self.is_back) = (served, is_back);
    }

    /// Records the end of the session.
    pub(super) fn end(mut self, ended: &SessionEnd) {
        self.abandoned = ended.abandoned.total();
        self.expired = ended.reason == EndReason::Outage;
    }

    /// Records the loss of the node. Returns whether another session has reported the same loss.
    pub(super) fn lost(&mut self, node: &Endpoint, awaited: bool, in_doubt: InDoubtCount) -> bool {
        self.is_back = false;
        let (recovery, served) = (&self.shared.recovery, self.served.take());
        let now = Instant::now();
        if served.is_some() {
            self.shared.book.count_served(node, false, now);
        }
        recovery.lost(&self.session, node, served, awaited, in_doubt, now)
    }

    /// Records that the node has taken the session.
    pub(super) fn served(&mut self, node: &Endpoint, now: Instant) {
        if self.served.is_none() {
            self.served = Some(self.shared.recovery.served(node));
            self.shared.book.count_served(node, true, now);
        }
    }

    /// Returns whether the present node has taken the session.
    pub(super) fn is_served(&self) -> bool {
        self.served.is_some()
    }

    /// Records that the session has its subscriptions back.
    pub(super) fn back(&mut self, now: Instant) {
        self.is_back = true;
        self.shared.recovery.back(&self.session, now);
    }

    /// Returns the time at which the session may send its held publishes. Returns `None` while it does not have its
    /// subscriptions back, or holds nothing.
    pub(super) fn release_at(&self, settle: Duration, now: Instant) -> Option<Instant> {
        self.is_back
            .then(|| self.shared.recovery.release_at(&self.session, settle, now))
    }

    /// Records that the session sends its held publishes, or had none.
    pub(super) fn released(&mut self, now: Instant) {
        self.is_back = false;
        self.shared.recovery.released(&self.session, now);
    }
}

impl Drop for RecoveryEntry {
    fn drop(&mut self) {
        let (served, now) = (self.served.take(), Instant::now());
        if let Some(served) = &served {
            self.shared.book.count_served(&served.node, false, now);
        }
        let (expired, abandoned) = (self.expired, self.abandoned);
        self.shared
            .recovery
            .ended(&self.session, served, expired, abandoned, now);
    }
}
