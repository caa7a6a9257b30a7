//! The keys at the top level of a file. Each key is converted to a key of this server's settings, has no effect, or belongs to an unsupported
//! feature.

use std::time::Duration;

use standin_daemon::settings::{Item, Place, SettingsError};
use toml::Value;

use super::node::{Entry, Node};
use super::remark::Remark;
use super::tls::Door;
use crate::unsupported::{LOG_ROTATION, LOGTIME_OFF, SYSTEM_ACCOUNT, Unsupported};

/// The result of converting a file: keys of this server's settings, errors and warnings.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) items: Vec<Item>,
    pub(super) errors: Vec<SettingsError>,
    /// Keys that are accepted and have no effect, although they ask for something.
    pub(super) warnings: Vec<Remark>,
    /// Keys that are accepted without a warning and have no effect in this server.
    pub(super) ignored: Vec<Remark>,
    /// Whether a known key has a value of the wrong type. The settings are incomplete then.
    pub(super) has_type_error: bool,
    /// The name of the current block with a dot at its end; empty at the top level.
    pub(super) block: &'static str,
    pub(super) cluster_listen: Listen,
    /// Place of the block `tls` for clients, if there is one.
    pub(super) client_tls: Option<Place>,
    /// Clients may do without TLS.
    pub(super) allows_plain: bool,
    debug: Option<Place>,
    trace: Option<Place>,
}

/// The address to listen on for other nodes, collected from the keys `listen`, `host` and `port`.
#[derive(Default)]
pub(super) struct Listen {
    pub(super) place: Option<Place>,
    pub(super) host: String,
    pub(super) port: i64,
}

/// Maximum number of characters of an unknown key in an error.
const KEY_CHARS_SHOWN: usize = 64;

/// The keys that have no effect in this server, separated by spaces. The keys in the last line are about OCSP, which this server does
/// not have.
const WITHOUT_EFFECT: &str = "server_tags server_metadata max_closed_clients no_system_account no_system no_sys_acc logfile_max_num \
    log_max_num logtime_utc max_traced_msg_len trace_headers connect_error_reports reconnect_error_reports disable_sublist_cache \
    no_sublist_cache prof_block_rate store_dir storedir default_js_domain no_fast_producer_stall feature_flags \
    ocsp ocsp_cache";

/// Conversion of a time to a number in the unit of a key.
pub(super) type Unit = fn(&Duration) -> u128;

/// Returns whole seconds: the [`Unit`] of keys in seconds.
pub(super) fn secs(time: &Duration) -> u128 {
    u128::from(time.as_secs())
}

