//! What changed from one set of settings to the next, for the log line of a SIGHUP.

use std::fmt;

use toml::{Table, Value};

use super::{Settings, check};

/// Keys that are taken at start only, marked `(restart)` in `deploy/proxy.toml`.
const RESTART: &[&str] = &[
    "listen",
    "limits.workers",
    "socket.listen_backlog",
    "http.listen",
    "log.format",
];

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// From now on, for running sessions as well.
    Now,
    /// At the next start of the process.
    Restart,
}

/// One key whose value is another now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// The value before, secrets masked.
    pub from: String,
    /// The value now, secrets masked.
    pub to: String,
    /// When it takes effect.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} -> {}", self.key, self.from, self.to)
    }
}

impl Settings {
    /// The keys whose values differ in `new`, by name.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (old, new) = (flat(self), flat(new));
        let changed = old.iter().zip(&new).filter(|((_, old), (_, new))| old != new);
        changed
            .map(|((key, old), (_, new))| Change {
                key: key.clone(),
                from: check::shown(key, old),
                to: check::shown(key, new),
                effect: if RESTART.contains(&key.as_str()) {
                    Effect::Restart
                } else {
                    Effect::Now
                },
            })
            .collect()
    }

    /// `new`, with the values of this one where a restart is needed: what is really in force after a SIGHUP.
    #[must_use]
    pub fn reloaded(&self, mut new: Self) -> Self {
        new.listen.clone_from(&self.listen);
        new.limits.workers = self.limits.workers;
        new.socket.listen_backlog = self.socket.listen_backlog;
        new.http.listen.clone_from(&self.http.listen);
        new.log.format = self.log.format;
        new
    }
}

/// Every `section.key` with its value, in one order for all settings.
fn flat(settings: &Settings) -> Vec<(String, Value)> {
    let table = Table::try_from(settings).unwrap_or_default();
    let mut keys = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                keys.extend(
                    section
                        .into_iter()
                        .map(|(key, value)| (format!("{name}.{key}"), value)),
                );
            }
            value => keys.push((name, value)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::from_toml(text).unwrap()
    }

    #[test]
    fn changed_keys_are_named_with_both_values_and_when_they_take_effect() {
        let old = settings("[session]\nping_max = 3\n");
        let new = settings("listen = [\"127.0.0.1:4333\"]\n[session]\nping_max = 4\n");
        let seen: Vec<_> = old
            .changes(&new)
            .iter()
            .map(|change| (change.to_string(), change.effect))
            .collect();
        assert_eq!(
            seen,
            [
                (
                    "listen: [\"127.0.0.1:4222\"] -> [\"127.0.0.1:4333\"]".to_owned(),
                    Effect::Restart
                ),
                ("session.ping_max: 3 -> 4".to_owned(), Effect::Now),
            ]
        );
        assert_eq!(old.changes(&old), []);
    }

    #[test]
    fn a_changed_password_is_a_change_that_shows_no_password() {
        let old = settings("[nodes]\nupstream = [\"nats://u:old@h:1\"]\n");
        let new = settings("[nodes]\nupstream = [\"nats://u:new@h:1\"]\n");
        let changes = old.changes(&new);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to, "[\"nats://u:***@h:1\"]");
    }

    #[test]
    fn exactly_the_keys_marked_restart_need_one_and_are_kept() {
        let marked: Vec<String> = marked_restart();
        let mut known: Vec<String> = RESTART.iter().map(|key| (*key).to_owned()).collect();
        known.sort();
        assert_eq!(marked, known);

        let old = settings("");
        let new = settings(
            "listen = [\"127.0.0.1:1\"]\n[limits]\nworkers = 7\nconnections_max = 9\n[socket]\nlisten_backlog = 7\n\
             [http]\nlisten = \"127.0.0.1:2\"\n[log]\nformat = \"json\"\n",
        );
        let left: Vec<_> = old
            .changes(&old.reloaded(new))
            .into_iter()
            .map(|change| change.key)
            .collect();
        assert_eq!(left, ["limits.connections_max"]);
    }

    /// The keys of `deploy/proxy.toml` whose comment says `(restart)`.
    fn marked_restart() -> Vec<String> {
        let (mut section, mut marked, mut keys) = (String::new(), false, Vec::new());
        for line in super::super::DEFAULTS.lines().skip_while(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.trim_end_matches(']'));
            } else if line.starts_with('#') {
                marked |= line.contains("(restart)");
            } else if let Some((key, _)) = line.split_once(" = ")
                && std::mem::take(&mut marked)
            {
                keys.push(format!("{section}{key}"));
            }
        }
        keys.sort();
        keys
    }
}
