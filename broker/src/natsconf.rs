//! `nats-server`'s own format of settings files, for the keys that this server has too: so that a start script with
//! `-c nats.conf` goes on working. <https://docs.nats.io/running-a-nats-service/configuration>
//!
//! A key whose part this server does not have is an error, with its line: half of what a file asks for would be worse. The text
//! itself is taken apart in [`parser`].

mod parser;

use std::time::Duration;

use standin_daemon::settings::{Item, Place, SettingsError};
use toml::{Table, Value};

use self::parser::{Entry, Node, Parser};

/// Reads `text`, which is shown as `name` in errors, as keys of this server's settings.
///
/// # Errors
/// [`SettingsError`] with file and line: not the format, or a key that has no counterpart here.
pub(crate) fn read(name: &str, text: &str) -> Result<Vec<Item>, SettingsError> {
    let mut parser = Parser::new(name, text);
    let entries = parser.file()?;
    let mut keys = Keys {
        name,
        items: Vec::new(),
    };
    for entry in entries {
        // What others refer to need not be a setting itself.
        let variable = parser.has_used(&entry.key);
        match keys.top(entry) {
            Err(SettingsError::UnknownKey { .. }) if variable => {}
            result => result?,
        }
    }
    Ok(keys.items)
}

fn is_disabled(node: &Node) -> bool {
    matches!(node, Node::Text(text) if text == "disabled" || text == "disable")
}

/// Keys of this server's settings, as they come out.
struct Keys<'a> {
    name: &'a str,
    items: Vec<Item>,
}

