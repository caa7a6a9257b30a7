//! A ZooKeeper session, as its task (`session_task.rs`) uses it. The thread of `session_loop.rs` keeps the session alive and runs
//! the task in it.
//!
//! *Architecture invariant:* the thread sends nothing but reports to the rest of the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::children::Listing;
use crate::client::{CallError, ChangeQueue, Client};
use crate::registration_state::RegistrationEvent;

/// Time for which changes are collected, so that a burst of changes is handled together.
pub(crate) const BURST_MS: u64 = 20;

/// Report of the thread of a session.
#[derive(Debug)]
pub(crate) enum SessionReport {
    /// The session is up at `server`. There was no connection for the time `after`. If `is_resumed`, it is the same session as
    /// before, on a new connection.
    Up {
        server: SocketAddr,
        after: Duration,
        is_resumed: bool,
    },
    /// All nodes that are registered now.
    Listing(Listing),
    /// The comparison with the server found this number of differences that no watch had reported.
    Audited { differences: usize },
    /// Event of this node's own registration.
    Registration(RegistrationEvent),
    /// The connection is lost. It lasted for the time `lasted`. The next connection resumes the session, unless it expires
    /// before.
    Lost {
        server: SocketAddr,
        reason: String,
        lasted: Duration,
    },
    /// All servers were tried, and none granted a session.
    Unreachable { reason: String },
    /// The thread ended. The cause is a bug or a lack of memory. It is started again.
    ThreadEnded { reason: String },
}

/// The thread is to end, or the receiver of its reports is gone.
pub(crate) struct Stopped;

/// Reason for the end of a task.
pub(crate) enum SessionError {
    Stopped,
    Failed(String),
}

impl From<Stopped> for SessionError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<CallError> for SessionError {
    fn from(error: CallError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A session during one connection.
pub(crate) struct Session<'a> {
    /// Id of the session. It is the owner of the ephemeral znodes that were created in it.
    pub(crate) id: i64,
    /// Whether an earlier connection created the session.
    pub(crate) is_resumed: bool,
    pub(crate) client: Arc<Client>,
    pub(crate) changes: ChangeQueue,
    pub(crate) server: SocketAddr,
    pub(crate) disconnected_since: Instant,
    pub(crate) reports: &'a mpsc::Sender<SessionReport>,
    /// Whether the task has reported something. Until then the session may not be usable.
    pub(crate) is_proven: bool,
}

impl Session<'_> {
    /// Sends a report of the task. The first one proves that the session is usable, so `Up` is sent before it.
    pub(crate) async fn report(&mut self, report: SessionReport) -> Result<(), Stopped> {
        if !std::mem::replace(&mut self.is_proven, true) {
            let (server, after) = (self.server, self.disconnected_since.elapsed());
            let is_resumed = self.is_resumed;
            self.send(SessionReport::Up {
                server,
                after,
                is_resumed,
            })
            .await?;
        }
        self.send(report).await
    }

    async fn send(&self, report: SessionReport) -> Result<(), Stopped> {
        self.reports.send(report).await.map_err(|_| Stopped)
    }
}

/// Returns a time in milliseconds, for log lines.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Creates an interval timer whose first tick comes after one interval.
pub(crate) fn every(interval_ms: u64) -> tokio::time::Interval {
    let interval = Duration::from_millis(interval_ms);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
