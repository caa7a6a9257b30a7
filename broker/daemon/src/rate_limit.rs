//! A limit on log lines that a peer can cause: so many a second; the next line that passes tells how many did not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Log lines of one kind. Share it between all who write that line.
#[derive(Debug)]
pub struct RateLimit {
    per_second_max: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    second_began: Instant,
    passed: u32,
    suppressed: u64,
}

impl RateLimit {
    /// At most `per_second_max` lines a second.
    #[must_use]
    pub fn per_second(per_second_max: u32) -> Self {
        Self {
            per_second_max,
            state: Mutex::new(State {
                second_began: Instant::now(),
                passed: 0,
                suppressed: 0,
            }),
        }
    }

    /// Whether a line may be written now: then how many were suppressed since the last one that was.
    pub fn allows(&self) -> Option<u64> {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.second_began) >= Duration::from_secs(1) {
            state.second_began = now;
            state.passed = 0;
        }
        if state.passed >= self.per_second_max {
            state.suppressed += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_with_the_next() {
        let limit = RateLimit::per_second(2);
        let now = Instant::now();
        assert_eq!(limit.allows_at(now), Some(0));
        assert_eq!(limit.allows_at(now), Some(0));
        for _ in 0..1000 {
            assert_eq!(limit.allows_at(now), None);
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(limit.allows_at(later), Some(1000));
        assert_eq!(limit.allows_at(later), Some(0));
        assert_eq!(limit.allows_at(later), None);
    }
}
