//! One text of settings as a flat list of `section.key` with values and places.
//!
//! The settings are two levels deep at most, so a flat list is all that the layers above need; the places are what
//! error messages need. TOML is read here; a program may bring a reader for another format.

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{Place, SettingsError};

/// Result of reading a text.
#[derive(Debug)]
pub struct Document {
    /// Its `[sections]`, each with its line, from 1.
    pub sections: Vec<(String, usize)>,
    /// Its keys, in the order of the text.
    pub items: Vec<Item>,
    /// All errors of the text, each with its place.
    pub errors: Vec<SettingsError>,
    /// Warnings about what has no effect, each with its place.
    pub warnings: Vec<String>,
    /// Whether the text has the syntax of its format.
    pub is_well_formed: bool,
    /// Whether the value of each known key was read. If not, values are not compared with each other.
    pub is_complete: bool,
}

/// One `key = value` of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `section.key`, or `key` above the first section.
    pub key: String,
    /// The key as the text calls it, for errors; in TOML the key itself.
    pub name: String,
    /// The value, in the unit of the key.
    pub value: Value,
    /// The value as it is written, for errors, where it has another unit than the key.
    pub source: Option<String>,
    /// Place of the key.
    pub place: Place,
    /// Places of the items when the value is a list.
    pub item_places: Vec<Place>,
}

/// Reads `text`, which is shown as `name` in errors; where it is no TOML, what can be read of it without guessing.
pub(super) fn read(name: &str, text: &str) -> Document {
    let lines = Lines::of(name, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut broken: Vec<(usize, String)> = errors
        .iter()
        .map(|error| {
            let line = lines.number(error.span().map_or(0, |span| span.start));
            (line, error.message().trim().replace('\n', ", "))
        })
        .collect();
    // The first error of a line mostly is the cause of the others.
    broken.sort_by_key(|(line, _)| *line);
    broken.dedup_by_key(|(line, _)| *line);
    let known = |line: usize| !is_doubtful(text, line, &broken);
    let mut sections = Vec::new();
    let mut items = Vec::new();
    for (key, value) in root.get_ref() {
        let DeValue::Table(section) = value.get_ref() else {
            items.push(item(key.get_ref().to_string(), key.span().start, value, &lines));
            continue;
        };
        sections.push((key.get_ref().to_string(), lines.number(key.span().start)));
        items.extend(section.iter().map(|(inner, value)| {
            let name = format!("{}.{}", key.get_ref(), inner.get_ref());
            item(name, inner.span().start, value, &lines)
        }));
    }
    items.sort_by_key(|item: &Item| item.place.rank());
    items.retain(|item| known(item.place.rank().1));
    sections.retain(|(_, line)| known(*line));
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

/// Whether what stands in a line cannot be known: the line itself is broken, or the head of its section is.
fn is_doubtful(text: &str, line: usize, broken: &[(usize, String)]) -> bool {
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
        name: key.clone(),
        key,
        value: plain(value.get_ref()),
        source: None,
        place: lines.place(offset),
        item_places,
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
struct Lines<'a> {
    name: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(name: &'a str, text: &str) -> Self {
        let after = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            name,
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    /// The line, from 1, of the byte at `offset`.
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
    fn keys_come_with_their_section_value_and_line() {
        let text = "listen = [\n  \"a:1\",\n  \"b:2\",\n]\n\n[session]\n# why\nping_max = 3\n";
        let Document { sections, items, .. } = read("x.toml", text);
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
    fn numbers_may_be_written_as_toml_allows() {
        let Document { items, .. } = read("x", "a = 8_388_608\nb = 0x10\nc = 99999999999999999999\n");
        let values: Vec<_> = items.into_iter().map(|item| item.value).collect();
        assert_eq!(
            values,
            [Value::Integer(8_388_608), Value::Integer(16), Value::Float(1e20)]
        );
    }

    #[test]
    fn each_line_that_is_no_toml_is_told_and_the_others_are_read() {
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
            // Of which section the keys are is not known.
            (
                "a = 1\n[session\nb = 1\n[log]\nc = 1\n",
                &["2: not TOML: unclosed table"],
                &["a", "log.c"],
            ),
        ] {
            let Document {
                items, errors: found, ..
            } = read("x.toml", text);
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
