//! All that a registry knows, for the process that replaces this one: the registry goes on there, also if no source of nodes can be reached.

use serde::{Deserialize, Serialize};

use crate::cache::CacheContents;
use crate::gossip::Gossip;

/// The nodes that a registry knows, and the last INFO of a node. Has the credentials of nodes that other nodes have named.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryMemory {
    /// The contents of the cache file, which may be off.
    pub(crate) contents: CacheContents,
    pub(crate) gossip: Gossip,
}

impl std::fmt::Debug for RegistryMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RegistryMemory").finish_non_exhaustive()
    }
}
