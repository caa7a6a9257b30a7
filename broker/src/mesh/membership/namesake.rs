//! Two nodes of one id: which of them goes.
//!
//! Who claims the id proves nothing; what counts is what third nodes say that are linked with the other one, and only when that one has shown
//! since then that it lives: a link may outlive a node for a while.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Membership;
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
    /// With who told of it. What a node said before it was linked counts no more.
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

    /// Whether more nodes are linked with another one of this node's id, that lives, than with this one, or as many and that one stays. Each of the
    /// two sees the same the other way round, so that not both go.
    pub(crate) fn is_displaced(&self) -> bool {
        // A node may be known at several addresses, and is counted once.
        let (mut with_it, mut it_precedes) = (BTreeSet::new(), false);
        for (id, namesake) in self.namesakes() {
            if namesake.by_third && namesake.lives {
                with_it.insert(id);
                it_precedes |= namesake.precedes;
            }
        }
        let own = self.links.len();
        with_it.len() > own || (with_it.len() == own && it_precedes)
    }
}
