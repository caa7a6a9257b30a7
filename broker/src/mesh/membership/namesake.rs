//! Two nodes with the same id (*namesakes*): the rules that decide which of them keeps the id.
//!
//! - An incumbent that answers keeps the id. The newcomer is refused and ends.
//! - If the incumbent is draining, the newcomer waits for its end.
//! - A silent incumbent loses the id.
//! - If neither serves clients yet, the one with the lower (began, run) keeps the id.
//! - With a registry, a node that serves gives up its id only if the registry's record of the id has another run, and that run
//!   answers on its mesh address.
//! - Without a registry, if both serve and are linked to different nodes, the one with more routes keeps the id; with equal
//!   numbers, the one with the lower (began, run). So a node that was frozen and replaced ends when it runs again.
//!
//! A claim of the id does not prove that the incumbent is dead. A third node that is linked with the incumbent sends it a PING first,
//! and accepts the newcomer only if no PONG comes: a route may exist for a while after its node has died.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Membership;
use super::address::Address;
use crate::route::hello::{Hello, RefusalReason};

/// Time after a PONG in which a node counts as alive.
const ALIVE_FOR: Duration = Duration::from_secs(1);

/// Returns whether `one` keeps the id against `other`. A node that serves precedes one that does not; else the one that started
/// first precedes.
pub(super) fn precedes(one: &Hello, other: &Hello) -> bool {
    (!one.serving, one.began, &one.run) < (!other.serving, other.began, &other.run)
}

/// Returns whether the route with `holder` is replaced by one with `claimant`, which has the same id. That is so if `holder` does not
/// serve yet and `claimant` precedes. If it were refused, `claimant` would have to wait for the end of `holder`, and would compete
/// with each new run of it.
pub(super) fn is_replaced_by(holder: &Hello, claimant: &Hello) -> bool {
    holder.run != claimant.run && !holder.serving && precedes(claimant, holder)
}

/// Returns the reason to refuse `claimant`, because `holder` has the same id. `seen_at` is the time at which `holder` was last known
/// to be alive.
pub(super) fn refusal(
    holder: &Hello,
    seen_at: Option<Instant>,
    claimant: &Hello,
    now: Instant,
) -> RefusalReason {
    let is_alive = seen_at.is_some_and(|at| now.duration_since(at) < ALIVE_FOR);
    if !is_alive || holder.draining {
        // The holder may be dead, or is ending: the claimant should try again.
        RefusalReason::DuplicateId
    } else if precedes(holder, claimant) {
        RefusalReason::PrecedingDuplicate
    } else {
        RefusalReason::LivingDuplicate
    }
}

/// What an address has shown about another node with this node's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namesake {
    /// The namesake is alive.
    pub(super) is_alive: bool,
    /// The namesake keeps the id, and this node ends.
    pub(super) precedes: bool,
    /// The namesake was reached at this address, and gives up the id.
    pub(super) yields: bool,
    /// The node at this address is not the namesake, but reports that it is linked with the namesake.
    pub(super) is_reported: bool,
}

impl Namesake {
    /// Evaluates a refusal by the peer (`by_peer`) or by this node. `is_own`: the peer has this node's id. Returns `None` if the refusal
    /// says nothing about a namesake of this node.
    pub(super) fn from_refusal(why: RefusalReason, by_peer: bool, is_own: bool) -> Option<Self> {
        // This node has refused a peer because of a duplicate of the peer's id, not of this node's.
        if !why.is_duplicate() || !(by_peer || is_own) {
            return None;
        }
        let is_alive = is_own || why != RefusalReason::DuplicateId;
        // A refusal with `PrecedingDuplicate` says that the refusing node, or the one linked with it, keeps the id.
        let (keeps, gives_up) = (RefusalReason::PrecedingDuplicate, RefusalReason::LivingDuplicate);
        let (precedes, yields) = if by_peer {
            (keeps, gives_up)
        } else {
            (gives_up, keeps)
        };
        Some(Self {
            is_alive,
            precedes: why == precedes,
            // Only if the namesake itself answered: a third node's refusal means that it is linked with the namesake.
            yields: is_own && why == yields,
            is_reported: !is_own,
        })
    }
}

impl Membership {
    /// Returns the known namesakes, each with the id of the node that answered. Ignores refusals of nodes that have been linked
    /// since.
    fn namesakes(&self) -> impl Iterator<Item = (Option<&str>, Namesake)> {
        let addresses = self.addresses.values();
        let unlinked = addresses.filter(|address| !address.is_linked(&self.routes));
        unlinked.filter_map(|address| Some((address.id.as_deref(), address.namesake?)))
    }

    /// Returns whether another node with this node's id is known to keep the id (`true`), or exists but may give it up (`false`).
    /// Returns `None` if there is no such node. A namesake that was reached and gives up the id does not count.
    pub(crate) fn namesake_precedes(&self) -> Option<bool> {
        let others = self.namesakes().filter(|(_, namesake)| !namesake.yields);
        others.map(|(_, namesake)| namesake.precedes).max()
    }

    /// Returns whether another node with this node's id is known to be alive.
    pub(crate) fn has_living_namesake(&self) -> bool {
        self.namesakes().any(|(_, namesake)| namesake.is_alive)
    }

    /// Returns the run in the registry's record of this node's id, if the node of that record does not answer, and no peer knows of a
    /// namesake. Returns `None` if other nodes are registered and none is linked: this node may then be the one that is cut off.
    pub(crate) fn silent_namesake(&self) -> Option<&str> {
        let run = self.registered_namesake.as_deref()?;
        let registered = || self.addresses.values().filter(|at| at.is_registered);
        let is_own = |at: &Address| at.id.as_ref() == Some(&self.rules.own.id);
        let is_silent = registered().any(|at| is_own(at) && at.failures > 0 && at.namesake_run.is_none());
        let knows_enough = !self.routes.is_empty() || registered().all(is_own);
        (is_silent && knows_enough && self.namesakes().next().is_none()).then_some(run)
    }

    /// Returns whether the registry's record of this node's id has another run, and that run answers on its mesh address.
    pub(crate) fn is_superseded(&self) -> bool {
        let run = self.registered_namesake.as_ref();
        let mut addresses = self.addresses.values();
        run.is_some() && addresses.any(|at| at.namesake_run.as_ref() == run)
    }

    /// Returns whether this node has to give up its id, in a cluster without a registry: more nodes are linked with a live namesake
    /// than with this node, or the numbers are equal and the namesake precedes. Both nodes compare the same numbers, so exactly one
    /// of them ends.
    pub(crate) fn is_outnumbered(&self) -> bool {
        // A node may be known at several addresses, and is counted once.
        let (mut with_it, mut it_precedes) = (BTreeSet::new(), false);
        for (id, namesake) in self.namesakes().filter(|(_, namesake)| namesake.is_alive) {
            if namesake.is_reported {
                with_it.insert(id);
            }
            it_precedes |= namesake.precedes;
        }
        let own = self.routes.len();
        !self.rules.has_registry && (with_it.len() > own || (with_it.len() == own && it_precedes))
    }
}
