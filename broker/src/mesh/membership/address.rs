//! Where a node may be: who says so, and when it is dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::namesake::Namesake;
use super::{Linked, Why};

/// The wait before an address is dialled again is random, at first up to this.
const REDIAL_MS_FIRST: u64 = 100;

/// Who names an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) by_hand: bool,
    pub(super) in_registry: bool,
    pub(super) by_node: bool,
}

impl Named {
    pub(super) const fn is_not(self) -> bool {
        !self.is_kept() && !self.by_node
    }

    /// Whether it is looked for as long as it is named.
    pub(super) const fn is_kept(self) -> bool {
        self.by_hand || self.in_registry
    }
}

/// Where a node may be.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) named: Named,
    /// The node that is known to be there.
    pub(super) id: Option<String>,
    pub(super) is_dialled: bool,
    pub(super) dial_at: Instant,
    pub(super) failures: u32,
    /// How often in a row nobody listened there.
    pub(super) unheard: u32,
    /// The node there is linked already, or does not want a link for a reason that waiting does not change.
    pub(super) answered: bool,
    /// Why the node there did not want a link, or this one did not, when last asked, if somebody has to mend that.
    pub(super) refused: Option<Why>,
    /// The node there has this node's id, or is linked with one that has.
    pub(super) namesake: Option<Namesake>,
    /// Run of the other node with this node's id that answered there when it was last dialled.
    pub(super) namesake_run: Option<String>,
    /// When it was last named by a node, or linked.
    pub(super) seen_at: Instant,
}

impl Address {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            named: Named::default(),
            id: None,
            is_dialled: false,
            dial_at: now,
            failures: 0,
            unheard: 0,
            answered: false,
            refused: None,
            namesake: None,
            namesake_run: None,
            seen_at: now,
        }
    }

    pub(super) fn is_linked(&self, links: &BTreeMap<String, Linked>) -> bool {
        self.id.as_ref().is_some_and(|id| links.contains_key(id))
    }

    /// Nothing is known any more of why there was no link.
    pub(super) fn has_no_word(&mut self) {
        self.refused = None;
        self.namesake = None;
        self.namesake_run = None;
    }

    /// It is dialled again after a random time up to a limit that doubles (full jitter).
    pub(super) fn dial_later(&mut self, now: Instant, dice: &mut StdRng, max: Duration) {
        let limit = (REDIAL_MS_FIRST << self.failures.min(16)).min(max.as_millis() as u64);
        self.dial_at = now + Duration::from_millis(dice.random_range(1..=limit.max(1)));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Whether an address leads to one place only.
pub(super) fn is_ip(at: &str) -> bool {
    at.parse::<SocketAddr>().is_ok()
}
