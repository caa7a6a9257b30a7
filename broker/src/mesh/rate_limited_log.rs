//! Rate limit for log lines about refused nodes, which try again and again: each fault is logged at most once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time after which the same fault is logged again.
const LOGGED_AGAIN: Duration = Duration::from_secs(60);
/// Maximum number of different faults that are logged within that time.
const LOGGED_MAX: usize = 100;

#[derive(Debug, Default)]
pub(super) struct RateLimitedLog {
    /// Each logged fault, with its time.
    logged: HashMap<String, Instant>,
}

impl RateLimitedLog {
    /// Returns whether `text` is to be logged: it was not logged within the last minute, and the limit is not reached.
    pub(super) fn is_due(&mut self, text: &str, now: Instant) -> bool {
        self.logged.retain(|_, at| now.duration_since(*at) < LOGGED_AGAIN);
        let is_due = !self.logged.contains_key(text) && self.logged.len() < LOGGED_MAX;
        if is_due {
            self.logged.insert(text.to_owned(), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_once_a_minute_and_the_number_of_different_faults_is_limited() {
        let (now, mut rate_limited_log) = (Instant::now(), RateLimitedLog::default());
        assert!(rate_limited_log.is_due("a", now));
        assert!(!rate_limited_log.is_due("a", now + LOGGED_AGAIN - Duration::from_millis(1)));
        assert!(rate_limited_log.is_due("a", now + LOGGED_AGAIN));
        let later = now + LOGGED_AGAIN * 3;
        let logged = (0..1000).filter(|number| rate_limited_log.is_due(&number.to_string(), later));
        assert_eq!(logged.count(), LOGGED_MAX);
    }
}
