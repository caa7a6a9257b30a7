//! One link to another node: how it came to be, what is sent over it, and what the pages show of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use super::hello::Hello;
use crate::outbox::Outbox;

/// How far the peer knows the changes of interest here. The rule is the [`flush`](crate::flush)'s.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The peer was told all there is, so it can be asked.
    pub(crate) told_all: AtomicBool,
    /// The last change that the peer was asked about, and the last that it has acked.
    pub(crate) asked: AtomicU64,
    pub(crate) acked: AtomicU64,
    /// The peer did not ack in time, and is waited for again when it has acked this change; 0: it is in time.
    pub(crate) late: AtomicU64,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Link {
    /// Counted from 1 in the life of this node.
    pub(crate) number: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: Hello,
    pub(crate) address: SocketAddr,
    /// This side dialled.
    pub(crate) dialled: bool,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// The peer takes clients.
    pub(crate) serving: AtomicBool,
    /// The peer takes no clients any more.
    pub(crate) draining: AtomicBool,
    pub(crate) acks: Acks,
    /// The peer is to show that it lives,
    probe: AtomicBool,
    /// because another node claims its id.
    claimed: AtomicBool,
    /// What the peer wants: subjects and groups.
    pub(crate) interest: AtomicUsize,
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    /// Messages that no client here wanted any more when they came.
    pub(crate) undelivered: AtomicU64,
    /// All bytes that came, interest and the rest included.
    pub(crate) raw_bytes_in: AtomicU64,
    heard_ms: AtomicU64,
    rtt_ns: AtomicU64,
}

impl Link {
    pub(crate) fn new(
        number: u64,
        outbox: Arc<Outbox>,
        peer: Hello,
        address: SocketAddr,
        dialled: bool,
    ) -> Self {
        Self {
            number,
            outbox,
            serving: AtomicBool::new(peer.serving),
            draining: AtomicBool::new(peer.draining),
            peer,
            address,
            dialled,
            started: Instant::now(),
            started_at: SystemTime::now(),
            acks: Acks::default(),
            probe: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            interest: AtomicUsize::new(0),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            raw_bytes_in: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
        }
    }

    /// Sends these bytes behind what waits, from the route's own task.
    pub(crate) fn say(&self, bytes: &[u8]) {
        self.outbox.append(bytes);
        self.outbox.wake();
    }

    /// The peer is asked for a sign of life now, and lost when none comes in time.
    pub(crate) fn probe(&self) {
        self.probe.store(true, Relaxed);
        self.outbox.wake();
    }

    /// As [`probe`](Self::probe); its answer shows that another node claims the id of one that lives.
    pub(crate) fn claim(&self) {
        self.claimed.store(true, Relaxed);
        self.probe();
    }

    pub(crate) fn take_claim(&self) -> bool {
        self.claimed.load(Relaxed) && self.claimed.swap(false, Relaxed)
    }

    pub(crate) fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }

    /// The peer was told all there is: from now on it can be asked for acks.
    pub(crate) fn set_told_all(&self) {
        self.acks.told_all.store(true, SeqCst);
    }

    pub(crate) fn heard(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started);
        self.heard_ms.store(since.as_millis() as u64, Relaxed);
    }

    /// How long ago the peer was last heard of.
    pub(crate) fn idle(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.started.elapsed().saturating_sub(heard)
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
    }

    /// The last measured time to it and back.
    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_nanos(self.rtt_ns.load(Relaxed))
    }
}
