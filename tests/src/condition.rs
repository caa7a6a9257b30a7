//! Waiting for a condition, with a deadline.

use std::panic::Location;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause between two checks of a condition.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` is true. Fails the test with `what` after `timeout`.
#[track_caller]
pub fn eventually(
    what: impl Into<String>,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let at = Location::caller();
    let what = what.into();
    async move {
        let deadline = Instant::now() + timeout;
        while !condition().await {
            assert!(Instant::now() < deadline, "{at}: not within {timeout:?}: {what}");
            sleep(CHECK_INTERVAL).await;
        }
    }
}

/// Waits until `find` returns a value, and returns that. Fails the test with `what` after `timeout`.
#[track_caller]
pub fn found<T>(
    what: impl Into<String>,
    timeout: Duration,
    mut find: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let at = Location::caller();
    let what = what.into();
    async move {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(found) = find().await {
                return found;
            }
            assert!(Instant::now() < deadline, "{at}: not within {timeout:?}: {what}");
            sleep(CHECK_INTERVAL).await;
        }
    }
}

/// Waits until `look` returns `Ok`. After `timeout`, fails the test at `at` with the last error of `look`.
pub async fn settled(
    at: &Location<'_>,
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) {
    let deadline = Instant::now() + timeout;
    while let Err(wrong) = look().await {
        assert!(
            Instant::now() < deadline,
            "{at}: not within {timeout:?}: {what}\n  at the end: {wrong}"
        );
        sleep(CHECK_INTERVAL).await;
    }
}
