//! What of a client others may see: the pages, the listener, a reload. The client itself is its [`session`](crate::client::session)'s alone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hashbrown::HashTable;

use crate::outbox::Outbox;
use crate::subscription::Subscription;

/// What the client says of itself in CONNECT.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    pub(crate) name: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) version: Option<String>,
    /// The user it was admitted as, or wanted to be.
    pub(crate) user: Option<String>,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: SocketAddr,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Messages and bytes of payload it has sent.
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    /// When it was last heard of, in milliseconds since `started`.
    heard_ms: AtomicU64,
    /// Between its last PING from here and its PONG, in nanoseconds; 0: not known.
    rtt_ns: AtomicU64,
    /// It takes INFO at any time.
    pub(crate) takes_info: AtomicBool,
    labels: OnceLock<Box<Labels>>,
    /// By sid. Only its task changes it.
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

    /// It was heard of now.
    pub(crate) fn heard(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started);
        self.heard_ms.store(since.as_millis() as u64, Relaxed);
    }

    /// How long ago it was last heard of.
    pub(crate) fn idle(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.started.elapsed().saturating_sub(heard)
    }

    /// Its PONG took so long.
    pub(crate) fn answered_after(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
    }

    /// The last measured time to it and back.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let rtt = self.rtt_ns.load(Relaxed);
        (rtt > 0).then(|| Duration::from_nanos(rtt))
    }

    /// What it first said of itself.
    pub(crate) fn set_labels(&self, labels: Labels) {
        // A second CONNECT changes nothing here.
        let _ = self.labels.set(Box::new(labels));
    }

    /// What it said of itself, once it has.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.labels.get().map(|labels| &**labels)
    }

    /// How many of its subscriptions are not over.
    pub(crate) fn live_subscriptions(&self) -> usize {
        let subscriptions = self.subscriptions();
        subscriptions
            .iter()
            .filter(|subscription| !subscription.is_over())
            .count()
    }

    /// Its subscriptions, some of which may be over; to be let go at once.
    pub(crate) fn subscriptions(&self) -> MutexGuard<'_, HashTable<Arc<Subscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
