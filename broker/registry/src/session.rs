//! A ZooKeeper session, as its task (`session_task.rs`) uses it. The thread of `session_loop.rs` keeps the session alive and runs
//! the task in it.
//!
//! *Architecture invariant:* the thread sends nothing but reports to the rest of the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::children::Listing;
use crate::client::{CallError, Client};
use crate::registration_state::RegistrationEvent;

/// Report of the thread of a session.
#[derive(Debug)]
pub(crate) enum SessionReport {
    /// The session is up at `server`. There was no connection for `after`. If `is_resumed`, it is the same session as before,
    /// on a new connection.
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
    /// The connection is lost. It lasted for `lasted`. The next connection resumes the session, unless the session
    /// expires first.
    Lost {
        server: SocketAddr,
        reason: String,
        lasted: Duration,
    },
    /// All servers were tried, and none granted a session.
    Unreachable { reason: String },
    /// The thread ended: a bug, or no thread or file descriptor is left. The thread is started again.
    ThreadEnded { reason: String },
}

/// The thread is to end, or the receiver of its reports is gone.
#[derive(Debug, Error)]
#[error("stopped")]
pub(crate) struct Stopped;

/// Reason for the end of a task.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A session during one connection.
pub(crate) struct Session<'a> {
    /// Id of the session. It is the owner of the ephemeral znodes that were created in it.
    pub(crate) id: i64,
    /// Whether an earlier connection created the session.
    pub(crate) is_resumed: bool,
    pub(crate) client: Arc<Client>,
    pub(crate) server: SocketAddr,
    pub(crate) disconnected_since: Instant,
    pub(crate) reports: &'a mpsc::Sender<SessionReport>,
    /// Whether the task has reported something. Until then it is unknown whether the session is usable.
    pub(crate) is_proven: bool,
}

impl Session<'_> {
    /// Sends a report of the task. The first one proves that the session is usable, so `Up` is sent before it.
    pub(crate) async fn report(&mut self, report: SessionReport) -> Result<(), Stopped> {
        if !std::mem::replace(&mut self.is_proven, true) {
            let up = SessionReport::Up {
                server: self.server,
                after: self.disconnected_since.elapsed(),
                is_resumed: self.is_resumed,
            };
            self.send(up).await?;
        }
        self.send(report).await
    }

    async fn send(&self, report: SessionReport) -> Result<(), Stopped> {
        self.reports.send(report).await.map_err(|_| Stopped)
    }
}
