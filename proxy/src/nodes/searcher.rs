//! The count of sessions that look for another node. It determines how long they wait before a dial.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::NodeBook;

/// One counted session that looks for a node. Dropping the value removes it from the count.
#[derive(Debug)]
pub(crate) struct Searcher {
    book: Arc<NodeBook>,
    /// Other sessions that were looking for a node when this one began.
    others: usize,
}

impl Searcher {
    /// Returns a random wait before the first dial, so that many sessions do not dial at the same time. The wait grows
    /// with the number of other sessions that search. It is zero with at most `dial.dials_concurrent_max` of them.
    pub(crate) fn spread(&self) -> Duration {
        let dial = &self.book.settings.load().dial;
        let excess = self.others.saturating_sub(dial.dials_concurrent_max);
        let excess = u32::try_from(excess).unwrap_or(u32::MAX);
        let spread = dial.spread_us_per_session.duration().saturating_mul(excess);
        spread.min(dial.spread_max_ms.duration()).mul_f64(rand::random())
    }
}

impl Drop for Searcher {
    fn drop(&mut self) {
        self.book.searching.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NodeBook {
    /// Counts a session that looks for another node, until the returned value is dropped.
    pub(crate) fn searcher(self: &Arc<Self>) -> Searcher {
        let others = self.searching.fetch_add(1, Ordering::Relaxed);
        Searcher {
            book: Arc::clone(self),
            others,
        }
    }
}
