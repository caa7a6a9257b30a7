//! State of each session as the rest of the sidecar sees it, and the way to send commands to the session. The
//! session's task updates the counters after each turn with plain stores. `/sessionz` reads the state.

use std::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use standin_registry::{Endpoint, Node};

use crate::peer::Peer;
use crate::session::{ClientLabel, Traffic};
use crate::session_command::SessionCommand;

/// State of one session for the rest of the sidecar, with the means to send it commands.
#[derive(Debug)]
pub(crate) struct SessionInfo {
    /// Number of the session, counted from the sidecar's start.
    pub(crate) id: u64,
    /// Place of its listener in [`Policy::listeners`](crate::policy::Policy::listeners).
    pub(crate) listener: usize,
    pub(crate) component: Peer,
    pub(crate) connected: Instant,
    /// The part that changes rarely.
    pub(crate) status: Mutex<SessionStatus>,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) buffered_bytes: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
    messages_to_node: AtomicU64,
    bytes_to_node: AtomicU64,
    messages_to_component: AtomicU64,
    bytes_to_component: AtomicU64,
    own_pings: AtomicU64,
    /// One bit for each [`SessionCommand`] that was sent and not taken. A command that is sent twice counts once, so there is
    /// no queue.
    pending: AtomicU16,
    /// The component has sent a complete command.
    pub(crate) has_sent_command: AtomicBool,
    /// The session has ended, and its connections are being closed.
    pub(crate) is_over: AtomicBool,
    /// The session was told to [prepare its rest](SessionCommand::PrepareRest), and has not done so.
    pub(crate) is_preparing: AtomicBool,
    /// Waker of the session's task, the same for the whole life of the task.
    waker: OnceLock<Waker>,
}

/// The part of a [`SessionInfo`] that changes with events, not with messages.
#[derive(Debug, Default, Clone)]
pub(crate) struct SessionStatus {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) state: &'static str,
    pub(crate) client: ClientLabel,
    pub(crate) moves: u64,
    /// The node to which the session is to move to balance the load.
    pub(crate) balance_to: Option<Endpoint>,
    /// Time since which the session has no node.
    pub(crate) searching_since: Option<Instant>,
}

impl SessionInfo {
    pub(crate) fn new(id: u64, listener: usize, component: Peer) -> Self {
        Self {
            id,
            listener,
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
            own_pings: AtomicU64::new(0),
            pending: AtomicU16::new(0),
            has_sent_command: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_preparing: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// Adds what the former program knew of the session.
    pub(crate) fn restored(
        self,
        connected: Instant,
        traffic: Traffic,
        moves: u64,
        client: ClientLabel,
    ) -> Self {
        self.add_traffic(traffic);
        let mut status = self.status();
        (status.moves, status.client) = (moves, client);
        drop(status);
        Self { connected, ..self }
    }

    /// Locks the part that changes rarely.
    pub(crate) fn status(&self) -> MutexGuard<'_, SessionStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the session a command and wakes its task.
    pub(crate) fn send(&self, command: SessionCommand) {
        self.pending.fetch_or(1 << command as u8, Relaxed);
        // Pairs with the fence in `set_waker`: the task sees the command, or this call sees the waker.
        fence(SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Sets the waker for all commands. Called by the session's task before it looks for commands.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            self.waker.get_or_init(|| waker.clone());
            fence(SeqCst);
        }
    }

    /// Returns whether a command was sent and not taken.
    pub(crate) fn has_commands(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Returns all traffic of the session so far, as its task last reported it.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            messages_to_node: self.messages_to_node.load(Relaxed),
            bytes_to_node: self.bytes_to_node.load(Relaxed),
            messages_to_component: self.messages_to_component.load(Relaxed),
            bytes_to_component: self.bytes_to_component.load(Relaxed),
            own_pings: self.own_pings.load(Relaxed),
        }
    }

    /// Adds the traffic of one turn. Called by the session's task only, so no addition needs to be atomic.
    pub(crate) fn add_traffic(&self, more: Traffic) {
        let add = |counter: &AtomicU64, more| counter.store(counter.load(Relaxed) + more, Relaxed);
        if more.bytes_to_node > 0 {
            add(&self.messages_to_node, more.messages_to_node);
            add(&self.bytes_to_node, more.bytes_to_node);
        }
        if more.own_pings > 0 {
            add(&self.own_pings, more.own_pings);
        }
        if more.bytes_to_component > 0 {
            add(&self.messages_to_component, more.messages_to_component);
            add(&self.bytes_to_component, more.bytes_to_component);
        }
    }

    /// Returns whether `command` was sent since the last call. Called by the session's task.
    pub(crate) fn take_command(&self, command: SessionCommand) -> bool {
        let bit = 1 << command as u8;
        self.pending.load(Relaxed) & bit != 0 && self.pending.fetch_and(!bit, Relaxed) & bit != 0
    }
}
