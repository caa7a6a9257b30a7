//! A token bucket that holds at most the tokens of one second.

use std::time::Instant;

/// Limit on the rate of an event. The rate is given with each call, because the settings may change it.
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(per_second),
            filled_at: now,
        }
    }

    /// Takes a token. Returns `false` if there is none.
    pub(super) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let per_second = f64::from(per_second);
        let grown = now.saturating_duration_since(self.filled_at).as_secs_f64() * per_second;
        self.filled_at = now;
        self.tokens = (self.tokens + grown).min(per_second);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}