impl Keys {
    /// Converts all keys of a file.
    pub(super) fn top(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.top_level_key(entry);
        }
        self.client_tls_mode();
        self.pages();
        self.lame_duck();
        // `trace` overrides `debug`, whatever their order.
        let trace = self.trace.take().map(|place| ("trace", place));
        let level = trace.or(self.debug.take().map(|place| ("debug", place)));
        if let Some((level, place)) = level {
            self.put(&place, level, "log.level", Value::String(level.to_owned()));
        }
    }

    /// Shortens the lame duck time by the grace period, once both are known: in nats-server the one includes the other, and here it follows.
    fn lame_duck(&mut self) {
        const GRACE_SECS_DEFAULT: i64 = 10;
        let set = |items: &[Item], key| items.iter().rposition(|item| item.key == key);
        let Some(whole) = set(&self.items, "process.lame_duck_secs") else {
            return;
        };
        let place = self.items[whole].place.clone();
        let grace = set(&self.items, "process.lame_duck_grace_secs").unwrap_or_else(|| {
            let default = Value::Integer(GRACE_SECS_DEFAULT);
            self.put(
                &place,
                "lame_duck_duration",
                "process.lame_duck_grace_secs",
                default,
            );
            self.items.len() - 1
        });
        if let (Some(secs), Some(grace)) = (
            self.items[whole].value.as_integer(),
            self.items[grace].value.as_integer(),
        ) {
            self.items[whole].value = Value::Integer(secs.saturating_sub(grace).max(1));
        }
    }

    /// Sets the address of the pages by `set`, and that they are served over HTTPS.
    fn https(&mut self, entry: &Entry, set: impl FnOnce(&mut Self)) {
        let before = self.items.len();
        set(self);
        if self.items[before..].iter().any(|item| item.key == "http.port") {
            let mode = Value::String("required".to_owned());
            self.put(&entry.place, &entry.key, "tls.http.mode", mode);
        }
    }

    /// Checks the keys of the pages, once all keys are known. If the file has a port for the pages and no host, the pages get the host
    /// of the address for clients. Two ports are refused, as in nats-server.
    fn pages(&mut self) {
        let ports = self.items.iter().filter(|item| item.key == "http.port");
        let (https, http): (Vec<&Item>, Vec<&Item>) =
            ports.partition(|item| item.name.to_lowercase().starts_with("https"));
        let Some(Item { name, place, .. }) = https.last().or(http.last()) else {
            return;
        };
        let (name, place) = (name.clone(), place.clone());
        if !https.is_empty() && !http.is_empty() {
            let rule = format!("{name} is set, and a port for HTTP too; keep one of them");
            self.add(&place, rule);
        }
        if self.items.iter().all(|item| item.key != "http.addr") {
            self.put(&place, &name, "http.addr", Value::String(String::new()));
        }
    }

    /// Converts the keys of a block.
    pub(super) fn keys_of(&mut self, entry: Entry, block: &'static str, one: fn(&mut Self, Entry)) {
        let Node::Map(entries) = entry.node else {
            return self.wrong(&entry, "a block: { … }");
        };
        let outer = std::mem::replace(&mut self.block, block);
        entries.into_iter().for_each(|entry| one(self, entry));
        self.block = outer;
    }

    /// Converts one key at the top level.
    fn top_level_key(&mut self, entry: Entry) {
        match entry.key.to_lowercase().as_str() {
            "port" => self.positive(&entry, "port"),
            "host" | "net" => self.host(&entry, "addr"),
            "listen" => self.listen(&entry, "addr", "port"),
            "server_name" => self.text(&entry, "server_name"),
            "client_advertise" => self.text(&entry, "advertise"),
            "http_port" | "monitor_port" => self.positive(&entry, "http.port"),
            "http" | "monitor" => self.listen(&entry, "http.addr", "http.port"),
            "https_port" => self.https(&entry, |keys| keys.positive(&entry, "http.port")),
            "https" => self.https(&entry, |keys| keys.listen(&entry, "http.addr", "http.port")),
            "authorization" => self.authorization(entry),
            "no_auth_user" => self.text(&entry, "authorization.no_auth_user"),
            "accounts" => self.accounts(&entry),
            "system_account" | "system" => {
                self.text(&entry, "authorization.system_account");
                self.without_effect(&entry, SYSTEM_ACCOUNT);
            }
            "cluster" => self.cluster(entry),
            "tls" => self.tls(entry, Door::Client),
            "allow_non_tls" => self.allows_plain = self.switch(&entry),
            "max_payload" => self.positive(&entry, "limits.max_payload"),
            "max_control_line" => self.positive(&entry, "limits.max_control_line"),
            "max_connections" | "max_conn" => self.unlimited(&entry, "limits.max_connections", 1_000_000),
            "max_subscriptions" | "max_subs" => self.unlimited(&entry, "limits.max_subscriptions", 0),
            "max_pending" => self.positive(&entry, "limits.max_pending"),
            "ping_max" => self.positive(&entry, "limits.ping_max"),
            "write_deadline" => self.time(&entry, "limits.write_deadline_ms", Duration::as_millis),
            "ping_interval" => self.time(&entry, "limits.ping_interval_ms", Duration::as_millis),
            "lame_duck_duration" => self.time(&entry, "process.lame_duck_secs", secs),
            "lame_duck_grace_period" => self.time(&entry, "process.lame_duck_grace_secs", secs),
            "logfile" | "log_file" => self.text(&entry, "log.file"),
            "pid_file" | "pidfile" => self.text(&entry, "process.pid_file"),
            "ports_file_dir" => self.text(&entry, "process.ports_file_dir"),
            "debug" if self.switch(&entry) => self.debug = Some(entry.place),
            "trace" | "trace_verbose" if self.switch(&entry) => self.trace = Some(entry.place),
            "debug" | "trace" | "trace_verbose" => {}
            "logtime" | "log_time" => match entry.node {
                Node::Bool(false, _) => self.without_effect(&entry, LOGTIME_OFF),
                _ => _ = self.switch(&entry),
            },
            "logfile_size_limit" | "log_size_limit" if is_off(&entry.node) => {}
            "logfile_size_limit" | "log_size_limit" => self.without_effect(&entry, LOG_ROTATION),
            key if is_one_of(key, WITHOUT_EFFECT) => self.ignore(&entry, "this server has nothing like it"),
            key => match UNSUPPORTED.iter().find(|(keys, _)| is_one_of(key, keys)) {
                Some((_, feature)) => self.unsupported(&entry, *feature),
                None => self.unknown(&entry),
            },
        }
    }

    /// Refuses a key of an unsupported feature, unless its value switches the feature off or is empty.
    pub(super) fn unsupported(&mut self, entry: &Entry, feature: Unsupported) {
        let is_on = match (feature, &entry.node) {
            // An empty block switches JetStream on.
            (Unsupported::JETSTREAM, Node::Map(block)) => {
                let mut enabled = block
                    .iter()
                    .filter(|entry| matches!(entry.key.to_lowercase().as_str(), "enabled" | "enable"));
                !enabled.any(|entry| matches!(entry.node, Node::Bool(false, _)))
            }
            (Unsupported::WRITE_TIMEOUT, Node::Text(text)) => {
                !matches!(text.as_str(), "close" | "default" | "")
            }
            (Unsupported::HTTP_BASE_PATH, Node::Text(text)) => !matches!(text.as_str(), "/" | ""),
            (_, node) => !is_off(node),
        };
        if is_on {
            let rule = format!("{}{}: {}", self.block, entry.key, feature.0);
            self.add(&entry.place, rule);
        }
    }

    /// Refuses a key that is unknown in `nats-server` too, unless it is used as a variable.
    pub(super) fn unknown(&mut self, entry: &Entry) {
        if !entry.is_used.get() {
            // In a block with passwords, the key may be a part of a password, so it is not shown.
            let key = if self.block.contains("authorization") || self.block.contains("users") {
                format!("in {}", self.block.trim_end_matches('.'))
            } else {
                format!("`{}{}`", self.block, shown(&entry.key))
            };
            let what = format!("unknown key {key} (unknown in nats-server too)");
            self.add(&entry.place, what);
        }
    }

    pub(super) fn add(&mut self, place: &Place, rule: String) {
        let place = place.clone();
        self.errors.push(SettingsError::Conflict { place, rule });
    }

    /// Adds a warning for a key that is accepted and has no effect.
    fn without_effect(&mut self, entry: &Entry, why: &str) {
        let text = format!("{}{} has no effect: {why}", self.block, entry.key);
        self.warnings.push(Remark::new(&entry.place, text));
    }

    /// Records a key that is accepted and has no effect, and of which a running server says nothing.
    pub(super) fn ignore(&mut self, entry: &Entry, why: &str) {
        let text = format!("{}{} has no effect: {why}", self.block, entry.key);
        self.ignored.push(Remark::new(&entry.place, text));
    }

    /// Refuses a value of the wrong type.
    pub(super) fn wrong(&mut self, entry: &Entry, allowed: &str) {
        let found = match &entry.node {
            Node::Map(_) => "a block",
            Node::List(_) => "a list",
            // The string itself may be a secret.
            Node::Text(_) => "a string",
            Node::Integer(_, source) | Node::Float(_, source) | Node::Bool(_, source) => source,
            Node::Unknown => "unknown",
        };
        let what = format!("{}{} must be {allowed}, not {found}", self.block, entry.key);
        self.add(&entry.place, what);
        self.has_type_error = true;
    }

    /// Sets `key` of this server's settings. `name` is its name in the file.
    pub(super) fn put(&mut self, place: &Place, name: &str, key: &str, value: Value) {
        self.items.push(Item {
            key: key.to_owned(),
            name: format!("{}{name}", self.block),
            value,
            source: None,
            place: place.clone(),
            item_places: Vec::new(),
        });
    }

    /// Sets a list. `places` are the places of its items.
    pub(super) fn put_list(&mut self, entry: &Entry, key: &str, items: Vec<Value>, places: Vec<Place>) {
        self.put(&entry.place, &entry.key, key, Value::Array(items));
        if let Some(item) = self.items.last_mut() {
            item.item_places = places;
        }
    }

    pub(super) fn number(&mut self, entry: &Entry, key: &str) {
        match entry.node {
            Node::Integer(number, _) => self.put(&entry.place, &entry.key, key, Value::Integer(number)),
            _ => self.wrong(entry, "a whole number"),
        }
    }

    /// Sets a number for which 0 means the default.
    fn positive(&mut self, entry: &Entry, key: &str) {
        if !matches!(entry.node, Node::Integer(0, _)) {
            self.number(entry, key);
        }
    }

    /// Sets a limit. In the file, 0 means the default, and a negative number means "no limit". In this server's settings, `no_limit`
    /// means "no limit". New versions of `nats-server` admit no client if `max_connections` is 0 or less; this server keeps the
    /// meanings above.
    fn unlimited(&mut self, entry: &Entry, key: &str, no_limit: i64) {
        match entry.node {
            Node::Integer(number, _) if number < 0 => {
                self.put(&entry.place, &entry.key, key, Value::Integer(no_limit));
            }
            _ => self.positive(entry, key),
        }
    }

    /// Sets a string. A value without quotes is set as its source text, even if it looks like a number.
    pub(super) fn text(&mut self, entry: &Entry, key: &str) {
        match as_text(&entry.node) {
            Some(text) => self.put(&entry.place, &entry.key, key, Value::String(text.to_owned())),
            None => self.wrong(entry, "a string"),
        }
    }

    /// Sets a host. An empty string means the default.
    fn host(&mut self, entry: &Entry, key: &str) {
        if as_text(&entry.node) != Some("") {
            self.text(entry, key);
        }
    }

    /// Sets the keys of an address and a port from `host:port` or a port alone.
    fn listen(&mut self, entry: &Entry, addr: &str, port: &str) {
        let Some((host, number)) = host_and_port(&entry.node) else {
            return self.wrong(entry, "host:port, or a port");
        };
        if !host.is_empty() {
            self.put(&entry.place, &entry.key, addr, Value::String(host));
        }
        // Port 0 means the default: for clients port 4222, and for HTTP no pages.
        if number != 0 {
            self.put(&entry.place, &entry.key, port, Value::Integer(number));
        }
    }

    /// Returns a boolean. Refuses other values.
    pub(super) fn switch(&mut self, entry: &Entry) -> bool {
        match entry.node {
            Node::Bool(flag, _) => flag,
            _ => {
                self.wrong(entry, "true or false");
                false
            }
        }
    }

    /// Sets a time for which 0 means the default.
    pub(super) fn time(&mut self, entry: &Entry, key: &str, unit: Unit) {
        match time(&entry.node) {
            Some(time) if time.0.is_zero() => {}
            Some(time) => self.put_time(entry, key, time, unit),
            None => self.wrong(entry, "a time, such as \"10s\", or a number of seconds"),
        }
    }

    fn put_time(&mut self, entry: &Entry, key: &str, (time, source): (Duration, &str), unit: Unit) {
        let number = i64::try_from(unit(&time)).unwrap_or(i64::MAX);
        self.put(&entry.place, &entry.key, key, Value::Integer(number));
        if let Some(item) = self.items.last_mut() {
            item.source = Some(source.to_owned());
        }
    }
}

