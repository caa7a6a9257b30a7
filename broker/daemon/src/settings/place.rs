//! The place where a value was given: a line of a file, an environment variable, or a flag. Checks that compare one value with
//! another get the places of all values.

use std::fmt;
use std::sync::Arc;

use super::SettingsError;
use super::entry::Entry;

/// Place where a value was given, as errors and `--print-config` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The compiled-in settings file.
    Default,
    /// A line of a file, counted from 1.
    File(Arc<str>, usize),
    /// An environment variable.
    Variable(String),
    /// A flag, including its dashes.
    Flag(&'static str),
}

impl Place {
    /// Creates the place of a line of a file, counted from 1.
    #[must_use]
    pub fn file(name: &str, line: usize) -> Self {
        Self::File(name.into(), line)
    }

    /// Returns a value that orders errors: by lines of the file, then the environment, then the flags.
    #[must_use]
    pub const fn rank(&self) -> (u8, usize) {
        match self {
            Self::File(_, line) => (0, *line),
            Self::Variable(_) => (1, 0),
            Self::Flag(_) => (2, 0),
            Self::Default => (3, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("the defaults"),
            Self::File(name, line) => write!(formatter, "{name}:{line}"),
            Self::Variable(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// The place of each value.
#[derive(Debug)]
pub struct Places<'a>(pub(super) &'a [Entry]);

impl Places<'_> {
    /// Returns the place of the value of `section.key`.
    #[must_use]
    pub fn of(&self, key: &str) -> Place {
        let entry = self.0.iter().find(|entry| entry.item.key == key);
        entry.map_or(Place::Default, |entry| entry.item.place.clone())
    }

    /// Returns the first key whose value is not the default, among those for which `is_wanted` is true.
    #[must_use]
    pub fn changed(&self, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
        let mut changed = self.0.iter().filter(|entry| entry.item.value != entry.default);
        let found = changed.find(|entry| is_wanted(&entry.item.key))?;
        Some(&found.item.key)
    }

    /// Returns the error for values that contradict each other. `rule` contains the full names of the keys. The place of the
    /// error is that of `key`, or, if `key` has its default, that of the first key in `rule` that the operator set.
    #[must_use]
    pub fn conflict(&self, key: &str, rule: String) -> SettingsError {
        let given = std::iter::once(key)
            .chain(named_keys(&rule))
            .map(|key| self.of(key))
            .find(|place| *place != Place::Default);
        SettingsError::Conflict {
            place: given.unwrap_or(Place::Default),
            rule,
        }
    }
}

/// Returns the words of `text` that may be full names of keys.
pub(super) fn named_keys(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
        .map(|word| word.trim_matches('.'))
        .filter(|word| !word.is_empty())
}
