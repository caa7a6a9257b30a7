//! The places of all values, for checks that compare one value with another.

use super::entry::Entry;
use super::{Place, SettingsError};

/// The place of each value.
#[derive(Debug)]
pub struct Places<'a>(pub(super) &'a [Entry]);

impl Places<'_> {
    /// Returns the place of the value of `section.key`.
    #[must_use]
    pub fn of(&self, key: &str) -> Place {
        let entry = self.0.iter().find(|entry| entry.key == key);
        entry.map_or(Place::Default, |entry| entry.place.clone())
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
