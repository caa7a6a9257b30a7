//! Changes between two sets of settings, for the log lines of a SIGHUP.

use std::fmt;

use toml::{Table, Value};

use super::Settings;

/// Change of the value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// The old value, with secrets masked.
    pub from: String,
    /// The new value, with secrets masked.
    pub to: String,
    /// Whether the change takes effect only at the next start of the process. Any other change takes effect at once, also for
    /// running sessions.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

/// Returns the changes from `old` to `new`, ordered by key.
#[must_use]
pub fn changes<S: Settings>(old: &S, new: &S) -> Vec<Change> {
    let schema = S::SCHEMA;
    let (old, new) = (flat(old), flat(new));
    let changed = old.iter().zip(&new).filter(|((_, old), (_, new))| old != new);
    changed
        .map(|((key, old), (_, new))| Change {
            key: key.clone(),
            from: schema.shown(key, old),
            to: schema.shown(key, new),
            needs_restart: schema.restart.contains(&key.as_str()),
        })
        .collect()
}

/// Returns the settings in force after a reload: `new`, except that keys whose changes need a restart have the values of `old`.
#[must_use]
pub fn reloaded<S: Settings>(old: &S, new: S) -> S {
    let (Ok(old), Ok(mut mixed)) = (Table::try_from(old), Table::try_from(&new)) else {
        return new;
    };
    for key in S::SCHEMA.restart {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        let names = || section.split('.').filter(|name| !name.is_empty());
        let from = names().try_fold(&old, |table, name| table.get(name)?.as_table());
        let to = names().try_fold(&mut mixed, |table, name| table.get_mut(name)?.as_table_mut());
        if let (Some(value), Some(table)) = (from.and_then(|table| table.get(key)), to) {
            table.insert(key.to_owned(), value.clone());
        }
    }
    // Both sets are valid, so an error is not expected.
    S::deserialize(mixed).unwrap_or(new)
}

/// Returns all keys with their values, in the same order for all settings.
fn flat<S: Settings>(settings: &S) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    flatten("", Table::try_from(settings).unwrap_or_default(), &mut keys);
    keys
}

fn flatten(section: &str, table: Table, keys: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let full = if section.is_empty() {
            name
        } else {
            format!("{section}.{name}")
        };
        match value {
            Value::Table(inner) => flatten(&full, inner, keys),
            value => keys.push((full, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::of_text;
    use super::super::sample::Sample;
    use super::*;

    fn settings(text: &str) -> Sample {
        of_text("settings", text).unwrap().settings
    }

    #[test]
    fn a_change_has_both_values_and_says_whether_it_needs_a_restart() {
        let old = settings("[session]\nping_max = 3\n");
        let new = settings("listen = [\"127.0.0.1:4333\"]\n[session]\nping_max = 4\n");
        let seen: Vec<_> = changes(&old, &new)
            .iter()
            .map(|change| (change.to_string(), change.needs_restart))
            .collect();
        let listen = "listen: [\"127.0.0.1:4222\"] -> [\"127.0.0.1:4333\"]".to_owned();
        let ping_max = "session.ping_max: 3 -> 4".to_owned();
        assert_eq!(seen, [(listen, true), (ping_max, false)]);
        assert_eq!(changes(&old, &old), []);
    }

    #[test]
    fn a_changed_password_is_masked() {
        let old = settings("[nodes]\nupstream = [\"nats://u:old@h:1\"]\n");
        let new = settings("[nodes]\nupstream = [\"nats://u:new@h:1\"]\n");
        let changes = changes(&old, &new);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to, "[\"nats://u:***@h:1\"]");
    }

    #[test]
    fn keys_that_need_a_restart_keep_their_values() {
        let old = settings("");
        let new = settings("listen = [\"127.0.0.1:1\"]\n[session]\nping_max = 9\n[log]\nformat = \"json\"\n");
        let left: Vec<_> = changes(&old, &reloaded(&old, new))
            .into_iter()
            .map(|change| change.key)
            .collect();
        assert_eq!(left, ["session.ping_max"]);
    }
}