/// Returns a key for an error text: shortened and without control characters.
fn shown(key: &str) -> String {
    key.chars()
        .take(KEY_CHARS_SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}

/// Keys of unsupported features, separated by spaces.
const UNSUPPORTED: &[(&str, Unsupported)] = &[
    ("http_base_path", Unsupported::HTTP_BASE_PATH),
    ("jetstream", Unsupported::JETSTREAM),
    ("gateway", Unsupported::GATEWAYS),
    ("leaf leafnodes", Unsupported::LEAF_NODES),
    ("mqtt", Unsupported::MQTT),
    ("websocket ws", Unsupported::WEBSOCKET),
    ("mappings maps", Unsupported::MAPPINGS),
    (
        "operator operators root roots root_operator root_operators",
        Unsupported::OPERATORS,
    ),
    (
        "resolver account_resolver accounts_resolver resolver_tls",
        Unsupported::OPERATORS,
    ),
    (
        "resolver_preload resolver_pinned_accounts",
        Unsupported::OPERATORS,
    ),
    ("trusted trusted_keys default_sentinel", Unsupported::OPERATORS),
    ("syslog remote_syslog", Unsupported::SYSLOG),
    ("prof_port", Unsupported::PROFILING),
    ("proxies proxy_protocol", Unsupported::PROXY_PROTOCOL),
    ("no_header_support", Unsupported::HEADERS_OFF),
    (
        "max_sub_tokens max_subscription_tokens",
        Unsupported::SUBJECT_TOKENS,
    ),
    ("write_timeout", Unsupported::WRITE_TIMEOUT),
];

/// Returns whether `key` is one of `keys`, which are separated by spaces.
fn is_one_of(key: &str, keys: &str) -> bool {
    keys.split(' ').any(|known| known == key)
}

/// Returns whether a value switches its feature off.
pub(super) fn is_off(node: &Node) -> bool {
    match node {
        Node::Bool(flag, _) => !flag,
        Node::Integer(number, _) => *number == 0,
        Node::Text(text) => matches!(text.as_str(), "" | "disabled" | "disable"),
        Node::Map(block) => block.is_empty(),
        Node::List(list) => list.is_empty(),
        Node::Float(..) | Node::Unknown => false,
    }
}

/// Returns a value as a string; `None` for maps and lists.
pub(super) fn as_text(node: &Node) -> Option<&str> {
    match node {
        Node::Text(text) => Some(text),
        Node::Integer(_, source) | Node::Float(_, source) | Node::Bool(_, source) => Some(source),
        Node::Map(_) | Node::List(_) | Node::Unknown => None,
    }
}

/// Parses `host:port` or a port. The host is empty if there is none.
pub(super) fn host_and_port(node: &Node) -> Option<(String, i64)> {
    match node {
        Node::Integer(number, _) => Some((String::new(), *number)),
        Node::Text(text) => {
            let (host, number) = text.rsplit_once(':').unwrap_or(("", text));
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((host.to_owned(), number.parse().ok()?))
        }
        _ => None,
    }
}

/// Parses a time.
pub(super) fn duration(node: &Node) -> Option<Duration> {
    time(node).map(|(time, _)| time)
}

/// Parses a time: `"10s"`, `"1m30s"`, `"1.5h"`, or a number of seconds. Returns it with its source text.
fn time(node: &Node) -> Option<(Duration, &str)> {
    let time = match node {
        Node::Integer(secs, _) => u64::try_from(*secs).ok().map(Duration::from_secs),
        Node::Float(secs, _) => Duration::try_from_secs_f64(*secs).ok(),
        Node::Text(text) => {
            let is_digit = |next: char| next.is_ascii_digit() || next == '.';
            let mut rest = text.strip_prefix('+').unwrap_or(text);
            let mut secs = 0.0;
            if rest == "0" {
                return Some((Duration::ZERO, text));
            }
            loop {
                let (digits, after) = rest.split_at(rest.find(|next| !is_digit(next))?);
                let (unit, left) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
                let unit = match unit {
                    "ns" => 1e-9,
                    "us" | "µs" | "μs" => 1e-6,
                    "ms" => 1e-3,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return None,
                };
                secs += digits.parse::<f64>().ok()? * unit;
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            Duration::try_from_secs_f64(secs).ok()
        }
        _ => None,
    };
    time.zip(as_text(node))
}
