//! When the cache file is written: after changes, not too often, never two writes at once, and never by the
//! task that waits for it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::cache::{self, Kept};

/// The end of a write: what [`cache::store`] said, unless it could not even run.
pub(crate) type Written = Result<Result<(), String>, JoinError>;

/// When the file is to be written, and the write under way; at most one.
pub(crate) struct CacheWriter {
    path: Option<PathBuf>,
    due: Option<Instant>,
    last: Option<Instant>,
    writing: Option<JoinHandle<Result<(), String>>>,
}

impl CacheWriter {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            due: None,
            last: None,
            writing: None,
        }
    }

    pub(crate) fn move_to(&mut self, path: Option<PathBuf>) {
        self.path = path;
        self.due = None;
        self.soil(0);
    }

    /// There is something new; it is written when the last write is this old.
    pub(crate) fn soil(&mut self, age_ms_min: u64) {
        if self.path.is_none() {
            return;
        }
        let now = Instant::now();
        let due = self
            .last
            .map_or(now, |last| now.max(last + Duration::from_millis(age_ms_min)));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    pub(crate) fn write_at(&self) -> Option<Instant> {
        if self.writing.is_some() { None } else { self.due }
    }

    pub(crate) fn begin(&mut self, kept: Kept) {
        let Some(path) = self.path.clone() else { return };
        self.due = None;
        self.last = Some(Instant::now());
        // The disk may take its time; the task may not.
        self.writing = Some(tokio::task::spawn_blocking(move || cache::store(&path, &kept)));
    }

    /// The end of the write under way. Cancel-safe.
    pub(crate) async fn written(&mut self) -> Written {
        match &mut self.writing {
            Some(writing) => {
                let written = writing.await;
                self.writing = None;
                written
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for the write under way and writes what is new since.
    pub(crate) async fn finish(&mut self, kept: Kept) -> Option<Written> {
        let mut last = None;
        if self.writing.is_some() {
            last = Some(self.written().await);
        }
        if self.due.is_some() {
            self.begin(kept);
            last = Some(self.written().await);
        }
        last
    }
}
