//! A pause of a worker: for a while it did not run, because the process was stopped (SIGSTOP) or its machine was.
//!
//! What came in meanwhile may be out of date. A sidecar or a node that gave this node up has reset the connection, counts what it had
//! sent there as lost, and sends on elsewhere; delivered now, it would come behind newer messages. So, for clients and links alike:
//! after a pause a worker asks each of its sockets whether it was reset, before it takes any input, and ends those that were, with
//! their unread input. For a moment after that it asks again at each read, for connections that wait to be accepted and resets that
//! come late.
//!
//! A connection that was closed in order is not reset: all that came before its end is delivered. (The system resets one that is
//! closed before all that the node had sent on it was read; nothing tells that from giving the node up.) Input of a reset connection
//! counts as ever when there was no pause. A pause in which the clock of the machine stands still too is not seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::closing::Reason;
use crate::outbox::Outbox;
use crate::shared::Shared;
use crate::worker::home;

/// A worker that was not seen running for longer was paused. No peer gives a node up so soon.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A worker with nothing to do is seen running so often.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Each read asks for so long after a pause.
const AFTERMATH: Duration = Duration::from_secs(1);

/// See the file's head.
#[derive(Debug)]
pub(crate) struct PauseWatch {
    worker: usize,
    ran_at: Instant,
    /// Each read asks until then.
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

    /// Notes that the worker runs now, and does what is due after a pause.
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

    /// [`look`](Self::look), between reading from a connection and taking what was read.
    ///
    /// # Errors
    /// The connection was reset during a pause, and what was read does not count.
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

/// Asks every socket of this worker.
fn end_reset_connections(worker: usize, paused: Duration, shared: &Shared) {
    let is_here = |number| home(number, shared.workers) == worker;
    let clients = shared.clients.open();
    let clients = clients.iter().filter(|card| is_here(card.outbox.id));
    let links = shared.interest.links.load();
    let links = links.iter().filter(|link| is_here(link.number));
    let outboxes = clients
        .map(|card| &card.outbox)
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

/// Whether the connection was cut off by the other side or the network. A reset of a connection that the other side had
/// closed in order before, which is a broken pipe, is none.
pub(crate) fn was_reset(socket: &TcpStream) -> bool {
    use std::io::ErrorKind::BrokenPipe;
    matches!(socket.take_error(), Ok(Some(error)) if error.kind() != BrokenPipe)
}
