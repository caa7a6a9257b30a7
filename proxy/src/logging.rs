//! Log lines on standard error: human or JSON, with a level that a SIGHUP can change.
//!
//! *Architecture invariant:* nobody waits for the log. Lines go to a thread of their own through a bounded queue; when standard
//! error takes none and the queue is full, lines are dropped, not sessions held up.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::settings::{Log, LogFormat};

/// Lines that wait for standard error at most.
const QUEUED_LINES_MAX: usize = 16_384;

/// Why logging cannot be set up or changed.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// A text that is no level and no filter.
    #[error(
        "log level {text:?}: {reason}; give error, warn, info, debug, trace, or a filter such as \
         info,standin_registry=debug"
    )]
    Filter {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has a subscriber already.
    #[error("logging was set up before in this process; set it up once")]
    Twice,
}

impl LoggingError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Filter { .. } => "filter",
            Self::Twice => "twice",
        }
    }
}

/// The logging of this process, once it is set up; changes its level.
#[derive(Debug)]
pub struct Logging {
    /// Writes out what is queued when it is dropped.
    _writer: WorkerGuard,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Sends the log lines of the whole process to standard error. Times are UTC; colours only on a terminal.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn start(log: &Log) -> Result<Self, LoggingError> {
        let (filter, handle) = reload::Layer::new(filter(&log.level)?);
        let (queue, writer) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUED_LINES_MAX)
            .finish(io::stderr());
        let lines = fmt::layer().with_writer(queue);
        let registry = tracing_subscriber::registry().with(filter);
        match log.format {
            LogFormat::Human => {
                let lines = lines.with_target(false).with_ansi(io::stderr().is_terminal());
                registry.with(lines).try_init()
            }
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        }
        .map_err(|_| LoggingError::Twice)?;
        Ok(Self {
            _writer: writer,
            filter: handle,
        })
    }

    /// Takes another level, or filter, from now on.
    ///
    /// # Errors
    /// [`LoggingError::Filter`]; the present level stays.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        let filter = filter(level)?;
        self.filter.reload(filter).map_err(|error| LoggingError::Filter {
            text: level.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Reads a level or filter. The filter library takes any lone word as a module's name, and so would take a misspelt level
/// for "nothing but that module"; here a lone word must be a level.
///
/// # Errors
/// [`LoggingError::Filter`].
pub(crate) fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    let refuse = |reason: String| LoggingError::Filter {
        text: text.to_owned(),
        reason,
    };
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for word in directives
        .iter()
        .filter(|directive| !directive.contains(['=', '[']))
    {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(refuse(format!("`{word}` is no level")));
        }
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_and_does_not_silence_the_log() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,standin_registry=debug",
            "warn, standin_proxy::session=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "loud", "info,x=loud"] {
            let error = filter(bad).unwrap_err();
            assert_eq!(error.kind(), "filter");
            assert!(error.to_string().contains("give error, warn, info"), "{error}");
        }
    }
}