impl Keys<'_> {
    fn place(&self, line: usize) -> Place {
        Place::file(self.name, line)
    }

    fn put(&mut self, key: &str, line: usize, value: Value) {
        self.items.push(Item {
            key: key.to_owned(),
            value,
            line,
            item_lines: Vec::new(),
        });
    }

    fn wrong(&self, entry: &Entry, allowed: &str) -> SettingsError {
        SettingsError::Value {
            place: self.place(entry.line),
            key: entry.key.clone(),
            allowed: allowed.to_owned(),
            found: match &entry.node {
                Node::Map(_) => "a map".to_owned(),
                Node::List(_) => "a list".to_owned(),
                // It may be a secret.
                Node::Text(_) => "a text".to_owned(),
                Node::Integer(number) => number.to_string(),
                Node::Flag(flag) => flag.to_string(),
            },
        }
    }

    fn top(&mut self, entry: Entry) -> Result<(), SettingsError> {
        let key = match entry.key.as_str() {
            "port" => "port",
            "host" | "net" => return self.host(&entry),
            "listen" => return self.listen(&entry, "addr", "port"),
            "server_name" => return self.text("server_name", &entry),
            "client_advertise" => return self.text("advertise", &entry),
            "http_port" | "monitor_port" => "http.port",
            "http" | "monitor" => return self.listen(&entry, "http.addr", "http.port"),
            "authorization" => return self.authorization(entry),
            "cluster" => return self.cluster(entry),
            "max_payload" => "limits.max_payload",
            "max_control_line" => "limits.max_control_line",
            "max_connections" | "max_conn" => {
                return self.unlimited("limits.max_connections", &entry, 1_000_000);
            }
            "max_subscriptions" | "max_subs" => return self.unlimited("limits.max_subscriptions", &entry, 0),
            "max_pending" => "limits.max_pending",
            "ping_max" => "limits.ping_max",
            "write_deadline" => return self.time("limits.write_deadline_ms", &entry, Duration::as_millis),
            "ping_interval" => return self.time("limits.ping_interval_ms", &entry, Duration::as_millis),
            "lame_duck_duration" => return self.seconds("process.lame_duck_secs", &entry),
            "lame_duck_grace_period" => return self.seconds("process.lame_duck_grace_secs", &entry),
            "logfile" | "log_file" => return self.text("log.file", &entry),
            "pid_file" | "pidfile" => return self.text("process.pid_file", &entry),
            "ports_file_dir" => return self.text("process.ports_file_dir", &entry),
            "debug" => return self.level("debug", &entry),
            "trace" => return self.level("trace", &entry),
            // Lines have their time anyway.
            "logtime" | "log_time" | "logtime_utc" => return Ok(()),
            // What is switched off is not missed.
            "jetstream" | "syslog" | "prof_port" | "logfile_size_limit" | "disable_sublist_cache"
                if matches!(entry.node, Node::Flag(false) | Node::Integer(0)) || is_disabled(&entry.node) =>
            {
                return Ok(());
            }
            // How much is logged of what is not logged here.
            "max_traced_msg_len" | "connect_error_reports" | "reconnect_error_reports" => return Ok(()),
            _ => return Err(self.unknown(&entry, "")),
        };
        match entry.node {
            Node::Integer(number) => {
                self.put(key, entry.line, Value::Integer(number));
                Ok(())
            }
            _ => Err(self.wrong(&entry, "a whole number")),
        }
    }

    fn host(&mut self, entry: &Entry) -> Result<(), SettingsError> {
        match &entry.node {
            Node::Text(text) if text == "localhost" => {
                self.put("addr", entry.line, Value::String("127.0.0.1".to_owned()));
                Ok(())
            }
            _ => self.text("addr", entry),
        }
    }

    /// A number for which 0 and less mean that there is no limit.
    fn unlimited(&mut self, key: &str, entry: &Entry, stands_for: i64) -> Result<(), SettingsError> {
        let Node::Integer(number) = entry.node else {
            return Err(self.wrong(entry, "a whole number"));
        };
        let number = if number <= 0 { stands_for } else { number };
        self.put(key, entry.line, Value::Integer(number));
        Ok(())
    }

    fn unknown(&self, entry: &Entry, section: &str) -> SettingsError {
        SettingsError::UnknownKey {
            place: self.place(entry.line),
            key: entry.key.clone(),
            section: section.to_owned(),
            hint: "; this server has nothing of that name: take it out, or use nats-server".to_owned(),
        }
    }

    fn text(&mut self, key: &str, entry: &Entry) -> Result<(), SettingsError> {
        let text = match &entry.node {
            Node::Text(text) => text.clone(),
            Node::Integer(number) => number.to_string(),
            _ => return Err(self.wrong(entry, "a text")),
        };
        self.put(key, entry.line, Value::String(text));
        Ok(())
    }

    /// `host:port`, or a port alone.
    fn listen(&mut self, entry: &Entry, addr: &str, port: &str) -> Result<(), SettingsError> {
        let number = match &entry.node {
            Node::Integer(number) => *number,
            Node::Text(text) => {
                let (host, number) = text.rsplit_once(':').unwrap_or(("", text));
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let host = if host == "localhost" { "127.0.0.1" } else { host };
                if !host.is_empty() {
                    self.put(addr, entry.line, Value::String(host.to_owned()));
                }
                match number.parse() {
                    Ok(number) => number,
                    Err(_) => return Err(self.wrong(entry, "host:port, or a port")),
                }
            }
            _ => return Err(self.wrong(entry, "host:port, or a port")),
        };
        self.put(port, entry.line, Value::Integer(number));
        Ok(())
    }

    fn level(&mut self, level: &str, entry: &Entry) -> Result<(), SettingsError> {
        match entry.node {
            Node::Flag(true) => self.put("log.level", entry.line, Value::String(level.to_owned())),
            Node::Flag(false) => {}
            _ => return Err(self.wrong(entry, "true or false")),
        }
        Ok(())
    }

    fn seconds(&mut self, key: &str, entry: &Entry) -> Result<(), SettingsError> {
        self.time(key, entry, |time| u128::from(time.as_secs()))
    }

    /// `"10s"`, `"1m30s"`; a number alone is seconds.
    fn time(&mut self, key: &str, entry: &Entry, unit: fn(&Duration) -> u128) -> Result<(), SettingsError> {
        let time = match &entry.node {
            Node::Integer(secs) => u64::try_from(*secs).ok().map(Duration::from_secs),
            Node::Text(text) => match text.parse::<f64>() {
                Ok(secs) => Duration::try_from_secs_f64(secs).ok(),
                Err(_) => humantime::parse_duration(text).ok(),
            },
            _ => None,
        };
        let Some(time) = time else {
            return Err(self.wrong(entry, "a time, such as \"10s\", or a number of seconds"));
        };
        let number = i64::try_from(unit(&time)).unwrap_or(i64::MAX);
        self.put(key, entry.line, Value::Integer(number));
        Ok(())
    }

    fn authorization(&mut self, entry: Entry) -> Result<(), SettingsError> {
        let Node::Map(entries) = entry.node else {
            return Err(self.wrong(&entry, "a map"));
        };
        for entry in entries {
            match entry.key.as_str() {
                "user" | "username" => self.text("authorization.user", &entry)?,
                "pass" | "password" => self.secret("authorization.password", &entry)?,
                "token" => self.secret("authorization.token", &entry)?,
                "timeout" => self.time("authorization.timeout_ms", &entry, Duration::as_millis)?,
                "users" => self.users(&entry)?,
                _ => return Err(self.unknown(&entry, " in authorization")),
            }
        }
        Ok(())
    }

    fn cluster(&mut self, entry: Entry) -> Result<(), SettingsError> {
        let Node::Map(entries) = entry.node else {
            return Err(self.wrong(&entry, "a map"));
        };
        let (mut host, mut port, mut line) = (None, None, entry.line);
        for entry in entries {
            match (entry.key.as_str(), &entry.node) {
                ("name", _) => self.text("cluster.name", &entry)?,
                ("advertise" | "cluster_advertise", _) => self.text("cluster.advertise", &entry)?,
                ("no_advertise", Node::Flag(flag)) => {
                    self.put("cluster.no_advertise", entry.line, Value::Boolean(*flag));
                }
                ("listen", Node::Text(text)) => {
                    line = entry.line;
                    let (before, after) = text.rsplit_once(':').unwrap_or(("0.0.0.0", text));
                    (host, port) = (Some(before.to_owned()), Some(after.to_owned()));
                }
                ("listen" | "port", Node::Integer(number)) => {
                    line = entry.line;
                    port = Some(number.to_string());
                }
                ("host" | "net", Node::Text(text)) => host = Some(text.clone()),
                ("routes", _) => self.routes(&entry)?,
                ("ping_interval", _) => self.time("cluster.ping_interval_ms", &entry, Duration::as_millis)?,
                ("authorization", Node::Map(_)) => self.cluster_authorization(entry)?,
                // There is one link to each node, and it is not compressed.
                ("pool_size" | "connect_retries" | "connect_backoff", _) => {}
                ("compression", _) if is_disabled(&entry.node) || matches!(entry.node, Node::Flag(false)) => {
                }
                ("no_advertise" | "listen" | "port" | "host" | "net" | "authorization", _) => {
                    return Err(self.wrong(&entry, "what nats-server takes there"));
                }
                _ => return Err(self.unknown(&entry, " in cluster")),
            }
        }
        let host = host.unwrap_or_else(|| "0.0.0.0".to_owned());
        let host = if host == "localhost" { "127.0.0.1" } else { &host };
        let listen = format!("{host}:{}", port.as_deref().unwrap_or("-1"));
        self.put("cluster.listen", line, Value::String(listen));
        Ok(())
    }

    fn routes(&mut self, entry: &Entry) -> Result<(), SettingsError> {
        let allowed = "a list of nats://host:port";
        let Node::List(list) = &entry.node else {
            return Err(self.wrong(entry, allowed));
        };
        let (mut routes, mut item_lines) = (Vec::new(), Vec::new());
        for (line, node) in list {
            let Node::Text(text) = node else {
                return Err(self.wrong(entry, allowed));
            };
            routes.push(Value::String(text.clone()));
            item_lines.push(*line);
        }
        self.items.push(Item {
            key: "cluster.routes".to_owned(),
            value: Value::Array(routes),
            line: entry.line,
            item_lines,
        });
        Ok(())
    }

    fn cluster_authorization(&mut self, entry: Entry) -> Result<(), SettingsError> {
        let Node::Map(entries) = entry.node else {
            return Ok(());
        };
        for entry in entries {
            match entry.key.as_str() {
                "user" | "username" => self.text("cluster.user", &entry)?,
                "pass" | "password" => self.secret("cluster.password", &entry)?,
                // Introducing itself has a time of its own.
                "timeout" => {}
                _ => return Err(self.unknown(&entry, " in cluster.authorization")),
            }
        }
        Ok(())
    }

    fn secret(&mut self, key: &str, entry: &Entry) -> Result<(), SettingsError> {
        if let Node::Text(text) = &entry.node
            && text.starts_with("$2")
        {
            return Err(SettingsError::Conflict {
                place: self.place(entry.line),
                rule: format!(
                    "{} is hashed (bcrypt), which this version does not read; give it in plain",
                    entry.key
                ),
            });
        }
        self.text(key, entry)
    }

    fn users(&mut self, entry: &Entry) -> Result<(), SettingsError> {
        let allowed = "a list of { user: …, password: … }";
        let Node::List(list) = &entry.node else {
            return Err(self.wrong(entry, allowed));
        };
        let (mut users, mut item_lines) = (Vec::new(), Vec::new());
        for (line, node) in list {
            let Node::Map(fields) = node else {
                return Err(self.wrong(entry, allowed));
            };
            let mut one = Keys {
                name: self.name,
                items: Vec::new(),
            };
            for field in fields {
                match field.key.as_str() {
                    "user" | "username" => one.text("user", field)?,
                    "pass" | "password" => one.secret("password", field)?,
                    _ => return Err(self.unknown(field, " in authorization.users")),
                }
            }
            let table: Table = one.items.into_iter().map(|item| (item.key, item.value)).collect();
            users.push(Value::Table(table));
            item_lines.push(*line);
        }
        self.items.push(Item {
            key: "authorization.users".to_owned(),
            value: Value::Array(users),
            line: entry.line,
            item_lines,
        });
        Ok(())
    }
}

#[cfg(test)]
#[path = "natsconf_tests.rs"]
mod tests;
