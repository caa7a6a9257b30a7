//! One text of settings as a flat list of keys with values and places.
//!
//! A flat list is enough, because each key has a name of its own, such as `tls.node.mode`. The places are for error messages. This file parses TOML; a
//! program may supply a parser of another format.

use std::fmt;

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{Place, SettingsError};

/// Result of parsing a text.
#[derive(Debug)]
pub struct Document {
    /// The sections, each with its line, counted from 1.
    pub sections: Vec<(String, usize)>,
    /// The keys, in the order of the text.
    pub items: Vec<Item>,
    /// The errors of the text, each with its place.
    pub errors: Vec<SettingsError>,
    /// Warnings about parts without effect, each with its place.
    pub warnings: Vec<String>,
    /// Whether the syntax of the text is valid.
    pub is_well_formed: bool,
    /// Whether the value of each known key was parsed. If not, values are not compared with each other.
    pub is_complete: bool,
}

/// One `key = value` of a text. `Debug` hides the value, which may be a secret.
#[derive(Clone, PartialEq)]
pub struct Item {
    /// `section.key`, or `key` above the first section.
    pub key: String,
    /// Name of the key in the text, for errors. In TOML this is the key itself.
    pub name: String,
    /// The value, in the unit of the key.
    pub value: Value,
    /// The value as it was written, for errors, if it was written in another unit than that of the key.
    pub source: Option<String>,
    /// Place of the key.
    pub place: Place,
    /// Places of the items if the value is a list.
    pub item_places: Vec<Place>,
}

impl fmt::Debug for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.key, self.place)
    }
}

impl Item {
    /// Creates the item of a value that was written under its own key and in its own unit.
    pub(super) fn of(key: String, value: Value, place: Place) -> Self {
        Self {
            name: key.clone(),
            key,
            value,
            source: None,
            place,
            item_places: Vec::new(),
        }
    }
}

/// Parses a TOML text. `name` is its name in errors. `tables` are the keys whose value is a table or a list of tables; all other tables are
/// sections. If the text has errors, only lines whose meaning is certain are used.
pub(super) fn parse(name: &str, text: &str, tables: &[(&str, &str)]) -> Document {
    let lines = Lines::of(name, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut broken: Vec<(usize, String)> = errors
        .iter()
        .map(|error| {
            let line = lines.number(error.span().map_or(0, |span| span.start));
            (line, error.message().trim().replace('\n', ", "))
        })
        .collect();
    // The first error of a line is usually the cause of the others.
    broken.sort_by_key(|(line, _)| *line);
    broken.dedup_by_key(|(line, _)| *line);
    let is_certain = |line: usize| !is_uncertain(text, line, &broken);
    let mut sections = Vec::new();
    let mut items = Vec::new();
    let is_value = |key: &str| tables.iter().any(|(name, _)| *name == key);
    flatten("", root.get_ref(), &lines, &is_value, &mut sections, &mut items);
    items.sort_by_key(|item: &Item| item.place.rank());
    items.retain(|item| is_certain(item.place.rank().1));
    sections.retain(|(_, line)| is_certain(*line));
    let error = |(line, message)| SettingsError::Syntax {
        place: Place::file(name, line),
        format: "TOML",
        message,
    };
    Document {
        sections,
        items,
        is_well_formed: broken.is_empty(),
        is_complete: broken.is_empty(),
        errors: broken.into_iter().map(error).collect(),
        warnings: Vec::new(),
    }
}

/// Adds the sections and keys of `table`, the section `name`.
fn flatten(
    name: &str,
    table: &DeTable<'_>,
    lines: &Lines<'_>,
    is_value: &impl Fn(&str) -> bool,
    sections: &mut Vec<(String, usize)>,
    items: &mut Vec<Item>,
) {
    for (key, value) in table {
        let full = match name {
            "" => key.get_ref().to_string(),
            name => format!("{name}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(section) if !is_value(&full) => {
                sections.push((full.clone(), lines.number(key.span().start)));
                flatten(&full, section, lines, is_value, sections, items);
            }
            _ => items.push(item(full, key.span().start, value, lines)),
        }
    }
}

/// Returns whether the meaning of a line is uncertain, because the line or the header of its section has an error.
fn is_uncertain(text: &str, line: usize, broken: &[(usize, String)]) -> bool {
    if broken.is_empty() {
        return false;
    }
    let is_broken = |line: usize| broken.iter().any(|(broken, _)| *broken == line);
    let above = text.lines().enumerate().take(line);
    let head = above
        .filter(|(_, text)| text.trim_start().starts_with('['))
        .last();
    is_broken(line) || head.is_some_and(|(at, _)| is_broken(at + 1))
}

fn item(key: String, offset: usize, value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Item {
    let item_places = match value.get_ref() {
        DeValue::Array(array) => array.iter().map(|item| lines.place(item.span().start)).collect(),
        _ => Vec::new(),
    };
    Item {
        item_places,
        ..Item::of(key, plain(value.get_ref()), lines.place(offset))
    }
}

/// Returns the value without its spans. An integer of more than 64 bits, and an incomplete date in a text with errors, become a float that
/// no setting accepts.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| float(digits.as_str()), Value::Integer),
        DeValue::Float(digits) => float(digits.as_str()),
        DeValue::Datetime(date) => date
            .to_string()
            .parse()
            .map_or(Value::Float(f64::NAN), Value::Datetime),
        DeValue::Array(array) => Value::Array(array.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
                .collect(),
        ),
    }
}

