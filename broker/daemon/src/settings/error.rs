//! Errors of settings. Each names the place of the value and what to write instead.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Place;

/// Why settings cannot be used. The program ends with 64 for each of them.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A file that the settings name.
    #[error("cannot read the {what} {path}: {error}; name a readable file", path = path.display())]
    Unreadable {
        /// `settings file`, `ZooKeeper credentials file`.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A text that is not of its format.
    #[error("{place}: not {format}: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// `TOML`, or another format that the program reads.
        format: &'static str,
        /// What the parser says.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`{section}{hint}")]
    UnknownKey {
        /// Where it is.
        place: Place,
        /// As written.
        key: String,
        /// ` in [section]`, or empty.
        section: String,
        /// A key that looks like it, as a question, or where to look.
        hint: String,
    },
    /// A value of the wrong type or out of its range.
    #[error("{place}: {key} must be {allowed}, not {found}")]
    Value {
        /// Where it is.
        place: Place,
        /// `section.key`.
        key: String,
        /// What is allowed.
        allowed: String,
        /// What is there; secrets masked.
        found: String,
    },
    /// Values that cannot stand together.
    #[error("{place}: {rule}")]
    Conflict {
        /// Where the one is that should change.
        place: Place,
        /// What does not fit, and what to do.
        rule: String,
    },
    /// A mandatory value is missing.
    #[error("{0}")]
    Missing(&'static str),
    /// More than one thing is wrong: one line for each, none of them of this kind.
    #[error("{}", lines(.0))]
    Several(Vec<SettingsError>),
}

/// Errors of one run that are shown.
const LINES_MAX: usize = 100;

fn lines(errors: &[SettingsError]) -> String {
    let shown = errors.iter().take(LINES_MAX).map(ToString::to_string);
    let mut lines: Vec<String> = shown.collect();
    if let Some(more) = errors.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        lines.push(format!("and {more} more errors"));
    }
    lines.join("\n")
}

impl SettingsError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Syntax { .. } => "syntax",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Value { .. } => "value",
            Self::Conflict { .. } => "conflict",
            Self::Missing(_) => "missing",
            Self::Several(_) => "several",
        }
    }

    /// Makes one result of all errors that were found, in the order of the file, then of the other layers.
    ///
    /// # Errors
    /// The one error, or [`SettingsError::Several`].
    pub fn all(errors: impl IntoIterator<Item = Self>) -> Result<(), Self> {
        let mut flat: Vec<_> = errors.into_iter().flat_map(Self::each).collect();
        flat.sort_by_key(|error| error.place().map_or((u8::MAX, 0), Place::rank));
        match flat.pop() {
            None => Ok(()),
            Some(one) if flat.is_empty() => Err(one),
            Some(last) => {
                flat.push(last);
                Err(Self::Several(flat))
            }
        }
    }

    pub(super) fn each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors,
            error => vec![error],
        }
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::Value { place, .. }
            | Self::Conflict { place, .. } => Some(place),
            Self::Unreadable { .. } | Self::Missing(_) | Self::Several(_) => None,
        }
    }
}
