//! One key of the settings with its value in force.

use toml::Value;

use super::{Item, Place};

/// One key with its default and the value in force.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) default: Value,
    pub(super) item: Item,
}

impl Entry {
    /// Returns the section and the key in it. The section is empty for keys above the first section.
    pub(super) fn split(&self) -> (&str, &str) {
        self.item.key.rsplit_once('.').unwrap_or(("", &self.item.key))
    }

    /// Returns the unit of the value, which the end of the key shows.
    pub(super) fn unit(&self) -> &'static str {
        let units = [("_us", "µs"), ("_ms", "ms"), ("_secs", "s")];
        let unit = units.iter().find(|(end, _)| self.item.key.ends_with(end));
        unit.map_or("", |(_, unit)| *unit)
    }

    pub(super) fn set(&mut self, value: Value, place: Place) {
        let key = std::mem::take(&mut self.item.key);
        self.item = Item::of(key, value, place);
    }

    /// Returns the name of the environment variable that sets the key.
    pub(super) fn variable(&self) -> String {
        format!("STANDIN_{}", self.item.key.replace('.', "_").to_uppercase())
    }
}
