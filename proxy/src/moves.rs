//! The latest moves of sessions, and the sessions that ended because no node was left, for `/movez`.
//!
//! The log has one line for each of them too. The page for people shows them in order, with numbers, and also those from before it was
//! opened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use standin_registry::Node;

use crate::doubt::InDoubtCount;
use crate::peer::Peer;
use crate::state_fields::{Name, name};

/// Maximum number of moves that are kept. The death of one node moves all its sessions at once, so this is as many as a large sidecar
/// has sessions. Memory for them is used only once they happen, at most about 3 MB.
const MOVES_MAX: usize = 10_000;

/// A session that moved to another node, or that ended because there was none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Move {
    /// When it was finished.
    pub(crate) at: SystemTime,
    /// Number of the session.
    pub(crate) session: u64,
    pub(crate) component: Peer,
    /// The lost node and the new one; `None` if the session ended.
    pub(crate) nodes: Option<[Arc<Node>; 2]>,
    /// Name of the [`Cause`](crate::cause::Cause) of the move, or of the [`EndReason`](crate::EndReason).
    #[serde(with = "name")]
    pub(crate) cause: Name,
    /// Time from the last byte of the lost node to the first answer of the new one.
    pub(crate) silent: Duration,
    /// Time from the noticed loss to the first answer of the new node.
    pub(crate) took: Duration,
    pub(crate) in_doubt: InDoubtCount,
    /// Held publishes that no node has taken.
    pub(crate) abandoned: u64,
    /// Number of replayed subscriptions.
    pub(crate) subscriptions: usize,
}

/// The latest moves.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Number of moves since the start.
    total: u64,
    /// Oldest first.
    latest: VecDeque<Move>,
}

impl Moves {
    pub(crate) fn add(&self, new: Move) {
        let mut kept = self.lock();
        kept.total += 1;
        if kept.latest.len() >= MOVES_MAX {
            kept.latest.pop_front();
        }
        kept.latest.push_back(new);
    }

    /// Returns all moves that are kept, the oldest first.
    pub(crate) fn kept(&self) -> Vec<Move> {
        self.lock().latest.iter().cloned().collect()
    }

    /// Goes on with the moves of the former program.
    pub(crate) fn restore(&self, total: u64, latest: Vec<Move>) {
        let latest = latest.into();
        *self.lock() = Kept { total, latest };
    }

    /// Returns the number of moves since the start.
    pub(crate) fn total(&self) -> u64 {
        self.lock().total
    }

    /// Skips the `offset` newest moves and returns at most `limit` of the following ones, newest first, each with its number since the
    /// start. Also returns the number of moves that are kept.
    pub(crate) fn page(&self, offset: usize, limit: usize) -> (usize, Vec<(u64, Move)>) {
        let kept = self.lock();
        let newest_first = (1..=kept.total).rev().zip(kept.latest.iter().rev());
        let page = newest_first.skip(offset).take(limit);
        let page = page.map(|(number, one)| (number, one.clone()));
        (kept.latest.len(), page.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_moves_are_kept_with_their_numbers() {
        let moves = Moves::default();
        let one = Move {
            at: SystemTime::UNIX_EPOCH,
            session: 7,
            component: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            nodes: None,
            cause: "outage",
            silent: Duration::ZERO,
            took: Duration::ZERO,
            in_doubt: InDoubtCount::default(),
            abandoned: 0,
            subscriptions: 0,
        };
        for _ in 0..MOVES_MAX + 5 {
            moves.add(one.clone());
        }
        let total = MOVES_MAX as u64 + 5;
        assert_eq!(moves.total(), total);
        let numbers = |offset, limit| {
            let (kept, page) = moves.page(offset, limit);
            assert_eq!(kept, MOVES_MAX);
            page.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(0, 2), [total, total - 1]);
        assert_eq!(numbers(MOVES_MAX - 1, 9), [6]);
        assert!(numbers(MOVES_MAX, 9).is_empty());
    }
}
