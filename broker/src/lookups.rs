//! Counters of the lookups of recipients, for the monitoring pages.

use std::sync::atomic::AtomicU64;

/// Counters of the lookups of recipients. All but `cached` count since the start.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// All lookups.
    pub(crate) total: AtomicU64,
    /// Lookups that were answered from a cache.
    pub(crate) hits: AtomicU64,
    /// Number of subjects in the caches of all workers. A subject in several caches is counted several times.
    pub(crate) cached: AtomicU64,
    /// Maximum number of recipients of one message. A queue group and another node each count as one.
    pub(crate) fanout_max: AtomicU64,
}
