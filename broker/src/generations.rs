//! Detection of changes in the subscriptions that a subject could match, without looking at any subscription. The caches of matches use it.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use crate::tokens::Tokens;

/// Number of counters. Subjects with the same hash share a counter; with more counters fewer of them do.
const COUNTERS: usize = 1 << 14;

/// Counters of changes in the subscriptions.
///
/// Each change increments one counter: for a subscription without wildcards the counter of its subject, for one with wildcards the
/// counter of its head. The head is the literal tokens before the first wildcard, at most two. A cached match of a subject is valid as
/// long as the subject's four counters do not change.
#[derive(Debug)]
pub(crate) struct Generations {
    counters: Box<[AtomicU64]>,
    hasher: FixedState,
}

/// The counters of one subject, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubjectCounters([u16; 4]);

/// The counter of subscriptions whose first token is a wildcard.
const ROOT: u16 = 0;

impl Generations {
    pub(crate) fn new() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: FixedState::with_seed(0x5eed),
        }
    }

    /// Returns the counter of a head or a whole subject. `role` is the number of tokens of a head and 0 for a whole subject, so that equal
    /// bytes in different roles have different counters.
    fn counter(&self, role: u8, bytes: &[u8]) -> u16 {
        (self.hasher.hash_one((role, bytes)) as usize % COUNTERS) as u16
    }

    /// Returns the counters of all subscriptions that `subject` could match.
    pub(crate) fn counters_of(&self, subject: &[u8]) -> SubjectCounters {
        let mut dots = (0..subject.len()).filter(|at| subject[*at] == b'.');
        let first = dots.next();
        let second = dots.next();
        let one = &subject[..first.unwrap_or(subject.len())];
        let two = &subject[..second.unwrap_or(subject.len())];
        SubjectCounters([
            ROOT,
            self.counter(1, one),
            self.counter(2, two),
            self.counter(0, subject),
        ])
    }

    /// Returns the sum of the counters. It changes with each of them.
    #[inline]
    pub(crate) fn sum(&self, counters: SubjectCounters) -> u64 {
        let mut sum = 0u64;
        for at in counters.0 {
            sum = sum.wrapping_add(self.counters[usize::from(at)].load(Ordering::Acquire));
        }
        sum
    }

    /// Counts an added or removed subscription to `subject`. `wild`: it has wildcards.
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
