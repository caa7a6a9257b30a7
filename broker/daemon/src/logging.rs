//! The log, on standard error or in a file, as text or JSON. A SIGHUP can change its level.
//!
//! *Architecture invariant:* logging never blocks a session. A thread writes the lines from a bounded queue. When the queue is
//! full, lines are dropped.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::line_limit::LineLimit;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::{Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Maximum number of lines that wait to be written.
const QUEUED_LINES_MAX: usize = 16_384;

/// Error when logging is set up or its level is changed. The text says what to write instead.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct LoggingError(String);

impl LoggingError {
    fn level(text: &str, reason: &dyn Display) -> Self {
        Self(format!(
            "log level {text:?}: {reason}; give error, warn, info, debug, trace, or a filter such as \
             info,standin_registry=debug"
        ))
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// A log file that can be reopened by its name, after logrotate has moved it away.
#[derive(Debug)]
struct LogFile {
    file: File,
    reopening: Arc<Reopening>,
}

/// The path of the log file, and the reopened file until the next line is written.
#[derive(Debug)]
struct Reopening {
    path: PathBuf,
    reopened: Mutex<Option<File>>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, LoggingError> {
        let file = append(path).map_err(|error| {
            let path = path.display();
            LoggingError(format!(
                "cannot open the log file {path}: {error}; name a file that can be written"
            ))
        })?;
        let reopening = Reopening {
            path: path.to_owned(),
            reopened: Mutex::default(),
        };
        Ok(Self {
            file,
            reopening: Arc::new(reopening),
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = self.reopening.lock().take() {
            self.file = file;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Reopening {
    fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.lock() = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.reopened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The logging of this process. Dropping it writes the queued lines.
#[derive(Debug)]
pub struct Logging {
    /// Writes the queued lines when dropped.
    _writer: WorkerGuard,
    filter: reload::Handle<Targets, Registry>,
    reopening: Option<Arc<Reopening>>,
}

impl Logging {
    /// Sends the log lines of the whole process to `file`, or to standard error if that is `None`. Times are UTC. Colours are used
    /// only on a terminal.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn start(level: &str, format: LogFormat, file: Option<&Path>) -> Result<Self, LoggingError> {
        let (filter, handle) = reload::Layer::new(filter(level)?);
        let file = file.map(LogFile::open).transpose()?;
        let reopening = file.as_ref().map(|file| Arc::clone(&file.reopening));
        let coloured = file.is_none() && io::stderr().is_terminal();
        let queue = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUED_LINES_MAX);
        let (queue, writer) = match file {
            Some(file) => queue.finish(file),
            None => queue.finish(io::stderr()),
        };
        let lines = fmt::layer().with_writer(queue);
        let limit = LineLimit::default();
        let registry = tracing_subscriber::registry().with(filter).with(limit.clone());
        match format {
            LogFormat::Human => {
                let lines = lines.with_target(false).with_ansi(coloured);
                registry.with(lines).try_init()
            }
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        }
        .map_err(|_| LoggingError("logging was set up before in this process; set it up once".to_owned()))?;
        if let Err(error) = limit.report_suppressed() {
            warn!(%error, "cannot start the thread that reports suppressed log lines");
        }
        Ok(Self {
            _writer: writer,
            filter: handle,
            reopening,
        })
    }

    /// Reopens the log file, so that a file moved away by logrotate is closed, and logs the result. On error, the old file stays in
    /// use. Does nothing without a file.
    pub fn reopen(&self) {
        let Some(reopening) = &self.reopening else {
            return;
        };
        match reopening.reopen() {
            Ok(()) => info!("log file reopened"),
            Err(error) => error!(
                path = %reopening.path.display(),
                %error,
                "cannot reopen the log file, still writing to the old file; send SIGUSR1 again"
            ),
        }
    }

    /// Changes the level or filter.
    ///
    /// # Errors
    /// [`LoggingError`]. The level is not changed then.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        let reloaded = self.filter.reload(filter(level)?);
        reloaded.map_err(|error| LoggingError::level(level, &error))
    }
}

/// Parses a level or filter. The filter library takes an unknown word as the name of a module, so a misspelt level would silence
/// all other modules. Therefore, a word without `=` or `[` must be a level.
///
/// # Errors
/// [`LoggingError`].
pub fn filter(text: &str) -> Result<Targets, LoggingError> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut words = directives
        .iter()
        .filter(|directive| !directive.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.is_empty() || word.parse::<LevelFilter>().is_err()) {
        return Err(LoggingError::level(
            text,
            &format_args!("`{word}` is not a level"),
        ));
    }
    let filter = directives.join(",").parse();
    filter.map_err(|error: ParseError| LoggingError::level(text, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_that_was_moved_away_is_reopened_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        file.write_all(b"two\n").unwrap();
        file.reopening.reopen().unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(file.reopening.reopen().is_err());
        file.write_all(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "three\nfour\n");
    }

    #[test]
    fn a_misspelt_level_is_rejected() {
        let filters = [
            "info,standin_registry=debug",
            "warn, standin_proxy::session=trace",
        ];
        for good in ["info", "WARN", "off"].iter().chain(&filters) {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "loud", "info,x=loud"] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(error.contains("give error, warn, info"), "{error}");
        }
    }
}
