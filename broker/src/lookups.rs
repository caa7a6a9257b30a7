//! Counters of the lookups of a message's subscribers, for the pages.

use std::sync::atomic::AtomicU64;

/// Counters of the lookups of a message's subscribers, since the start.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// All lookups.
    pub(crate) total: AtomicU64,
    /// Lookups that were answered from a cache.
    pub(crate) hits: AtomicU64,
    /// Number of subjects in the caches of all workers. A subject in several caches is counted several times.
    pub(crate) cached: AtomicU64,
    /// Maximum number of subscriptions to which one message was delivered.
    pub(crate) fanout_max: AtomicU64,
}
