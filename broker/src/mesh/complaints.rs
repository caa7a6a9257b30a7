//! Rate limit for log lines about refused nodes, which try again and again: each fault is logged once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time after which the same fault is logged again.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Maximum number of different faults that are logged within that time.
const TOLD_MAX: usize = 100;

/// The faults that were logged recently.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Each logged fault, with its time.
    told: HashMap<String, Instant>,
}

impl Complaints {
    /// Returns whether `text` is to be logged: it was not logged within the last minute, and the limit is not reached.
    pub(super) fn is_news(&mut self, text: &str, now: Instant) -> bool {
        self.told.retain(|_, at| now.duration_since(*at) < TOLD_AGAIN);
        let news = !self.told.contains_key(text) && self.told.len() < TOLD_MAX;
        if news {
            self.told.insert(text.to_owned(), now);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_a_minute_and_no_flood_of_different_ones_is() {
        let (now, mut complaints) = (Instant::now(), Complaints::default());
        assert!(complaints.is_news("a", now));
        assert!(!complaints.is_news("a", now + TOLD_AGAIN - Duration::from_millis(1)));
        assert!(complaints.is_news("a", now + TOLD_AGAIN));
        let later = now + TOLD_AGAIN * 3;
        let told = (0..1000).filter(|number| complaints.is_news(&number.to_string(), later));
        assert_eq!(told.count(), TOLD_MAX);
    }
}
