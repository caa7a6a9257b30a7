//! One key of the settings with its value in force.

use toml::Value;

use super::Place;

/// One key with the value in force.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `section.key`, or `key` above the first section.
    pub(super) key: String,
    /// Name of the key in the text that sets it, for errors.
    pub(super) name: String,
    pub(super) default: Value,
    pub(super) value: Value,
    /// The value as it was written, if it was written in another unit than that of the key.
    pub(super) source: Option<String>,
    pub(super) place: Place,
    /// Places of the items of a list in a file.
    pub(super) item_places: Vec<Place>,
}

impl Entry {
    /// Returns the section and the key in it. The section is empty for keys above the first section.
    pub(super) fn split(&self) -> (&str, &str) {
        self.key.split_once('.').unwrap_or(("", &self.key))
    }

    /// Returns the unit of the value, which is the end of the key.
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

    /// Returns the name of the environment variable that sets the key.
    pub(super) fn variable(&self) -> String {
        format!("STANDIN_{}", self.key.replace('.', "_").to_uppercase())
    }
}
