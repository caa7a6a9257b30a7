//! What was said lately of nodes that are refused: they try again and again, and each fault is told once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The same is told again after this, and so many different ones meanwhile.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
const TOLD_MAX: usize = 100;

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// What was told, and when.
    told: HashMap<String, Instant>,
}

impl Complaints {
    /// Whether this was not told within the last minute: who is refused tries again and again.
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
