//! One key of the settings with its value in force.

use toml::Value;

use super::Place;

/// One key with the value in force.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `section.key`, or `key`.
    pub(super) key: String,
    /// The key as the text that sets it calls it, for errors.
    pub(super) name: String,
    pub(super) default: Value,
    pub(super) value: Value,
    /// The value as it is written, where it has another unit than the key.
    pub(super) source: Option<String>,
    pub(super) place: Place,
    /// The places of the items of a list from a file, where they are known.
    pub(super) item_places: Vec<Place>,
}

impl Entry {
    /// The section, empty for the keys above the first, and the key in it.
    pub(super) fn split(&self) -> (&str, &str) {
        self.key.split_once('.').unwrap_or(("", &self.key))
    }

    /// The unit of the value, which its key ends with.
    pub(super) fn unit(&self) -> &'static str {
        let units = [("_us", "µs"), ("_ms", "ms"), ("_secs", "s")];
        let unit = units.iter().find(|(end, _)| self.key.ends_with(end));
        unit.map_or("", |(_, unit)| *unit)
    }

    pub(super) fn set(&mut self, value: Value, place: Place) {
        self.name.clone_from(&self.key);
        self.value = value;
        self.source = None;
        self.place = place;
        self.item_places.clear();
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("STANDIN_{}", self.key.replace('.', "_").to_uppercase())
    }
}
