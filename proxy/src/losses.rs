//! Messages that the sidecar knows to be lost, gathered over all sessions for one log line a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::tally::Tally;

/// The way in which messages were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Written to a node that died before it acked them, and not sent again (`publish.in_doubt = "drop"`).
    InDoubt,
    /// Held by a session that ended before a node took them.
    Abandoned,
}

impl Loss {
    /// Stable name, for logs and the label of `standin_lost_total`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InDoubt => "in_doubt",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Losses of one kind since the last log line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    pub(crate) sessions: u64,
    /// Size of all frames that these sessions abandoned, not only of the messages.
    pub(crate) abandoned_bytes: u64,
    pub(crate) subjects: Tally,
}

/// All losses since the last log line, and their number since the start.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// One entry for each [`Loss`].
    gathered: [Mutex<Gathered>; 2],
    /// Messages lost since the start, one entry for each [`Loss`].
    totals: [AtomicU64; 2],
    changed: Notify,
}

impl Losses {
    /// Adds lost messages of one session. `abandoned_bytes` is the size of all frames that it abandoned.
    pub(crate) fn add(&self, loss: Loss, subjects: &Tally, abandoned_bytes: usize) {
        if subjects.is_empty() {
            return;
        }
        self.totals[loss as usize].fetch_add(subjects.total(), Relaxed);
        let mut gathered = self.of(loss);
        gathered.sessions += 1;
        gathered.abandoned_bytes += abandoned_bytes as u64;
        gathered.subjects.add(subjects);
        self.changed.notify_one();
    }

    /// Waits until something is lost. Returns at once if that has happened since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns and resets the losses of one kind since the last call, if there are any.
    pub(crate) fn take(&self, loss: Loss) -> Option<Gathered> {
        let mut gathered = self.of(loss);
        (gathered.sessions > 0).then(|| std::mem::take(&mut *gathered))
    }

    /// Returns the number of messages lost in this way since the start.
    pub(crate) fn total(&self, loss: Loss) -> u64 {
        self.totals[loss as usize].load(Relaxed)
    }

    /// Returns the number of messages lost in each way since the start.
    pub(crate) fn totals(&self) -> Vec<u64> {
        self.totals.iter().map(|total| total.load(Relaxed)).collect()
    }

    /// Goes on with the numbers of the former program.
    pub(crate) fn restore(&self, totals: &[u64]) {
        for (total, restored) in self.totals.iter().zip(totals) {
            total.store(*restored, Relaxed);
        }
    }

    fn of(&self, loss: Loss) -> MutexGuard<'_, Gathered> {
        let gathered = self.gathered[loss as usize].lock();
        gathered.unwrap_or_else(PoisonError::into_inner)
    }
}
