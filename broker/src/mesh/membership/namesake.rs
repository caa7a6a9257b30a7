//! Two nodes of one id: which of them keeps the name.
//!
//! - An incumbent that answers keeps the name. The newcomer is refused and ends.
//! - A draining incumbent is waited for.
//! - A silent incumbent loses the name.
//! - Of two that still join, the one with the lower (began, run) stays.
//! - With a registry, a node that serves gives its name up only if the record has another run and that run answers on
//!   its mesh address.
//! - Without a registry, of two that serve and are linked to different nodes, the one with more links stays; of equals
//!   the one with the lower (began, run). So a node that was frozen and replaced goes when it thaws.
//!
//! To claim the id proves nothing. A third node that is linked with the incumbent asks it for a PONG first: a link may
//! outlive its node for a while.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Membership;
use super::address::Address;
use crate::route::hello::{Hello, Why};

/// So long a node that has shown that it lives is taken to.
const LIVES_FOR: Duration = Duration::from_secs(1);

/// Whether of two nodes with one id this one stays: one that serves before one that still joins, then the one whose life began first.
pub(super) fn precedes(one: &Hello, other: &Hello) -> bool {
    (!one.serving, one.began, &one.run) < (!other.serving, other.began, &other.run)
}

/// Whether a link with `holder` is given to `claimant`, which has the same id: of two that join, the one that stays need not wait for the other to
/// end, nor compete with what a supervisor starts in its place again and again.
pub(super) fn gives_way(holder: &Hello, claimant: &Hello) -> bool {
    holder.run != claimant.run && !holder.serving && precedes(claimant, holder)
}

/// Why `claimant` is refused where the node with its id is `holder`, which lives as far as was seen last.
pub(super) fn refusal(holder: &Hello, seen_at: Option<Instant>, claimant: &Hello, now: Instant) -> Why {
    let lives = seen_at.is_some_and(|at| now.duration_since(at) < LIVES_FOR);
    if !lives || holder.draining {
        // It may be gone, or is about to: to be asked again.
        Why::DuplicateId
    } else if precedes(holder, claimant) {
        Why::PrecedingDuplicate
    } else {
        Why::LivingDuplicate
    }
}

/// Why of `own` and `other`, which has the same id and is connected, that one is refused.
pub(super) fn refusal_of(own: &Hello, other: &Hello, now: Instant) -> Why {
    if other.draining {
        return Why::DuplicateId;
    }
    refusal(own, Some(now), other, now)
}

/// What there is at an address of another node with this node's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namesake {
    pub(super) lives: bool,
    /// It stays, and this node goes.
    pub(super) precedes: bool,
    /// It still joins, and goes.
    pub(super) yields: bool,
    /// A third node is linked with it.
    pub(super) by_third: bool,
}

impl Namesake {
    /// From a refusal: `theirs`, or by this node; `is_own`: whoever is there has this node's id.
    pub(super) fn told(why: Why, theirs: bool, is_own: bool) -> Option<Self> {
        // That a third one is of two lives is nothing to this node.
        if !why.is_duplicate() || !(theirs || is_own) {
            return None;
        }
        let lives = is_own || why != Why::DuplicateId;
        let (precedes, goes) = if theirs {
            (Why::PrecedingDuplicate, Why::LivingDuplicate)
        } else {
            (Why::LivingDuplicate, Why::PrecedingDuplicate)
        };
        Some(Self {
            lives,
            precedes: why == precedes,
            // Nobody is linked with it, as far as is known here; who is says so.
            yields: is_own && why == goes,
            by_third: !is_own,
        })
    }
}

impl Membership {
    /// Returns the known namesakes, each with the id of the node that answered. What a node said before it was linked does
    /// not count any more.
    fn namesakes(&self) -> impl Iterator<Item = (Option<&str>, Namesake)> {
        let unlinked = self
            .addresses
            .values()
            .filter(|address| !address.is_linked(&self.links));
        unlinked.filter_map(|address| Some((address.id.as_deref(), address.namesake?)))
    }

    /// Whether there is another node with this node's id, and if so, whether that one stays: it was dialled, or a node that was is linked with it.
    /// One that was dialled and goes is none.
    pub(crate) fn namesake_precedes(&self) -> Option<bool> {
        let others = self.namesakes().filter(|(_, namesake)| !namesake.yields);
        others.map(|(_, namesake)| namesake.precedes).max()
    }

    /// Whether it is known to live.
    pub(crate) fn has_living_namesake(&self) -> bool {
        self.namesakes().any(|(_, namesake)| namesake.lives)
    }

    /// Returns the run in the registry's record of this node's id, if that record is of a node that does not answer, and no
    /// other node knows of a namesake. A node that reaches no other node does not know enough.
    pub(crate) fn silent_namesake(&self) -> Option<&str> {
        let run = self.registered_namesake.as_deref()?;
        let registered = || self.addresses.values().filter(|at| at.named.in_registry);
        let is_own = |at: &Address| at.id.as_ref() == Some(&self.rules.own.id);
        let is_silent = registered().any(|at| is_own(at) && at.failures > 0 && at.namesake_run.is_none());
        let knows_enough = !self.links.is_empty() || registered().all(is_own);
        (is_silent && knows_enough && self.namesakes().next().is_none()).then_some(run)
    }

    /// Returns whether the registry's record of this node's id has another run, and that run answers on its mesh address.
    /// The registry informs; only a connection proves.
    pub(crate) fn is_superseded(&self) -> bool {
        let answers = |run: &String| {
            self.addresses
                .values()
                .any(|at| at.namesake_run.as_ref() == Some(run))
        };
        self.registered_namesake.as_ref().is_some_and(answers)
    }

    /// Returns whether, in a cluster without a registry, more nodes are linked with a live namesake than with this node, or
    /// as many and that one precedes. Each of the two sees the same the other way round, so that exactly one goes.
    pub(crate) fn is_outnumbered(&self) -> bool {
        // A node may be known at several addresses, and is counted once.
        let (mut with_it, mut it_precedes) = (BTreeSet::new(), false);
        for (id, namesake) in self.namesakes() {
            if namesake.by_third && namesake.lives {
                with_it.insert(id);
                it_precedes |= namesake.precedes;
            }
        }
        let own = self.links.len();
        !self.rules.has_registry && (with_it.len() > own || (with_it.len() == own && it_precedes))
    }
}
