//! The shared state of a client, which the pages, a reload and the shutdown use. All other state of a client belongs to its
//! [`session`](crate::client::session).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hashbrown::HashTable;

use crate::outbox::Outbox;
use crate::subscription::Subscription;

/// The fields of CONNECT that the pages and the log show.
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
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Messages published by the client.
    pub(crate) messages_in: AtomicU64,
    /// Bytes of payloads and headers published by the client.
    pub(crate) bytes_in: AtomicU64,
    /// Time of the last input, in milliseconds since `started`.
    heard_ms: AtomicU64,
    /// Time between the last PING to the client and its PONG, in nanoseconds; 0: not measured yet.
    rtt_ns: AtomicU64,
    /// Whether the client accepts INFO at any time (`protocol` 1 in CONNECT).
    pub(crate) takes_info: AtomicBool,
    labels: OnceLock<Box<Labels>>,
    /// The subscriptions, by sid. Only the task of the client changes them.
    subscriptions: Mutex<HashTable<Arc<Subscription>>>,
}

impl ClientInfo {
    pub(crate) fn new(outbox: Arc<Outbox>, peer: SocketAddr) -> Self {
        Self {
            outbox,
            peer,
            started: Instant::now(),
            started_at: SystemTime::now(),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            takes_info: AtomicBool::new(false),
            labels: OnceLock::new(),
            subscriptions: Mutex::default(),
        }
    }

    /// Records the time of an input.
    pub(crate) fn heard(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started);
        self.heard_ms.store(since.as_millis() as u64, Relaxed);
    }

    /// Returns the time since the last input.
    pub(crate) fn idle(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.started.elapsed().saturating_sub(heard)
    }

    /// Records the round-trip time of a PING.
    pub(crate) fn answered_after(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
    }

    /// Returns the last measured round-trip time.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let rtt = self.rtt_ns.load(Relaxed);
        (rtt > 0).then(|| Duration::from_nanos(rtt))
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
