//! State of each session for the rest of the sidecar, and the way to send it commands. The session's task updates the state after
//! each batch with plain stores. `/sessionz` reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use standin_registry::Node;
use tokio::sync::Notify;

use crate::session::ClientLabel;

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
    pending: PendingCommands,
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

/// Pending commands for a session, and the waker of its task.
#[derive(Debug, Default)]
struct PendingCommands {
    waker: AtomicWaker,
    probe: AtomicBool,
    leave: AtomicBool,
    shut_down: AtomicBool,
    read_policy: AtomicBool,
    release: AtomicBool,
}

/// A command for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCommand {
    /// The registry no longer names the node: check at once whether it is alive.
    Probe,
    /// The registry marks the node as draining: move to another node.
    Leave,
    /// The sidecar stops: end in order.
    ShutDown,
    /// The settings changed: read them again.
    ReadPolicy,
    /// Held publishes may be due: check whether they can go out.
    Release,
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
            pending: PendingCommands::default(),
        }
    }

    /// Locks the part that changes rarely.
    pub(crate) fn status(&self) -> MutexGuard<'_, SessionStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the session a command.
    pub(crate) fn send(&self, command: SessionCommand) {
        self.flag(command).store(true, Relaxed);
        self.pending.waker.wake();
    }

    /// Sets the waker for the next command. Called by the session's task.
    pub(crate) fn register_waker(&self, waker: &std::task::Waker) {
        self.pending.waker.register(waker);
    }

    /// Returns whether `command` was sent since the last call. Called by the session's task.
    pub(crate) fn take_command(&self, command: SessionCommand) -> bool {
        let flag = self.flag(command);
        flag.load(Relaxed) && flag.swap(false, Relaxed)
    }

    fn flag(&self, command: SessionCommand) -> &AtomicBool {
        match command {
            SessionCommand::Probe => &self.pending.probe,
            SessionCommand::Leave => &self.pending.leave,
            SessionCommand::ShutDown => &self.pending.shut_down,
            SessionCommand::ReadPolicy => &self.pending.read_policy,
            SessionCommand::Release => &self.pending.release,
        }
    }
}

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
