//! The rules for a program's settings that the compiled-in file does not contain, such as the range of each number.

use toml::{Table, Value};

use super::{Document, MASK, Place, SettingsError, document};

/// Description of a program's settings.
#[derive(Debug)]
pub struct Schema {
    /// The defaults: a TOML text with a comment and a value for each key. The type of the value is the type of the key.
    pub defaults: &'static str,
    /// Name of the file with the defaults, for messages.
    pub defaults_file: &'static str,
    /// The range of each number, including both ends, by `section.key`.
    pub ranges: &'static [(&'static str, i64, i64)],
    /// The keys whose text must be one of a few words.
    pub words: &'static [(&'static str, &'static [&'static str])],
    /// The keys whose value is a table or a list of tables, and the form of a table as errors show it.
    pub tables: &'static [(&'static str, &'static str)],
    /// The keys that name a file with a secret. A file that other users can read causes a warning.
    pub secret_files: &'static [&'static str],
    /// The keys whose changes need a restart. They are marked `(restart)` in the file.
    pub restart: &'static [&'static str],
    /// Environment variables without the prefix STANDIN_ that set a key, such as NATS_URL.
    pub variables: &'static [(&'static str, &'static str)],
    /// Parser of another format. It is used for files named `*.conf`, and for files not named `*.toml` that are invalid as TOML
    /// and valid in that format. `name` is the name of the text in errors.
    pub other_format: Option<fn(name: &str, text: &str) -> Document>,
    /// Returns the text with its secrets masked, or `None` if values of `key` contain no secrets.
    pub masked: fn(key: &str, text: &str) -> Option<String>,
    /// Checks the form of one string: a value, or an item of a list.
    pub text: fn(key: &str, place: &Place, text: &str) -> Result<(), SettingsError>,
    /// Checks one table: a value, or an entry of a list.
    pub table: fn(key: &str, place: &Place, table: &Table) -> Result<(), SettingsError>,
}

impl Schema {
    /// Returns the value as TOML with its secrets masked.
    #[must_use]
    pub fn shown(&self, key: &str, value: &Value) -> String {
        let takes_tables = self.tables.iter().any(|(name, _)| *name == key);
        match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.shown(key, item)).collect();
                format!("[{}]", items.join(", "))
            }
            // A secret that was written as a table by mistake is masked too.
            Value::Table(_) if self.is_secret(key) && !takes_tables => MASK.to_owned(),
            Value::Table(table) => {
                let shown =
                    |(inner, value)| format!("{inner} = {}", self.shown(&format!("{key}.{inner}"), value));
                let inner: Vec<String> = table.iter().map(shown).collect();
                format!("{{ {} }}", inner.join(", "))
            }
            // A text in place of a table may contain the secrets of one.
            _ if takes_tables => MASK.to_owned(),
            Value::String(text) => {
                Value::String((self.masked)(key, text).unwrap_or_else(|| text.clone())).to_string()
            }
            other => {
                let text = other.to_string();
                (self.masked)(key, &text).unwrap_or(text)
            }
        }
    }

    /// Returns whether the value contains a secret.
    #[must_use]
    pub fn has_secret(&self, key: &str, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| self.has_secret(key, item)),
            Value::Table(table) => table
                .iter()
                .any(|(inner, value)| self.has_secret(&format!("{key}.{inner}"), value)),
            Value::String(text) => (self.masked)(key, text).is_some_and(|masked| masked != *text),
            _ => false,
        }
    }

    /// Returns whether the section of `key` has a key whose whole value is a secret.
    pub(super) fn has_secret_beside(&self, key: &str) -> bool {
        let section = |key: &str| key.rsplit_once('.').unwrap_or_default().0.to_owned();
        let known = document::parse(self.defaults_file, self.defaults, self.tables).items;
        known
            .iter()
            .any(|item| section(&item.key) == section(key) && self.is_secret(&item.key))
    }

    /// Returns whether the whole value of `key` is a secret.
    fn is_secret(&self, key: &str) -> bool {
        (self.masked)(key, "x").is_some_and(|shown| shown == MASK)
    }
}
