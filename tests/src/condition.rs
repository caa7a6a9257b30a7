//! Waiting for a condition, with a deadline: the tests' only way to wait.

use std::panic::Location;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at `condition` again and again until it is true; fails the test, naming `what`, when `patience` is over.
#[track_caller]
pub fn eventually(
    what: impl Into<String>,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let at = Location::caller();
    let what = what.into();
    async move {
        let deadline = Instant::now() + patience;
        while !condition().await {
            assert!(Instant::now() < deadline, "{at}: not within {patience:?}: {what}");
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Looks until `find` finds something, and returns it; fails the test as [`eventually`] does.
#[track_caller]
pub fn found<T>(
    what: impl Into<String>,
    patience: Duration,
    mut find: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let at = Location::caller();
    let what = what.into();
    async move {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = find().await {
                return found;
            }
            assert!(Instant::now() < deadline, "{at}: not within {patience:?}: {what}");
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Looks until `look` finds nothing wrong; fails the test at `at` with what it found wrong last.
pub(crate) async fn settled(
    at: &Location<'_>,
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) {
    let deadline = Instant::now() + patience;
    while let Err(wrong) = look().await {
        assert!(
            Instant::now() < deadline,
            "{at}: not within {patience:?}: {what}\n  at the end: {wrong}"
        );
        sleep(LOOK_EVERY).await;
    }
}
