//! Settings: what an operator may say, checked before anything starts.
//!
//! The defaults are a commented TOML file, compiled in. The user's file, the environment and the flags override it, in this
//! order ([`layers`]). Each value remembers its place, and errors name it ([`check`]). A program supplies a [`Schema`] and a
//! struct with the file's keys as fields.
//!
//! | file | holds |
//! |---|---|
//! | this one | the schema, and the errors |
//! | [`layers`] | the four layers, from the compiled-in file to the flags, as one list of keys with values and origins |
//! | [`document`] | one TOML text, read with line numbers |
//! | [`check`] | whether a value is of its key's type, in its range, and of its form |
//! | [`print`] | `--print-config` |
//! | [`audit`] | whether the compiled-in file tells what the schema says |
//! | [`change`] | what a SIGHUP changed, and what of it needs a restart |
//! | [`secret`], [`units`] | texts that are shown masked, times with their unit |

mod audit;
mod change;
mod check;
mod document;
mod layers;
mod print;
mod secret;
mod units;

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

pub use self::audit::faults;
pub use self::change::{Change, Effect, changes, reloaded};
pub use self::check::{host_and_port, list, not_a_word, refused};
pub use self::document::{Document, Item};
pub use self::layers::{Flag, Input, Loaded, Place, Places, of_text};
pub use self::secret::{MASK, Mask, Pair, Secret, Url, Whole, masked_pair, masked_url, masked_whole};
pub use self::units::{Micros, Millis, Secs};

/// Reads a text, which is shown as `name` in errors, as keys with values.
pub type OtherFormat = fn(name: &str, text: &str) -> Document;

/// Description of a program's settings.
#[derive(Debug)]
pub struct Schema {
    /// The defaults: TOML with every key, its type, and a comment.
    pub defaults: &'static str,
    /// Their file, as messages name it.
    pub defaults_file: &'static str,
    /// `section.key` and the range of each number, both ends allowed.
    pub ranges: &'static [(&'static str, i64, i64)],
    /// The texts that are one of a few words.
    pub words: &'static [(&'static str, &'static [&'static str])],
    /// The lists of tables, and what they take.
    pub tables: &'static [(&'static str, &'static str)],
    /// Keys that are taken at start only, marked `(restart)` in the file.
    pub restart: &'static [&'static str],
    /// Environment variables without the STANDIN_ prefix that set a key, such as NATS_URL.
    pub variables: &'static [(&'static str, &'static str)],
    /// Reader for another format. Used for files named `*.conf`, and for files not named `*.toml` that are invalid as TOML and
    /// valid in that format.
    pub other_format: Option<OtherFormat>,
    /// Returns the text with its secrets masked; `None` if `key` holds no secret.
    pub masked: fn(key: &str, text: &str) -> Option<String>,
    /// Checks the form of one text.
    pub text: fn(key: &str, place: &Place, text: &str) -> Result<(), SettingsError>,
    /// Checks one entry of a list of tables.
    pub table: fn(key: &str, place: &Place, table: &Table) -> Result<(), SettingsError>,
}

impl Schema {
    /// A value as it may be shown: secrets masked.
    #[must_use]
    pub fn shown(&self, key: &str, value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.shown(key, item)).collect();
                format!("[{}]", items.join(", "))
            }
            // A secret that is no text, by mistake, is a secret all the same.
            Value::Table(_) if self.is_secret(key) && !self.tables.iter().any(|(name, _)| *name == key) => {
                MASK.to_owned()
            }
            Value::Table(table) => {
                let shown =
                    |(inner, value)| format!("{inner} = {}", self.shown(&format!("{key}.{inner}"), value));
                let inner: Vec<String> = table.iter().map(shown).collect();
                format!("{{ {} }}", inner.join(", "))
            }
            Value::String(text) => {
                Value::String((self.masked)(key, text).unwrap_or_else(|| text.clone())).to_string()
            }
            other => {
                let text = other.to_string();
                (self.masked)(key, &text).unwrap_or(text)
            }
        }
    }

    /// Whether the whole value of `key` is a secret.
    fn is_secret(&self, key: &str) -> bool {
        (self.masked)(key, "x").is_some_and(|shown| shown == MASK)
    }
}

/// The settings of one program. Fields are keys, structs in it are sections.
pub trait Settings: Serialize + DeserializeOwned {
    /// The schema.
    const SCHEMA: &'static Schema;

    /// Checks what must hold between values.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] at the place of the value that should change; [`SettingsError::all`] of them.
    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError>;

    /// Checks what only a starting program needs. Called after [`check`](Self::check) has passed.
    ///
    /// # Errors
    /// [`SettingsError`].
    fn check_complete(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

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

    fn each(self) -> Vec<Self> {
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

#[cfg(test)]
mod sample;
