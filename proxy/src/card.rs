//! The card of a session: its state for the rest of the sidecar, and the way to send it commands. The session's task
//! updates the card after each batch with plain stores. `/sessionz` reads it.

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
pub(crate) struct Card {
    /// Number of the session, counted from the sidecar's start.
    pub(crate) id: u64,
    /// The component's address.
    pub(crate) component: SocketAddr,
    pub(crate) connected: Instant,
    /// The part that changes rarely.
    pub(crate) seldom: Mutex<Seldom>,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) buffered_bytes: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
    pub(crate) messages_to_node: AtomicU64,
    pub(crate) bytes_to_node: AtomicU64,
    pub(crate) messages_to_component: AtomicU64,
    pub(crate) bytes_to_component: AtomicU64,
    call: Call,
}

/// The part of a card that changes with events, not with messages.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seldom {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) state: &'static str,
    pub(crate) client: ClientLabel,
    pub(crate) moves: u64,
    /// Time since which the session has no node.
    pub(crate) searching_since: Option<Instant>,
}

/// Pending commands for a session, and the waker of its task.
#[derive(Debug, Default)]
struct Call {
    waker: AtomicWaker,
    probe: AtomicBool,
    leave: AtomicBool,
    shut_down: AtomicBool,
    policy: AtomicBool,
    release: AtomicBool,
}

/// A command for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The registry no longer names the node: check at once whether it is alive.
    Probe,
    /// The registry marks the node as draining: move to another node.
    Leave,
    /// The sidecar stops: end in order.
    ShutDown,
    /// The settings changed: read them again.
    Policy,
    /// Held publishes may be due: check whether they can go out.
    Release,
}

impl Card {
    pub(crate) fn new(id: u64, component: SocketAddr) -> Self {
        Self {
            id,
            component,
            connected: Instant::now(),
            seldom: Mutex::new(Seldom {
                state: "new",
                ..Seldom::default()
            }),
            subscriptions: AtomicU64::new(0),
            buffered_bytes: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
            messages_to_node: AtomicU64::new(0),
            bytes_to_node: AtomicU64::new(0),
            messages_to_component: AtomicU64::new(0),
            bytes_to_component: AtomicU64::new(0),
            call: Call::default(),
        }
    }

    /// Locks the part that changes rarely.
    pub(crate) fn seldom(&self) -> MutexGuard<'_, Seldom> {
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the session the command `errand`.
    pub(crate) fn call(&self, errand: Errand) {
        self.flag(errand).store(true, Relaxed);
        self.call.waker.wake();
    }

    /// Sets the waker for the next command. Called by the session's task.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.call.waker.register(waker);
    }

    /// Returns whether the command `errand` was sent since the last call. Called by the session's task.
    pub(crate) fn called(&self, errand: Errand) -> bool {
        let flag = self.flag(errand);
        flag.load(Relaxed) && flag.swap(false, Relaxed)
    }

    fn flag(&self, errand: Errand) -> &AtomicBool {
        match errand {
            Errand::Probe => &self.call.probe,
            Errand::Leave => &self.call.leave,
            Errand::ShutDown => &self.call.shut_down,
            Errand::Policy => &self.call.policy,
            Errand::Release => &self.call.release,
        }
    }
}

/// The cards of all sessions, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Cards {
    cards: Mutex<BTreeMap<u64, Arc<Card>>>,
    emptied: Notify,
}

impl Cards {
    pub(crate) fn insert(&self, card: Arc<Card>) {
        self.lock().insert(card.id, card);
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut cards = self.lock();
        cards.remove(&id);
        if cards.is_empty() {
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

    /// Returns at most `limit` cards after the first `offset`.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Card>> {
        self.lock().values().skip(offset).take(limit).cloned().collect()
    }

    /// Returns all cards.
    pub(crate) fn all(&self) -> Vec<Arc<Card>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Card>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
