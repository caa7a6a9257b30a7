//! A limit on log lines of one kind per second, so that no peer can fill a disk by repeating an action.
//!
//! A kind is one call site in the program that logs. Levels DEBUG and TRACE are not limited, because an operator who
//! turns them on wants all lines. The suppressed lines are reported once a second, with their number and the first of
//! them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one kind per second.
const PER_SECOND_MAX: u32 = 20;

/// The limit on log lines, as a filter for the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineLimit {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kinds: Mutex<HashMap<Identifier, Kind>>,
    suppressed: Condvar,
}

/// Count of the lines of one kind in the present second.
#[derive(Debug)]
struct Kind {
    second_began: Instant,
    passed: u32,
    suppressed: u64,
    /// Message of the first suppressed line.
    first: String,
}

impl LineLimit {
    /// Starts a thread that reports the suppressed lines. A thread is needed because a line cannot be logged while
    /// another is.
    ///
    /// # Errors
    /// If the system cannot provide a thread.
    pub(crate) fn tell_suppressed(&self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("log-limit".to_owned());
        thread.spawn(move || shared.tell()).map(drop)
    }
}

impl<S: Subscriber> Layer<S> for LineLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let kind = event.metadata();
        *kind.level() > Level::INFO || self.shared.allows(kind.callsite(), event, Instant::now())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, place: Identifier, event: &Event<'_>, now: Instant) -> bool {
        let mut kinds = self.lock();
        let kind = match kinds.entry(place) {
            Entry::Occupied(kind) => kind.into_mut(),
            Entry::Vacant(kind) => kind.insert(Kind {
                second_began: now,
                passed: 0,
                suppressed: 0,
                first: String::new(),
            }),
        };
        if now.saturating_duration_since(kind.second_began) >= Duration::from_secs(1) {
            kind.second_began = now;
            kind.passed = 0;
        }
        if kind.passed < PER_SECOND_MAX {
            kind.passed += 1;
            return true;
        }
        if kind.suppressed == 0 {
            event.record(&mut Message(&mut kind.first));
            self.suppressed.notify_one();
        }
        kind.suppressed += 1;
        false
    }

    fn tell(&self) {
        loop {
            let nothing =
                |kinds: &mut HashMap<Identifier, Kind>| kinds.values().all(|kind| kind.suppressed == 0);
            let kinds = self.suppressed.wait_while(self.lock(), nothing);
            let kinds = kinds.unwrap_or_else(PoisonError::into_inner);
            // Suppressed lines are gathered for a second.
            drop(
                self.suppressed
                    .wait_timeout_while(kinds, Duration::from_secs(1), |_| true),
            );
            for (lines, first) in self.take() {
                warn!(lines, first, "log lines suppressed");
            }
        }
    }

    /// Returns and resets the suppressed lines of each kind since the last call.
    fn take(&self) -> Vec<(u64, String)> {
        let mut kinds = self.lock();
        let suppressed = kinds.values_mut().filter(|kind| kind.suppressed > 0);
        suppressed
            .map(|kind| {
                (
                    std::mem::take(&mut kind.suppressed),
                    std::mem::take(&mut kind.first),
                )
            })
            .collect()
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
            *self
                .0
                .lock()
                .unwrap()
                .entry(*event.metadata().level())
                .or_default() += 1;
        }
    }

    #[test]
    fn a_line_said_again_and_again_is_suppressed_and_others_are_not() {
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
        let suppressed = limit.shared.take();
        let [(lines, first)] = &suppressed[..] else {
            panic!("{suppressed:?}")
        };
        assert!(count(Level::INFO) >= u64::from(PER_SECOND_MAX));
        assert_eq!(count(Level::INFO) + lines, 1000);
        assert_eq!(first, &format!("peer did it again {PER_SECOND_MAX}"));
        assert_eq!((count(Level::DEBUG), count(Level::WARN)), (1000, 1));
        assert!(limit.shared.take().is_empty());
    }
}
