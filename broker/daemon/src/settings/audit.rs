//! Comparison of the compiled-in settings file with the schema, for the tests of the programs.

use super::{Schema, SettingsError, document};

/// Returns the differences between the file and the schema: missing comments, different ranges, missing or wrong
/// `(restart)` marks, and unknown keys.
#[must_use]
pub fn faults(schema: &Schema) -> Vec<String> {
    let document = document::parse(schema.defaults_file, schema.defaults, schema.tables);
    if let Err(error) = SettingsError::all(document.errors) {
        return vec![error.to_string()];
    }
    let keys = document.items.into_iter();
    let keys: Vec<_> = keys.map(|item| (item.key, item.place.rank().1)).collect();
    let lines: Vec<&str> = schema.defaults.lines().collect();
    let mut faults = Vec::new();
    for (key, line) in &keys {
        let comment = comment(&lines[..line - 1]);
        if comment.is_empty() {
            faults.push(format!("{key} has no comment above it"));
        }
        let value = lines[line - 1].split_once(" = ").map_or("", |(_, value)| value);
        let is_number = value.replace('_', "").parse::<i64>().is_ok();
        match schema.ranges.iter().find(|(name, ..)| name == key) {
            None if is_number => faults.push(format!("{key} has no range")),
            Some((_, low, high)) if !comment.ends_with(&format!("[{low}..{high}]")) => {
                faults.push(format!("the comment of {key} does not end with [{low}..{high}]"));
            }
            _ => {}
        }
        if comment.contains("(restart)") != schema.restart.contains(&key.as_str()) {
            faults.push(format!(
                "the comment and the schema differ on whether {key} needs a restart"
            ));
        }
    }
    let known = |name: &&str| keys.iter().any(|(key, _)| key == name);
    let ranges = schema.ranges.iter().map(|(name, ..)| *name);
    let named = ranges.chain(schema.restart.iter().copied());
    faults.extend(
        named
            .filter(|name| !known(name))
            .map(|name| format!("{name} is not a key")),
    );
    faults
}

/// Returns the comment at the end of the lines `above`, joined into one line.
fn comment(above: &[&str]) -> String {
    let lines = above.iter().rev().take_while(|line| line.starts_with('#'));
    let mut comment: Vec<&str> = lines.copied().collect();
    comment.reverse();
    comment.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::sample::SCHEMA;
    use super::*;

    #[test]
    fn each_difference_is_a_fault() {
        let schema = Schema {
            defaults: "# One. [1..2]\nnumber = 1\n\n# Two. (restart)\nlist = []\nbare = \"\"\n# Three.\nlost = 1_000\n",
            ranges: &[("number", 1, 3), ("gone", 1, 2)],
            restart: &["number"],
            ..SCHEMA
        };
        let faults = faults(&schema);
        for fault in [
            "the comment of number does not end with [1..3]",
            "the comment and the schema differ on whether number needs a restart",
            "the comment and the schema differ on whether list needs a restart",
            "bare has no comment above it",
            "lost has no range",
            "gone is not a key",
        ] {
            assert!(
                faults.iter().any(|have| have.starts_with(fault)),
                "{fault} in {faults:?}"
            );
        }
        assert_eq!(faults.len(), 6, "{faults:?}");
    }
}
