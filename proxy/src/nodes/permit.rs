//! Permission to dial a node.
//!
//! At most `dial.dials_concurrent_max` connections to one node are in setup at the same time. A failed node is dialled by
//! one session or probe at a time, and not before its retry time. The rate of dials to all failed nodes together is
//! limited too. So a thousand waiting sessions cause a few dials a second, and all of them learn from each dial.

use std::sync::Arc;
use std::time::Instant;

use standin_registry::{Endpoint, Node};
use tokio::sync::OwnedSemaphorePermit;

use super::{NodeBook, lock};

/// Permission to dial a node. It is held until the node has taken the session or failed.
#[derive(Debug)]
pub(crate) struct Permit {
    trial: Option<Trial>,
    /// Bounds the connections to one node that are in setup. `None` for a connection of the former program.
    _dial: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Returns the permit of a connection of the former program.
    pub(crate) const fn of_former() -> Self {
        Self {
            trial: None,
            _dial: None,
        }
    }

    /// Returns whether dials to the node are limited. Then this dial shows whether the node has recovered.
    pub(crate) fn is_trial(&self) -> bool {
        self.trial.is_some()
    }
}

/// The only dial to a failed node. No other dial to it begins until this value is dropped.
#[derive(Debug)]
pub(super) struct Trial {
    book: Arc<NodeBook>,
    node: Endpoint,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.book.entries).get_mut(&self.node) {
            entry.on_trial = false;
        }
    }
}

impl NodeBook {
    /// Waits for a free permit to dial `node`. Returns `None` if dials to it are limited and it may not be
    /// retried yet.
    pub(crate) async fn permit(self: &Arc<Self>, node: &Arc<Node>) -> Option<Permit> {
        let dials = self.with_entry(node, |entry, _| Arc::clone(&entry.dials));
        // Checked before and after the wait for the semaphore: many sessions may wait when the first of them finds
        // the node down.
        self.may_be_dialled(&node.client, Instant::now()).then_some(())?;
        // The semaphore is never closed.
        let dial = dials.acquire_owned().await.ok()?;
        let trial = self.begin_dial(&node.client, Instant::now())?;
        Some(Permit {
            trial,
            _dial: Some(dial),
        })
    }

    /// Returns whether dials to `node` are not limited, or its retry time has come and no other dial to it is under way.
    pub(super) fn may_be_dialled(&self, node: &Endpoint, now: Instant) -> bool {
        lock(&self.entries)
            .get(node)
            .is_none_or(|entry| !entry.is_limited(now) || entry.is_retry_due(now))
    }

    /// Begins a dial to `node` now, with a trial if dials to it are limited. Returns `None` if the limits forbid the dial.
    pub(super) fn begin_dial(self: &Arc<Self>, node: &Endpoint, now: Instant) -> Option<Option<Trial>> {
        let per_second = self.settings.load().dial.retries_per_second_max;
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(node).filter(|entry| entry.is_limited(now)) else {
            return Some(None);
        };
        if !entry.is_retry_due(now) || !lock(&self.retries).take(per_second, now) {
            return None;
        }
        entry.on_trial = true;
        Some(Some(Trial {
            book: Arc::clone(self),
            node: node.clone(),
        }))
    }
}

/// Limit on the rate of an event: a bucket that holds at most the tokens of one second. The rate is given with each call,
/// because the settings may change it.
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(per_second),
            filled_at: now,
        }
    }

    /// Takes a token. Returns `false` if there is none.
    pub(super) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let per_second = f64::from(per_second);
        let grown = now.saturating_duration_since(self.filled_at).as_secs_f64() * per_second;
        self.filled_at = now;
        self.tokens = (self.tokens + grown).min(per_second);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}
