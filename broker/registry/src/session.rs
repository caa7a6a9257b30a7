//! One ZooKeeper session as its work sees it, for as long as one connection lasts, and the reports that leave the
//! thread of the session.
//!
//! *Architecture invariant.* Only reports leave that thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::children::Listing;
use crate::client::{CallError, Changes, Client};
use crate::registration::Word;

/// Changes that come in a burst are handled together.
pub(crate) const BURST_MS: u64 = 20;

/// A report of the thread.
#[derive(Debug)]
pub(crate) enum Report {
    /// A session with this server is up, `after` a time without one. `is_continued`: it is the session of the
    /// connection before.
    Up {
        server: SocketAddr,
        after: Duration,
        is_continued: bool,
    },
    /// All that is registered now.
    Listing(Listing),
    /// The audit found this number of changes without a watch event.
    Audited { differences: usize },
    /// State of this node's own registration.
    Registration(Word),
    /// The connection is lost. The session continues over the next one, unless it expires before.
    Lost {
        server: SocketAddr,
        reason: String,
        lasted: Duration,
    },
    /// A whole round of servers gave no session.
    Unreachable { reason: String },
    /// The thread itself ended, by a bug or because the machine is out of resources. It is started again.
    Fallen { reason: String },
}

/// The reader of the reports is gone, or the thread was told to end.
pub(crate) struct Gone;

/// Reason for the end of a connection.
pub(crate) enum Broken {
    Gone,
    Failed(String),
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A session over one connection.
pub(crate) struct Session<'a> {
    /// ZooKeeper's number of the session, which is the owner of the ephemeral znodes created in it.
    pub(crate) number: i64,
    /// An earlier connection began the session.
    pub(crate) is_continued: bool,
    pub(crate) client: Arc<Client>,
    pub(crate) changes: Changes,
    pub(crate) server: SocketAddr,
    pub(crate) without_since: Instant,
    pub(crate) reports: &'a mpsc::Sender<Report>,
    /// The session has given something to report. Before that it counts as none.
    pub(crate) is_proven: bool,
}

impl Session<'_> {
    /// Sends a report. The first one is preceded by [`Report::Up`].
    pub(crate) async fn tell(&mut self, report: Report) -> Result<(), Gone> {
        if !std::mem::replace(&mut self.is_proven, true) {
            let (server, after) = (self.server, self.without_since.elapsed());
            let is_continued = self.is_continued;
            self.send(Report::Up {
                server,
                after,
                is_continued,
            })
            .await?;
        }
        self.send(report).await
    }

    async fn send(&self, report: Report) -> Result<(), Gone> {
        self.reports.send(report).await.map_err(|_| Gone)
    }
}

/// Returns a duration in milliseconds, as log lines have it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns ticks at this interval. The first comes after one interval.
pub(crate) fn every(interval_ms: u64) -> tokio::time::Interval {
    let interval = Duration::from_millis(interval_ms);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
