//! Limit on log lines per second and call site, so that no peer can fill a disk by repeating an action.
//!
//! The levels DEBUG and TRACE are not limited, because an operator who enables them wants all lines. Once a second, the
//! suppressed lines of each call site are reported: their number and the first of them.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines per second of one call site.
const PER_SECOND_MAX: u32 = 20;

/// The limit on log lines, as a filter for the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineLimit {
    counts: Arc<LineCounts>,
}

#[derive(Debug, Default)]
struct LineCounts {
    by_site: Mutex<HashMap<Identifier, SiteCount>>,
    suppressed: Condvar,
}

/// Count of the lines of one call site in the present second.
#[derive(Debug)]
struct SiteCount {
    second_began: Instant,
    passed: u32,
    suppressed: u64,
    /// Message of the first suppressed line.
    first: String,
}

impl LineLimit {
    /// Starts a thread that reports the suppressed lines. A thread is needed because no line can be logged while another is
    /// being logged.
    ///
    /// # Errors
    /// The error of the system if it cannot start a thread.
    pub(crate) fn report_suppressed(&self) -> std::io::Result<()> {
        let counts = Arc::clone(&self.counts);
        let thread = std::thread::Builder::new().name("log-limit".to_owned());
        thread.spawn(move || counts.report()).map(drop)
    }
}

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let line = event.metadata();
        *line.level() > Level::INFO || self.counts.allows(line.callsite(), event, Instant::now())
    }
}

impl LineCounts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, SiteCount>> {
        self.by_site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, site: Identifier, event: &Event<'_>, now: Instant) -> bool {
        let mut by_site = self.lock();
        let count = by_site.entry(site).or_insert_with(|| SiteCount {
            second_began: now,
            passed: 0,
            suppressed: 0,
            first: String::new(),
        });
        if now.saturating_duration_since(count.second_began) >= Duration::from_secs(1) {
            count.second_began = now;
            count.passed = 0;
        }
        if count.passed < PER_SECOND_MAX {
            count.passed += 1;
            return true;
        }
        if count.suppressed == 0 {
            event.record(&mut Message(&mut count.first));
            self.suppressed.notify_one();
        }
        count.suppressed += 1;
        false
    }

    fn report(&self) {
        loop {
            let none_suppressed = |by_site: &mut HashMap<Identifier, SiteCount>| {
                by_site.values().all(|count| count.suppressed == 0)
            };
            let by_site = self.suppressed.wait_while(self.lock(), none_suppressed);
            let by_site = by_site.unwrap_or_else(PoisonError::into_inner);
            // Suppressed lines are collected for a second.
            let second = Duration::from_secs(1);
            drop(self.suppressed.wait_timeout_while(by_site, second, |_| true));
            for (lines, first) in self.take() {
                warn!(lines, first, "log lines suppressed");
            }
        }
    }

    /// Returns and resets the suppressed lines of each call site.
    fn take(&self) -> Vec<(u64, String)> {
        let mut by_site = self.lock();
        let suppressed = by_site.values_mut().filter(|count| count.suppressed > 0);
        let taken = suppressed.map(|count| (take(&mut count.suppressed), take(&mut count.first)));
        taken.collect()
    }
}

/// Copies the message out of an event.
struct Message<'t>(&'t mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{debug, info};
    use tracing_subscriber::layer::SubscriberExt;

    /// Counts the lines that pass, by level.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<HashMap<Level, u64>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut lines = self.0.lock().unwrap();
            *lines.entry(*event.metadata().level()).or_default() += 1;
        }
    }

    #[test]
    fn a_repeated_line_is_suppressed_and_others_are_not() {
        let (limit, passed) = (LineLimit::default(), Passed::default());
        let subscriber = tracing_subscriber::registry()
            .with(limit.clone())
            .with(passed.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..1000 {
                info!(number, "peer did it again {number}");
                debug!("all of these are wanted");
            }
            warn!("something else");
        });
        let count = |level| passed.0.lock().unwrap().get(&level).copied().unwrap_or(0);
        let suppressed = limit.counts.take();
        assert_eq!(suppressed.len(), 1, "{suppressed:?}");
        let (lines, first) = &suppressed[0];
        assert!(count(Level::INFO) >= u64::from(PER_SECOND_MAX));
        assert_eq!(count(Level::INFO) + lines, 1000);
        assert_eq!(first, &format!("peer did it again {PER_SECOND_MAX}"));
        assert_eq!((count(Level::DEBUG), count(Level::WARN)), (1000, 1));
        assert!(limit.counts.take().is_empty());
    }
}
