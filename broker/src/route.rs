//! The routes to other nodes, below the router: their frames, handshake and state. Nothing here depends on clients, the router or
//! workers.
//!
//! Words: a *route* is the TCP connection between two brokers, as in `nats-server`. The *peer* is the node at the other end. Two nodes are
//! *linked* while a route between them is established. In metrics, a route is called *link*, which is the older word. The log
//! field `route` is the number of a route.
//!
//! | file | holds |
//! |---|---|
//! | this one | [`Route`]: the peer, the state, and the counters for the monitoring pages |
//! | [`frame`] | the frames between nodes |
//! | [`hello`], [`handshake`] | the handshake, by which a connection becomes a route |
//! | [`routes`] | the list of all established routes |
//! | [`announcer`] | the announcement of local clients' interest to the other nodes |
//! | [`incoming`] | the frames that arrive over a route, and the peer's interest |
//! | [`event`] | the events that a route reports to the keeper |

pub(crate) mod announcer;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod incoming;
pub(crate) mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use self::hello::Hello;
use crate::connection_stats::ConnectionStats;
use crate::outbox::Outbox;

/// State of the peer's acks of changes of local interest. For the rules, see [`flush`](crate::flush).
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The peer was sent the complete interest, so it can be asked for acks.
    pub(crate) snapshot_sent: AtomicBool,
    /// The last change for which the peer was asked for an ack.
    pub(crate) asked: AtomicU64,
    /// The last change that the peer has acked.
    pub(crate) acked: AtomicU64,
    /// 0 while the peer acks in time. Otherwise, the change that the peer must ack before flushes wait for it again.
    pub(crate) late: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Route {
    /// Number of the route, counted from 1 in this run of the node.
    pub(crate) number: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: Hello,
    pub(crate) address: SocketAddr,
    /// The address that this side dialled, unresolved. `None` if the peer dialled.
    pub(crate) dialled: Option<String>,
    pub(crate) stats: ConnectionStats,
    /// The peer accepts clients.
    pub(crate) serving: AtomicBool,
    /// The peer accepts no more clients.
    pub(crate) draining: AtomicBool,
    pub(crate) acks: Acks,
    /// A PING is to be sent to the peer at once.
    probe: AtomicBool,
    /// The reason for that PING is that another node claims the peer's id.
    claimed: AtomicBool,
    /// Number of different pairs of subject and queue group among the peer's subscriptions.
    pub(crate) interest: AtomicUsize,
    /// Messages that had no recipient here when they arrived.
    pub(crate) undelivered: AtomicU64,
    /// All bytes received, including interest and other frames.
    pub(crate) raw_bytes_in: AtomicU64,
}

impl Route {
    pub(crate) fn new(
        number: u64,
        outbox: Arc<Outbox>,
        peer: Hello,
        address: SocketAddr,
        dialled: Option<String>,
    ) -> Self {
        Self {
            number,
            outbox,
            serving: AtomicBool::new(peer.serving),
            draining: AtomicBool::new(peer.draining),
            peer,
            address,
            dialled,
            stats: ConnectionStats::new(),
            acks: Acks::default(),
            probe: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            interest: AtomicUsize::new(0),
            undelivered: AtomicU64::new(0),
            raw_bytes_in: AtomicU64::new(0),
        }
    }

    /// Adds bytes to the pending output, and wakes the route's task to send them.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.outbox.append(bytes);
        self.outbox.wake();
    }

    /// Makes the route send a PING at once. Without a PONG in time, the route ends.
    pub(crate) fn probe(&self) {
        self.probe.store(true, Relaxed);
        self.outbox.wake();
    }

    /// Like [`probe`](Self::probe), because another node claims the peer's id. The PONG is reported to the keeper.
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

    /// Records that the peer was sent the complete interest. From now on it can be asked for acks.
    pub(crate) fn set_snapshot_sent(&self) {
        self.acks.snapshot_sent.store(true, SeqCst);
    }
}
