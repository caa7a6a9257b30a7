//! Counts of how often a worker looks up who gets a message, for the pages.

use std::sync::atomic::AtomicU64;

/// Look-ups of who gets a message, since start.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// All of them.
    pub(crate) total: AtomicU64,
    /// Those for which the answer was remembered.
    pub(crate) hits: AtomicU64,
    /// Subjects that the workers remember now, those that several remember counted several times.
    pub(crate) cached: AtomicU64,
    /// The most subscriptions that one message went to.
    pub(crate) fanout_max: AtomicU64,
}
