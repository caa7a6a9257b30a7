//! What a ZooKeeper session is for. There are two duties, to watch the nodes and to announce one; the thread
//! in `zookeeper.rs` keeps a session going for either, and knows nothing of what is done in it.
//!
//! *Architecture invariant.* Only reports leave that thread.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::client::{CallError, Changes, Client};

/// Changes that come in a burst are looked at together.
pub(crate) const BURST_MS: u64 = 20;

/// Something to be done in a session, and again in the next when that one is lost. It lives on from session
/// to session; a clone of it as it was made begins again when the thread had to be started anew.
pub(crate) trait Duty: Clone + Send + 'static {
    /// What it tells, besides how the session is.
    type Word: Send + 'static;
    /// The thread's name, at most 15 bytes.
    const NAME: &'static str;

    /// Does its work until a call fails. May be dropped at any point, when the session is lost or to be
    /// ended.
    async fn serve(&mut self, session: &mut Session<'_, Self::Word>) -> Result<Infallible, Broken>;

    /// What has to be done before the session is closed in good order; it has little time.
    async fn leave(&mut self, client: &Client);
}

/// What leaves the thread.
#[derive(Debug)]
pub(crate) enum Report<W> {
    /// A session with this server is up, after so long without one. It may be the one before, on a new connection.
    Up {
        server: SocketAddr,
        after: Duration,
        is_continued: bool,
    },
    /// What the duty tells.
    Word(W),
    /// The connection is lost, after so long; the session goes on in the next, unless it expires before.
    Lost {
        server: SocketAddr,
        reason: String,
        lasted: Duration,
    },
    /// A whole round of servers gave no session.
    Unreachable { reason: String },
    /// The thread itself ended, which only a bug or a full machine can cause; it is started again.
    Fallen { reason: String },
}

/// Whoever listened is gone, or wants the thread to end.
pub(crate) struct Gone;

/// Why a session does not go on.
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

/// One session, as a duty sees it, for as long as one connection lasts.
pub(crate) struct Session<'a, W> {
    /// ZooKeeper's number of the session: the owner of the ephemeral znodes made in it.
    pub(crate) number: i64,
    /// An earlier connection began it.
    pub(crate) is_continued: bool,
    pub(crate) client: Arc<Client>,
    pub(crate) changes: Changes,
    pub(crate) server: SocketAddr,
    pub(crate) without_since: Instant,
    pub(crate) reports: &'a mpsc::Sender<Report<W>>,
    /// The duty has told something; a session that gives it nothing to tell is none.
    pub(crate) is_proven: bool,
}

impl<W> Session<'_, W> {
    /// Tells something. The first word shows that the session is up: until a duty has something to tell, a
    /// session has been of no use.
    pub(crate) async fn tell(&mut self, word: W) -> Result<(), Gone> {
        if !std::mem::replace(&mut self.is_proven, true) {
            let (server, after) = (self.server, self.without_since.elapsed());
            let is_continued = self.is_continued;
            self.report(Report::Up {
                server,
                after,
                is_continued,
            })
            .await?;
        }
        self.report(Report::Word(word)).await
    }

    async fn report(&self, report: Report<W>) -> Result<(), Gone> {
        self.reports.send(report).await.map_err(|_| Gone)
    }
}

/// A time, as log lines have it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks at this interval, first after one.
pub(crate) fn every(interval_ms: u64) -> tokio::time::Interval {
    let interval = Duration::from_millis(interval_ms);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
