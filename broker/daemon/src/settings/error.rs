//! Errors of settings. Most contain the place of the value and what to write instead.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Place;

/// Error in settings. The program exits with code 64.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A file that the settings name cannot be read.
    #[error("cannot read the {what} {path}: {error}; name a readable file", path = path.display())]
    Unreadable {
        /// Kind of the file, such as `settings file`.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// A text has invalid syntax.
    #[error("{place}: not {format}: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// Name of the format, such as `TOML`.
        format: &'static str,
        /// Message of the parser.
        message: String,
    },
    /// A key does not exist.
    #[error("{place}: unknown key `{key}`{section}{hint}")]
    UnknownKey {
        /// Place of the key.
        place: Place,
        /// The key as it was written.
        key: String,
        /// The text ` in` followed by the section, or an empty text.
        section: String,
        /// A similar key, as a question, or where the keys are listed.
        hint: String,
    },
    /// A value has the wrong type or form, or is out of range.
    #[error("{place}: {key} must be {allowed}, not {found}")]
    Value {
        /// Place of the key.
        place: Place,
        /// `section.key`.
        key: String,
        /// The allowed values.
        allowed: String,
        /// The value, with secrets masked.
        found: String,
    },
    /// Values contradict each other.
    #[error("{place}: {rule}")]
    Conflict {
        /// Place of the value to be changed.
        place: Place,
        /// The contradiction, and what to do.
        rule: String,
    },
    /// Files or values of a section cannot be used.
    #[error("{section}: {error}")]
    Unusable {
        /// Section of the settings, such as `tls.client`.
        section: &'static str,
        /// The error, which names the file or the key, and what to do.
        error: String,
    },
    /// A mandatory value is missing.
    #[error("{0}")]
    Missing(&'static str),
    /// Several errors, one line each. They are never nested.
    #[error("{}", lines(.0))]
    Several(Vec<SettingsError>),
}

/// Maximum number of errors in the text of [`SettingsError::Several`].
const LINES_MAX: usize = 100;

fn lines(errors: &[SettingsError]) -> String {
    let shown = errors.iter().take(LINES_MAX).map(ToString::to_string);
    let mut lines: Vec<String> = shown.collect();
    if let Some(more) = errors.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

impl SettingsError {
    /// Returns the stable name of the error, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Unusable { .. } => "unusable",
            Self::Syntax { .. } => "syntax",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Value { .. } => "value",
            Self::Conflict { .. } => "conflict",
            Self::Missing(_) => "missing",
            Self::Several(_) => "several",
        }
    }

    pub(super) const fn unknown_key(place: Place, key: String, hint: String) -> Self {
        Self::UnknownKey {
            place,
            key,
            section: String::new(),
            hint,
        }
    }

    /// Joins errors into one result. Errors in the file come first, in the order of their lines, then those of the other layers.
    ///
    /// # Errors
    /// The error if there is only one, or [`SettingsError::Several`].
    pub fn all(errors: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let mut flat: Vec<_> = errors.into_iter().flat_map(Self::each).collect();
        flat.sort_by_key(|error| error.place().map_or((u8::MAX, 0), Place::rank));
        match flat.len() {
            0 => Ok(()),
            1 => Err(flat.remove(0)),
            _ => Err(Self::Several(flat)),
        }
    }

    /// Returns the single errors.
    #[must_use]
    pub fn each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors,
            error => vec![error],
        }
    }

    /// Returns the place that the text of the error begins with, if it is about one place.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::Value { place, .. }
            | Self::Conflict { place, .. } => Some(place),
            Self::Unreadable { .. } | Self::Unusable { .. } | Self::Missing(_) | Self::Several(_) => None,
        }
    }
}
