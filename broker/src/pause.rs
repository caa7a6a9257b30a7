//! Detection of a worker's pause: for a while it did not run, because the process was stopped (SIGSTOP) or the
//! machine was.
//!
//! Input that arrived during a pause may be out of date. A sidecar or a node that gave this node up has reset the
//! connection, counts its bytes as lost, and sends further messages elsewhere. The old input, if delivered now, would
//! come after newer messages. So, for clients and links alike, a worker checks each of its sockets for a reset after
//! a pause, before it takes any input. It closes the reset ones and drops their unread input. For a moment after
//! that, each read repeats the check, for connections that wait to be accepted and for late resets.
//!
//! A connection that was closed in order is not reset: all bytes before its end are delivered. (The system also
//! resets a connection that the peer closes before it has read all bytes from the node; this cannot be distinguished
//! from a peer that gave the node up.) Without a pause, input of a reset connection counts as usual. A pause in which
//! the machine's clock stops too is not detected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::closing::Reason;
use crate::outbox::Outbox;
use crate::shared::Shared;

/// Longest gap in a worker's runs that is not a pause. No peer gives a node up so soon.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Interval at which an idle worker runs the check.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Time after a pause in which each read checks for a reset.
const AFTERMATH: Duration = Duration::from_secs(1);

/// The pause detection of one worker.
#[derive(Debug)]
pub(crate) struct PauseWatch {
    worker: usize,
    ran_at: Instant,
    /// Time until which each read checks for a reset.
    asks_until: Option<Instant>,
}

impl PauseWatch {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            ran_at: Instant::now(),
            asks_until: None,
        }
    }

    /// Records that the worker runs now. After a pause, closes the reset connections.
    pub(crate) fn look(&mut self, shared: &Shared) {
        let now = Instant::now();
        let paused = now.saturating_duration_since(self.ran_at);
        self.ran_at = now;
        if paused > PAUSE_MIN {
            self.asks_until = Some(now + AFTERMATH);
            end_reset_connections(self.worker, paused, shared);
        } else if self.asks_until.is_some_and(|until| now >= until) {
            self.asks_until = None;
        }
    }

    /// Calls [`look`](Self::look) between a read from a connection and the processing of its bytes.
    ///
    /// # Errors
    /// The connection was reset during a pause, so the bytes just read do not count.
    #[inline]
    pub(crate) fn admit(&mut self, shared: &Shared, outbox: &Outbox) -> Result<(), Reason> {
        self.look(shared);
        if self.asks_until.is_none() {
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
    let is_here = |number| shared.home(number) == worker;
    let clients = shared.clients.open();
    let clients = clients
        .iter()
        .filter(|client_info| is_here(client_info.outbox.id));
    let links = shared.interest.links.load();
    let links = links.iter().filter(|link| is_here(link.number));
    let outboxes = clients
        .map(|client_info| &client_info.outbox)
        .chain(links.map(|link| &link.outbox));
    let reset = outboxes.filter(|outbox: &&Arc<Outbox>| outbox.end_if_reset().is_some());
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
