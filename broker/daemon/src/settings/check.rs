//! Check of one value: its type, range and form. Each error contains the place of the value.

use toml::Value;

use super::entry::Entry;
use super::{Place, Schema, SettingsError, masked_url};

/// Maximum number of characters of an invalid text that an error shows.
const FOUND_CHARS_MAX: usize = 200;

/// Checks one value.
///
/// # Errors
/// [`SettingsError::Value`], or the error that the schema returns for a text or a table. An error contains the key by the name
/// that the operator wrote, which may differ from `section.key` in another format than TOML.
pub(super) fn entry(schema: &Schema, entry: &Entry) -> Result<(), SettingsError> {
    check_value(schema, entry).map_err(|error| named(error, entry))
}

fn named(error: SettingsError, entry: &Entry) -> SettingsError {
    let renamed = |text: String| text.replace(&entry.key, &entry.name);
    match error {
        SettingsError::Value {
            place,
            key,
            allowed,
            found,
        } => SettingsError::Value {
            place,
            key: renamed(key),
            allowed,
            found,
        },
        SettingsError::Conflict { place, rule } => SettingsError::Conflict {
            place,
            rule: renamed(rule),
        },
        SettingsError::Several(errors) => {
            SettingsError::Several(errors.into_iter().map(|error| named(error, entry)).collect())
        }
        error => error,
    }
}

fn check_value(schema: &Schema, entry: &Entry) -> Result<(), SettingsError> {
    if std::mem::discriminant(&entry.value) != std::mem::discriminant(&entry.default) {
        return Err(wrong_type(schema, entry, entry.place.clone(), &entry.value));
    }
    let takes_tables = schema.tables.iter().any(|(key, _)| *key == entry.key);
    match &entry.value {
        Value::Integer(number) => in_range(schema, entry, *number),
        Value::String(text) => text_form(schema, &entry.key, &entry.place, text),
        Value::Array(items) => SettingsError::all(items.iter().enumerate().filter_map(|(at, item)| {
            let place = entry.item_places.get(at).unwrap_or(&entry.place);
            let checked = match item {
                Value::Table(table) if takes_tables => (schema.table)(&entry.key, place, table),
                Value::String(text) if !takes_tables => text_form(schema, &entry.key, place, text),
                other => Err(wrong_type(schema, entry, place.clone(), other)),
            };
            checked.err()
        })),
        _ => Ok(()),
    }
}

/// Returns the error for a value that has another type than the default, or for a number out of range.
pub(super) fn wrong_type(schema: &Schema, entry: &Entry, place: Place, found: &Value) -> SettingsError {
    let tables = schema.tables.iter().find(|(key, _)| *key == entry.key);
    let allowed = match (&entry.default, tables) {
        (Value::Integer(_), _) => range_text(schema, &entry.key),
        (Value::Boolean(_), _) => "true or false".to_owned(),
        (Value::Array(_), Some((_, takes))) => format!("a list of {takes} in a settings file"),
        (Value::Array(_), None) => "a list of strings".to_owned(),
        _ => "a string".to_owned(),
    };
    SettingsError::Value {
        place,
        key: entry.key.clone(),
        allowed,
        found: schema.shown(&entry.key, found),
    }
}

/// Splits a text at commas into a list without empty items.
#[must_use]
pub fn list(text: &str) -> Value {
    Value::Array(texts(text))
}

/// Splits one item of a flag at commas. An item without text is returned unchanged, so that its check fails: an empty flag is
/// a mistake of the operator (`--upstream "$UNSET"`).
pub(super) fn items(item: &Value) -> Vec<Value> {
    let texts = item.as_str().map(texts).unwrap_or_default();
    if texts.is_empty() {
        vec![item.clone()]
    } else {
        texts
    }
}

fn texts(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.to_owned())).collect()
}

fn range_text(schema: &Schema, key: &str) -> String {
    schema.ranges.iter().find(|(name, ..)| *name == key).map_or_else(
        || "a whole number".to_owned(),
        |(_, low, high)| format!("a whole number from {low} to {high}"),
    )
}

fn in_range(schema: &Schema, entry: &Entry, number: i64) -> Result<(), SettingsError> {
    let range = schema.ranges.iter().find(|(name, ..)| *name == entry.key);
    let Some((_, low, high)) = range.filter(|(_, low, high)| !(*low..=*high).contains(&number)) else {
        return Ok(());
    };
    Err(match &entry.source {
        Some(source) => SettingsError::Value {
            place: entry.place.clone(),
            key: entry.key.clone(),
            allowed: format!("a time from {low} to {high} {}", entry.unit()),
            found: source.clone(),
        },
        None => wrong_type(schema, entry, entry.place.clone(), &entry.value),
    })
}

fn text_form(schema: &Schema, key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    if key == "log.level" && crate::logging::filter(text).is_err() {
        return Err(refused(
            key,
            place,
            "error, warn, info, debug, trace, or a filter such as \"info,standin_registry=debug\"",
            text,
        ));
    }
    match schema.words.iter().find(|(name, _)| *name == key) {
        Some((_, words)) if !words.contains(&text) => Err(not_a_word(key, place, words, text)),
        _ => (schema.text)(key, place, text),
    }
}

/// Returns the error for a text that is not one of the allowed words.
#[must_use]
pub fn not_a_word(key: &str, place: &Place, words: &[&str], found: &str) -> SettingsError {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    refused(key, place, &words.join(" or "), found)
}

/// Returns the error for a text that does not have the form required for `key`. The error shows `found`, so it must not
/// contain a secret.
#[must_use]
pub fn refused(key: &str, place: &Place, allowed: &str, found: &str) -> SettingsError {
    SettingsError::Value {
        place: place.clone(),
        key: key.to_owned(),
        allowed: allowed.to_owned(),
        // For any key, the part before an '@' may be a password given by mistake.
        found: Value::String(shortened(masked_url(found))).to_string(),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns whether a text is `host:port`. An IPv6 address must be in brackets.
#[must_use]
pub fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
    })
}
