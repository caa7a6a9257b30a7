//! Counters and times of one connection, a client's or a route's, for the monitoring pages and the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// Counters and times of one connection. The connection's task writes them; the monitoring pages read them.
#[derive(Debug)]
pub(crate) struct ConnectionStats {
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Messages received.
    pub(crate) messages_in: AtomicU64,
    /// Bytes of payloads and headers received.
    pub(crate) bytes_in: AtomicU64,
    /// Time of the last input, in milliseconds since `started`.
    heard_ms: AtomicU64,
    /// Time between the last PING and its PONG, in nanoseconds; 0: not measured yet.
    rtt_ns: AtomicU64,
}

impl ConnectionStats {
    /// Creates the stats of a connection that begins now.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
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
    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_ns.store(rtt.as_nanos() as u64, Relaxed);
    }

    /// Returns the last measured round-trip time.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let rtt = self.rtt_ns.load(Relaxed);
        (rtt > 0).then(|| Duration::from_nanos(rtt))
    }
}
