//! An address at which a node may be: which sources name it, and when it is dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::RouteState;
use super::namesake::Namesake;

/// Limit on the random delay before the first redial.
const REDIAL_MS_FIRST: u64 = 100;

/// What is known about one address, and which sources name it: the configuration, the registry, other nodes.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) is_configured: bool,
    pub(super) is_registered: bool,
    pub(super) is_named_by_peer: bool,
    /// Id of the node at this address, if known.
    pub(super) id: Option<String>,
    pub(super) is_dialled: bool,
    pub(super) dial_at: Instant,
    pub(super) failures: u32,
    /// Number of refused connections (ECONNREFUSED) in a row.
    pub(super) connects_refused: u32,
    /// The node was linked, or the route was refused for a reason other than `Linked` or a duplicate id. A starting node does not
    /// wait for this address.
    pub(super) answered: bool,
    /// Text of the last refusal by either side, if an operator has to correct something.
    pub(super) refusal: Option<String>,
    /// Set if the node at this address has this node's id, or is linked with another node that has this id.
    pub(super) namesake: Option<Namesake>,
    /// Run of the node that answered the last dial of this address, if it is another node with this node's id.
    pub(super) namesake_run: Option<String>,
    /// Time at which a node last named this address, or at which its route was lost.
    pub(super) seen_at: Instant,
}

impl Address {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_configured: false,
            is_registered: false,
            is_named_by_peer: false,
            id: None,
            is_dialled: false,
            dial_at: now,
            failures: 0,
            connects_refused: 0,
            answered: false,
            refusal: None,
            namesake: None,
            namesake_run: None,
            seen_at: now,
        }
    }

    /// Returns whether a source names the address.
    pub(super) const fn is_named(&self) -> bool {
        self.is_permanent() || self.is_named_by_peer
    }

    /// Returns whether the address does not expire, unlike one that only other nodes name.
    pub(super) const fn is_permanent(&self) -> bool {
        self.is_configured || self.is_registered
    }

    pub(super) fn is_linked(&self, routes: &BTreeMap<String, RouteState>) -> bool {
        self.id.as_ref().is_some_and(|id| routes.contains_key(id))
    }

    /// Returns whether the address is neither linked nor being dialled.
    pub(super) fn is_open(&self, routes: &BTreeMap<String, RouteState>) -> bool {
        !self.is_dialled && !self.is_linked(routes)
    }

    /// Clears what the last refusal said.
    pub(super) fn clear_refusal(&mut self) {
        self.refusal = None;
        self.namesake = None;
        self.namesake_run = None;
    }

    /// Sets the time of the next dial: after a random delay up to a limit that doubles with each failure (full jitter). Returns whether
    /// this is the first failure in a row.
    pub(super) fn dial_later(&mut self, now: Instant, rng: &mut StdRng, max: Duration) -> bool {
        let limit = (REDIAL_MS_FIRST << self.failures.min(16)).min(max.as_millis() as u64);
        self.dial_at = now + Duration::from_millis(rng.random_range(1..=limit.max(1)));
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }
}

/// Returns whether an address is an IP address, not a host name, which may resolve to several.
pub(super) fn is_ip(at: &str) -> bool {
    at.parse::<SocketAddr>().is_ok()
}
