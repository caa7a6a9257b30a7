//! The writer of the cache file. It writes after changes, with a minimum interval, one write at a time, and in a thread where
//! blocking is allowed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cache::{self, CacheContents};

/// State of the writer: the time of the next write, and the write in progress, if any.
#[derive(Default)]
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
            ..Self::default()
        }
    }

    /// Changes the path, and schedules a write to it at once.
    pub(crate) fn set_path(&mut self, path: Option<PathBuf>) {
        self.path = path;
        self.due = None;
        self.mark_dirty(0);
    }

    /// Schedules a write for `age_ms_min` after the start of the last one, or for now if that time has passed.
    pub(crate) fn mark_dirty(&mut self, age_ms_min: u64) {
        if self.path.is_none() {
            return;
        }
        let now = Instant::now();
        let due = self
            .last
            .map_or(now, |last| now.max(last + Duration::from_millis(age_ms_min)));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Returns the time of the next write, if no write is in progress.
    pub(crate) fn write_at(&self) -> Option<Instant> {
        if self.writing.is_some() { None } else { self.due }
    }

    /// Starts a write.
    pub(crate) fn start_write(&mut self, contents: CacheContents) {
        let Some(path) = self.path.clone() else { return };
        self.due = None;
        self.last = Some(Instant::now());
        // The disk may be slow, and the calling task must not block.
        let write = move || cache::store(&path, &contents);
        self.writing = Some(tokio::task::spawn_blocking(write));
    }

    /// Waits for the end of the write in progress. Never returns if there is none. Cancel-safe.
    pub(crate) async fn written(&mut self) -> Result<(), String> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|error| Err(format!("the writer of the cache file stopped: {error}")))
    }

    /// Waits for the write in progress, then writes the changes made after its start. Returns the result of the last write.
    pub(crate) async fn finish(&mut self, contents: CacheContents) -> Option<Result<(), String>> {
        let mut last = None;
        if self.writing.is_some() {
            last = Some(self.written().await);
        }
        if self.due.is_some() {
            self.start_write(contents);
            last = Some(self.written().await);
        }
        last
    }
}
