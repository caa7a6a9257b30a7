//! State of each session as the rest of the sidecar sees it, and the way to send the session commands. The session's
//! task updates the state after each batch with plain stores. `/sessionz` reads it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use standin_registry::Node;

use crate::session::ClientLabel;
use crate::session_command::SessionCommand;

/// State of one session for the rest of the sidecar, with the means to send it commands.
#[derive(Debug)]
pub(crate) struct SessionInfo {
    /// Number of the session, counted from the sidecar's start.
    pub(crate) id: u64,
    /// The component's address.
    pub(crate) component: SocketAddr,
    pub(crate) connected: Instant,
    /// The part that changes rarely.
    pub(crate) status: Mutex<SessionStatus>,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) buffered_bytes: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
    pub(crate) messages_to_node: AtomicU64,
    pub(crate) bytes_to_node: AtomicU64,
    pub(crate) messages_to_component: AtomicU64,
    pub(crate) bytes_to_component: AtomicU64,
    /// One bit for each [`SessionCommand`] that was sent and not taken. A command that is sent twice counts once, so there is
    /// no queue.
    pending: AtomicU8,
    /// Waker of the session's task.
    waker: AtomicWaker,
}

/// The part of a [`SessionInfo`] that changes with events, not with messages.
#[derive(Debug, Default, Clone)]
pub(crate) struct SessionStatus {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) state: &'static str,
    pub(crate) client: ClientLabel,
    pub(crate) moves: u64,
    /// Time since which the session has no node.
    pub(crate) searching_since: Option<Instant>,
}

impl SessionInfo {
    pub(crate) fn new(id: u64, component: SocketAddr) -> Self {
        Self {
            id,
            component,
            connected: Instant::now(),
            status: Mutex::new(SessionStatus {
                state: "new",
                ..SessionStatus::default()
            }),
            subscriptions: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
            messages_to_node: AtomicU64::new(0),
            bytes_to_node: AtomicU64::new(0),
            messages_to_component: AtomicU64::new(0),
            bytes_to_component: AtomicU64::new(0),
            pending: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// Locks the part that changes rarely.
    pub(crate) fn status(&self) -> MutexGuard<'_, SessionStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the session a command and wakes its task.
    pub(crate) fn send(&self, command: SessionCommand) {
        self.pending.fetch_or(1 << command as u8, Relaxed);
        self.waker.wake();
    }

    /// Sets the waker for the next command. Called by the session's task.
    pub(crate) fn register_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Returns whether `command` was sent since the last call. Called by the session's task.
    pub(crate) fn take_command(&self, command: SessionCommand) -> bool {
        let bit = 1 << command as u8;
        self.pending.load(Relaxed) & bit != 0 && self.pending.fetch_and(!bit, Relaxed) & bit != 0
    }
}
