//! The card of a session: what the rest of the sidecar sees of it and how it is called. The session's task writes it after
//! each batch with plain stores; `/sessionz` reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use standin_registry::Node;
use tokio::sync::Notify;

use crate::session::ClientLabel;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Card {
    /// Number of the session, counted from the sidecar's start.
    pub(crate) id: u64,
    /// The component's address.
    pub(crate) component: SocketAddr,
    pub(crate) connected: Instant,
    /// What changes seldom.
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
    /// Since when the session has no node.
    pub(crate) searching_since: Option<Instant>,
}

/// What a session is called for, and how it is woken.
#[derive(Debug, Default)]
struct Call {
    waker: AtomicWaker,
    probe: AtomicBool,
    leave: AtomicBool,
    shut_down: AtomicBool,
    policy: AtomicBool,
    release: AtomicBool,
}

/// One thing a session can be called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The registry no longer names the node: see at once whether it lives.
    Probe,
    /// The registry says that the node is about to go.
    Leave,
    /// The sidecar stops.
    ShutDown,
    /// The settings changed.
    Policy,
    /// Held publishes may perhaps go out now.
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

    /// The part that changes seldom.
    pub(crate) fn seldom(&self) -> MutexGuard<'_, Seldom> {
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the session for `errand`.
    pub(crate) fn call(&self, errand: Errand) {
        self.flag(errand).store(true, Relaxed);
        self.call.waker.wake();
    }

    /// The session's task: to be woken by the next call.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.call.waker.register(waker);
    }

    /// The session's task: whether it was called for `errand` since it last asked.
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

    /// Waits until there is no session.
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

    /// `limit` cards behind the first `offset`.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> Vec<Arc<Card>> {
        self.lock().values().skip(offset).take(limit).cloned().collect()
    }

    /// All cards.
    pub(crate) fn all(&self) -> Vec<Arc<Card>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Card>>> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
