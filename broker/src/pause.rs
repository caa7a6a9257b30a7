//! Detection of a paused worker: the worker did not run for a while, because its process (SIGSTOP) or its virtual machine was stopped.
//!
//! Input that arrived during a pause may be out of date. A sidecar or a node that declared this node dead has reset the connection, counts
//! its bytes as lost, and sends further messages elsewhere. If the old input were delivered now, it would come after newer messages. So,
//! for clients and routes alike, a worker checks each of its sockets for a reset after a pause, before it reads any input. It closes the
//! reset ones and drops their unread input. For a short time after that, each read repeats the check: some connections were not accepted
//! yet, and some resets arrive late.
//!
//! A connection that was closed with FIN is not reset: all bytes before its end are delivered. (The system also sends a reset when the peer
//! closes the connection with unread bytes from the node; this cannot be distinguished from a peer that declared the node dead.) Without a
//! pause, input of a reset connection is delivered. A pause in which the machine's clock stops too is not detected.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::close_reason::CloseReason;
use crate::outbox::Outbox;
use crate::shared::Shared;

/// A longer gap between two runs of a worker is a pause. The default timeouts after which a peer declares a node dead are longer.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Interval at which an idle worker runs the check.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Time after a pause in which each read checks for a reset.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct PauseWatch {
    worker: usize,
    ran_at: Instant,
    /// Time until which each read checks for a reset.
    check_until: Option<Instant>,
}

impl PauseWatch {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            ran_at: Instant::now(),
            check_until: None,
        }
    }

    /// Records the time of this run. After a pause, closes the reset connections.
    pub(crate) fn check(&mut self, shared: &Shared) {
        let now = Instant::now();
        let paused = now.saturating_duration_since(self.ran_at);
        self.ran_at = now;
        if paused > PAUSE_MIN {
            self.check_until = Some(now + CHECK_PERIOD);
            end_reset_connections(self.worker, paused, shared);
        } else if self.check_until.is_some_and(|until| now >= until) {
            self.check_until = None;
        }
    }

    /// Calls [`check`](Self::check), and after a pause checks this connection. To be called after a read, before its bytes are processed.
    ///
    /// # Errors
    /// The reason for closing: the connection was reset during a pause, so the bytes just read must be dropped.
    #[inline]
    pub(crate) fn admit(&mut self, shared: &Shared, outbox: &Outbox) -> Result<(), CloseReason> {
        self.check(shared);
        if self.check_until.is_none() {
            return Ok(());
        }
        match outbox.end_if_reset() {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
}

/// Checks every socket of this worker and closes the reset ones.
fn end_reset_connections(worker: usize, paused: Duration, shared: &Shared) {
    let is_here = |number| shared.worker_of(number) == worker;
    let (clients, routes) = (shared.clients.open(), shared.interest.routes.load());
    let clients = clients.iter().map(|client| &client.outbox);
    let clients = clients.filter(|outbox| is_here(outbox.id));
    let routes = routes.iter().filter(|route| is_here(route.number));
    let outboxes = clients.chain(routes.map(|route| &route.outbox));
    let reset = outboxes.filter(|outbox| outbox.end_if_reset().is_some());
    let (reset, paused_ms) = (reset.count(), paused.as_millis());
    if reset > 0 {
        warn!(
            worker,
            paused_ms,
            reset,
            "worker was paused; connections reset meanwhile are closed and their unread input is dropped"
        );
    } else {
        debug!(
            worker,
            paused_ms, "worker was paused; no connection was reset meanwhile"
        );
    }
}
