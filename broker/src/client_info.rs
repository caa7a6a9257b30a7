//! The shared state of a client, which the monitoring pages, a reload and the shutdown use. All other state of a client belongs to
//! its [`session`](crate::client::session).

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hashbrown::HashTable;

use crate::account;
use crate::connection_stats::ConnectionStats;
use crate::outbox::Outbox;
use crate::subscription::Subscription;

/// The fields of CONNECT that the monitoring pages and the log show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    pub(crate) name: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) version: Option<String>,
    /// The user name of the client, whether it was admitted or not.
    pub(crate) user: Option<String>,
}

/// The shared state of a client.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: SocketAddr,
    pub(crate) stats: ConnectionStats,
    /// Whether the client accepts INFO at any time (`protocol` 1 in CONNECT).
    pub(crate) accepts_info: AtomicBool,
    labels: OnceLock<Box<Labels>>,
    /// The subscriptions, by sid. Only the task of the client changes them.
    subscriptions: Mutex<HashTable<Arc<Subscription>>>,
}

impl ClientInfo {
    pub(crate) fn new(outbox: Arc<Outbox>, peer: SocketAddr) -> Self {
        Self {
            outbox,
            peer,
            stats: ConnectionStats::new(),
            accepts_info: AtomicBool::new(false),
            labels: OnceLock::new(),
            subscriptions: Mutex::default(),
        }
    }

    /// Sets the labels of the first CONNECT.
    pub(crate) fn set_labels(&self, labels: Labels) {
        // Those of a second CONNECT are ignored.
        let _ = self.labels.set(Box::new(labels));
    }

    /// Returns the labels; `None` before CONNECT.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.labels.get().map(|labels| &**labels)
    }

    /// Returns the name of the client's account.
    pub(crate) fn account_name(&self) -> String {
        let account = self.outbox.account.load();
        account
            .as_ref()
            .map_or(account::DEFAULT, |account| &account.name)
            .to_owned()
    }

    /// Returns the number of subscriptions that have not reached their maximum of messages.
    pub(crate) fn live_subscriptions(&self) -> usize {
        let subscriptions = self.subscriptions();
        subscriptions
            .iter()
            .filter(|subscription| !subscription.is_over())
            .count()
    }

    /// Locks the subscriptions. Some may have reached their maximum of messages. The lock must be held only briefly, because the client's
    /// task waits for it.
    pub(crate) fn subscriptions(&self) -> MutexGuard<'_, HashTable<Arc<Subscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
