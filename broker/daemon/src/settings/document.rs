//! One TOML text as a flat list of `section.key` with values and line numbers.
//!
//! The settings are two levels deep at most, so a flat list is all that the layers above need; the line numbers are what
//! error messages need.

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{Place, SettingsError};

/// A text, read.
#[derive(Debug)]
pub(super) struct Document {
    /// Its `[sections]`, each with its line, from 1.
    pub(super) sections: Vec<(String, usize)>,
    /// Its keys, in the order of the text.
    pub(super) items: Vec<Item>,
}

/// One `key = value` of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `section.key`, or `key` above the first section.
    pub key: String,
    /// What stands there.
    pub value: Value,
    /// Line of the key, from 1.
    pub line: usize,
    /// Lines of the items when the value is a list, from 1.
    pub item_lines: Vec<usize>,
}

/// Every key of `text` with its line, from 1.
///
/// # Errors
/// [`SettingsError::Syntax`] with file and line.
pub fn key_lines(name: &str, text: &str) -> Result<Vec<(String, usize)>, SettingsError> {
    let items = read(name, text)?.items;
    Ok(items.into_iter().map(|item| (item.key, item.line)).collect())
}

/// Reads `text`, which is shown as `name` in errors.
///
/// # Errors
/// [`SettingsError::Syntax`] with file and line.
pub(super) fn read(name: &str, text: &str) -> Result<Document, SettingsError> {
    let lines = Lines::of(text);
    let root = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
        place: Place::file(name, lines.at(error.span().map_or(0, |span| span.start))),
        format: "TOML",
        message: error.message().trim().to_owned(),
    })?;
    let mut sections = Vec::new();
    let mut items = Vec::new();
    for (key, value) in root.get_ref() {
        let DeValue::Table(section) = value.get_ref() else {
            items.push(item(key.get_ref().to_string(), key.span().start, value, &lines));
            continue;
        };
        sections.push((key.get_ref().to_string(), lines.at(key.span().start)));
        items.extend(section.iter().map(|(inner, value)| {
            let name = format!("{}.{}", key.get_ref(), inner.get_ref());
            item(name, inner.span().start, value, &lines)
        }));
    }
    items.sort_by_key(|item| item.line);
    Ok(Document { sections, items })
}

fn item(key: String, offset: usize, value: &Spanned<DeValue<'_>>, lines: &Lines) -> Item {
    let item_lines = match value.get_ref() {
        DeValue::Array(array) => array.iter().map(|item| lines.at(item.span().start)).collect(),
        _ => Vec::new(),
    };
    Item {
        key,
        value: plain(value.get_ref()),
        line: lines.at(offset),
        item_lines,
    }
}

/// The value without its spans. A whole number beyond 64 bits becomes a float, which no setting takes.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| float(digits.as_str()), Value::Integer),
        DeValue::Float(digits) => float(digits.as_str()),
        DeValue::Datetime(date) => Value::Datetime(*date),
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

/// Where the lines of a text begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let after = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    /// The line, from 1, of the byte at `offset`.
    fn at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_section_value_and_line() {
        let text = "listen = [\n  \"a:1\",\n  \"b:2\",\n]\n\n[session]\n# why\nping_max = 3\n";
        let Document { sections, items } = read("x.toml", text).unwrap();
        assert_eq!(sections, [("session".to_owned(), 6)]);
        let seen: Vec<_> = items.iter().map(|item| (item.key.as_str(), item.line)).collect();
        assert_eq!(seen, [("listen", 1), ("session.ping_max", 8)]);
        assert_eq!(items[0].item_lines, [2, 3]);
        assert_eq!(items[1].value, Value::Integer(3));
    }

    #[test]
    fn numbers_may_be_written_as_toml_allows() {
        let Document { items, .. } =
            read("x", "a = 8_388_608\nb = 0x10\nc = 99999999999999999999\n").unwrap();
        let values: Vec<_> = items.into_iter().map(|item| item.value).collect();
        assert_eq!(
            values,
            [Value::Integer(8_388_608), Value::Integer(16), Value::Float(1e20)]
        );
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_with_its_line() {
        let error = read("x.toml", "[session]\nping_max = \n").unwrap_err();
        assert!(error.to_string().starts_with("x.toml:2: not TOML: "), "{error}");
        let error = read("x.toml", "[session]\nping_max = 1\nping_max = 2\n").unwrap_err();
        assert!(
            error.to_string().starts_with("x.toml:3: not TOML: duplicate key"),
            "{error}"
        );
    }
}
