//! Check of one value: its type, range and form. Each error contains the place of the value.

use toml::{Table, Value};

use super::document;
use super::entry::Entry;
use super::{Item, MASK, Place, Schema, SettingsError, masked_url};

/// Maximum number of characters of an invalid text that an error shows.
const FOUND_CHARS_MAX: usize = 200;

/// Checks one value.
///
/// # Errors
/// [`SettingsError::Value`], or the error that the schema returns for a text or a table. An error names the key as the operator
/// wrote it, which in a format other than TOML may differ from `section.key`.
pub(super) fn entry(schema: &Schema, entry: &Entry) -> Result<(), SettingsError> {
    check_value(schema, entry).map_err(|mut error| {
        rename(&mut error, entry);
        error
    })
}

/// Checks a table at `place` that has keys of the section `name`. In errors, the table is called `shown`.
///
/// # Errors
/// [`SettingsError::UnknownKey`] for a key that the section does not have; for any other key, the error that its value would cause in
/// the section.
pub fn section(
    schema: &Schema,
    name: &str,
    shown: &str,
    place: &Place,
    table: &Table,
) -> Result<(), SettingsError> {
    let known = document::parse(schema.defaults_file, schema.defaults, schema.tables).items;
    SettingsError::all(table.iter().filter_map(|(key, value)| {
        let (full, shown) = (format!("{name}.{key}"), format!("{shown}.{key}"));
        let Some(known) = known.iter().find(|item| item.key == full) else {
            let hint = format!("; its keys are those of [{name}] in {}", schema.defaults_file);
            return Some(SettingsError::unknown_key(place.clone(), shown, hint));
        };
        let given = Entry {
            default: known.value.clone(),
            item: Item {
                name: shown,
                ..Item::of(full, value.clone(), place.clone())
            },
        };
        entry(schema, &given).err()
    }))
}

/// Replaces the key in an error by the name that the operator wrote.
fn rename(error: &mut SettingsError, entry: &Entry) {
    match error {
        SettingsError::Value { key: text, .. } | SettingsError::Conflict { rule: text, .. } => {
            *text = text.replace(&entry.item.key, &entry.item.name);
        }
        SettingsError::Several(errors) => errors.iter_mut().for_each(|error| rename(error, entry)),
        _ => {}
    }
}

fn check_value(schema: &Schema, entry: &Entry) -> Result<(), SettingsError> {
    let Item {
        key, value, place, ..
    } = &entry.item;
    if std::mem::discriminant(value) != std::mem::discriminant(&entry.default) {
        return Err(wrong_type(schema, entry, place.clone(), value));
    }
    let takes_tables = schema.tables.iter().any(|(name, _)| name == key);
    match value {
        Value::Integer(number) => check_range(schema, entry, *number),
        Value::String(text) => check_text(schema, key, place, text),
        Value::Array(items) => SettingsError::all(items.iter().enumerate().filter_map(|(at, item)| {
            let place = entry.item.item_places.get(at).unwrap_or(place);
            let checked = match item {
                Value::Table(table) if takes_tables => (schema.table)(key, place, table),
                Value::String(text) if !takes_tables => check_text(schema, key, place, text),
                other => Err(wrong_type(schema, entry, place.clone(), other)),
            };
            checked.err()
        })),
        Value::Table(table) => (schema.table)(key, place, table),
        _ => Ok(()),
    }
}

/// Returns the error for a value that has another type than the default, or for a number out of range.
pub(super) fn wrong_type(schema: &Schema, entry: &Entry, place: Place, found: &Value) -> SettingsError {
    let key = &entry.item.key;
    let tables = schema.tables.iter().find(|(name, _)| name == key);
    let allowed = match (&entry.default, tables) {
        (Value::Integer(_), _) => range_text(schema, key),
        (Value::Boolean(_), _) => "true or false".to_owned(),
        (Value::Table(_), Some((_, takes))) => format!("{takes} in a settings file"),
        (Value::Array(_), Some((_, takes))) => format!("a list of {takes} in a settings file"),
        (Value::Array(_), None) => "a list of strings".to_owned(),
        _ => "a string".to_owned(),
    };
    // A text in place of true or false may be a secret that belongs to another key of the section.
    let is_misplaced = entry.default.is_bool() && schema.has_secret_beside(key);
    SettingsError::Value {
        place,
        key: key.clone(),
        allowed,
        found: if is_misplaced {
            MASK.to_owned()
        } else {
            schema.shown(key, found)
        },
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

fn check_range(schema: &Schema, entry: &Entry, number: i64) -> Result<(), SettingsError> {
    let Item { key, place, .. } = &entry.item;
    let range = schema.ranges.iter().find(|(name, ..)| name == key);
    let Some((_, low, high)) = range.filter(|(_, low, high)| !(*low..=*high).contains(&number)) else {
        return Ok(());
    };
    Err(match &entry.item.source {
        Some(source) => SettingsError::Value {
            place: place.clone(),
            key: key.clone(),
            allowed: format!("a time from {low} to {high} {}", entry.unit()),
            found: source.clone(),
        },
        None => wrong_type(schema, entry, place.clone(), &entry.item.value),
    })
}

fn check_text(schema: &Schema, key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
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
fn not_a_word(key: &str, place: &Place, words: &[&str], found: &str) -> SettingsError {
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
        let is_port = port.parse::<u16>().is_ok() && !port.starts_with('+');
        !host.is_empty() && (bracketed || !host.contains(':')) && is_port
    })
}
