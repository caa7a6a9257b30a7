//! Description of a program's settings: what its compiled-in file cannot say by itself.

use toml::{Table, Value};

use super::{Document, MASK, Place, SettingsError};

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
