//! Whether subscriptions changed that a subject could match, told without looking at any.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use crate::tokens::Tokens;

/// How many counters tell of changes. With more, fewer subjects share one.
const COUNTERS: usize = 1 << 14;

/// Tells whether subscriptions changed that a subject could match, without looking at any.
///
/// Each change counts up one counter: a subscription without wildcards that of its subject, one with wildcards that of its
/// literal head (two tokens of it at most). What was found for a subject holds as long as the four counters that could tell
/// of it stand still.
#[derive(Debug)]
pub(crate) struct Generations {
    counters: Box<[AtomicU64]>,
    hasher: FixedState,
}

/// The counters of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched([u16; 4]);

/// Which counter tells of subscriptions whose wildcard is their first token.
const ROOT: u16 = 0;

impl Generations {
    pub(crate) fn new() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: FixedState::with_seed(0x5eed),
        }
    }

    /// The counter of these bytes in this role; heads and whole subjects must not be taken for each other.
    fn counter(&self, role: u8, bytes: &[u8]) -> u16 {
        (self.hasher.hash_one((role, bytes)) as usize % COUNTERS) as u16
    }

    /// The counters that tell of subscriptions that `subject` could match.
    pub(crate) fn watched(&self, subject: &[u8]) -> Watched {
        let mut dots = (0..subject.len()).filter(|at| subject[*at] == b'.');
        let first = dots.next();
        let second = dots.next();
        let one = &subject[..first.unwrap_or(subject.len())];
        let two = &subject[..second.unwrap_or(subject.len())];
        Watched([
            ROOT,
            self.counter(1, one),
            self.counter(2, two),
            self.counter(0, subject),
        ])
    }

    /// A number that changes when one of the counters does.
    #[inline]
    pub(crate) fn sum(&self, watched: Watched) -> u64 {
        let mut sum = 0u64;
        for at in watched.0 {
            sum = sum.wrapping_add(self.counters[usize::from(at)].load(Ordering::Acquire));
        }
        sum
    }

    /// A subscription to `subject` came or went.
    pub(crate) fn changed(&self, subject: &[u8], wild: bool) {
        let at = if wild {
            let mut head = 0;
            let mut tokens = 0u8;
            for token in Tokens::of(subject) {
                if tokens == 2 || token == b"*" || token == b">" {
                    break;
                }
                head += token.len() + usize::from(tokens > 0);
                tokens += 1;
            }
            match tokens {
                0 => ROOT,
                _ => self.counter(tokens, &subject[..head]),
            }
        } else {
            self.counter(0, subject)
        };
        self.counters[usize::from(at)].fetch_add(1, Ordering::Release);
    }
}