fn float(digits: &str) -> Value {
    Value::Float(digits.parse().unwrap_or(f64::NAN))
}

/// Offsets of the lines of a text.
struct Lines<'a> {
    name: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(name: &'a str, text: &str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name,
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    /// Returns the line of the byte at `offset`, counted from 1.
    fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn place(&self, offset: usize) -> Place {
        Place::file(self.name, self.number(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_section_value_and_line() {
        let text = "listen = [\n  \"a:1\",\n  \"b:2\",\n]\n\n[session]\n# why\nping_max = 3\n";
        let Document { sections, items, .. } = parse("x.toml", text, &[]);
        assert_eq!(sections, [("session".to_owned(), 6)]);
        let at = |line| Place::file("x.toml", line);
        let seen: Vec<_> = items
            .iter()
            .map(|item| (item.key.as_str(), item.place.clone()))
            .collect();
        assert_eq!(seen, [("listen", at(1)), ("session.ping_max", at(8))]);
        assert_eq!(items[0].item_places, [at(2), at(3)]);
        assert_eq!(items[1].value, Value::Integer(3));
    }

    #[test]
    fn numbers_may_have_any_form_of_toml() {
        let Document { items, .. } = parse("x", "a = 8_388_608\nb = 0x10\nc = 99999999999999999999\n", &[]);
        let values: Vec<_> = items.into_iter().map(|item| item.value).collect();
        assert_eq!(
            values,
            [Value::Integer(8_388_608), Value::Integer(16), Value::Float(1e20)]
        );
    }

    #[test]
    fn an_incomplete_date_can_be_shown() {
        let (root, errors) = DeTable::parse_recoverable("c = 1:]4\n");
        assert!(!errors.is_empty());
        let (_, value) = root.get_ref().iter().next().expect("the key c");
        assert!(matches!(value.get_ref(), DeValue::Datetime(_)));
        assert_eq!(plain(value.get_ref()).to_string(), "nan");
    }

    #[test]
    fn each_invalid_line_is_an_error_and_the_others_are_parsed() {
        for (text, errors, keys) in [
            (
                "[session]\nping_max = \n",
                &["2: not TOML: string values must be quoted"][..],
                &[][..],
            ),
            (
                "[session]\nping_max = 1\nping_max = 2\n",
                &["3: not TOML: duplicate key"],
                &["session.ping_max"],
            ),
            (
                "listen = 127.0.0.1:4222\n[log]\nlevel = debug\nformat = \"json\"\n",
                &[
                    "1: not TOML: invalid float",
                    "3: not TOML: string values must be quoted",
                ],
                &["log.format"],
            ),
            // `b` is skipped, because its section is unknown.
            (
                "a = 1\n[session\nb = 1\n[log]\nc = 1\n",
                &["2: not TOML: unclosed table"],
                &["a", "log.c"],
            ),
        ] {
            let Document {
                items, errors: found, ..
            } = parse("x.toml", text, &[]);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), errors.len(), "{found:?}");
            for (found, error) in found.iter().zip(errors) {
                assert!(found.starts_with(&format!("x.toml:{error}")), "{found}");
            }
            let items: Vec<_> = items.iter().map(|item| item.key.as_str()).collect();
            assert_eq!(items, keys, "{text}");
        }
    }
}
