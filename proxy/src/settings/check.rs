//! What is allowed: for each key, and between keys.
//!
//! Each refusal carries the place of the value that should change. The ranges stand in `deploy/proxy.toml` as well, as
//! `[low..high]`; a test keeps the two together.

use std::{
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use standin_registry::{Endpoint, Upstream};
use standin_wire::Pattern;
use toml::{Table, Value};

use super::{
    Place, Settings, SettingsError,
    layers::Entry,
    secret::{masked_pair, masked_url},
};

/// The range of each number, both ends allowed.
const RANGES: &[(&str, i64, i64)] = &[
    ("nodes.zookeeper_session_timeout_ms", 4000, 300_000),
    ("nodes.dns_refresh_ms", 1000, 3_600_000),
    ("nodes.nodes_max", 1, 100_000),
    ("choice.cooldown_base_ms", 1, 60_000),
    ("choice.cooldown_max_ms", 1, 600_000),
    ("dial.connect_timeout_ms", 10, 60_000),
    ("dial.handshake_timeout_ms", 10, 60_000),
    ("dial.dials_concurrent_max", 1, 10_000),
    ("dial.spread_us_per_session", 0, 100_000),
    ("dial.spread_max_ms", 0, 60_000),
    ("health.probe_interval_ms", 50, 600_000),
    ("health.probe_timeout_ms", 50, 600_000),
    ("publish.confirm_bytes", 1024, 1 << 30),
    ("publish.confirm_interval_ms", 1, 60_000),
    ("publish.in_doubt_bytes_max", 65_536, 1 << 30),
    ("session.buffer_bytes", 4096, 1 << 30),
    ("session.outage_secs", 1, 86_400),
    ("session.info_wait_ms", 0, 60_000),
    ("session.component_pending_bytes_max", 65_536, 1 << 30),
    ("session.component_stall_secs", 1, 3600),
    ("session.ping_interval_secs", 1, 86_400),
    ("session.ping_max", 1, 100),
    ("session.subscriptions_max", 0, 100_000_000),
    ("session.control_line_bytes_max", 256, 1 << 20),
    ("limits.connections_max", 1, 1_000_000),
    ("limits.workers", 0, 1024),
    ("limits.buffers_total_bytes_max", 1 << 20, 1 << 40),
    ("socket.keepalive_secs", 1, 7200),
    ("socket.user_timeout_ms", 100, 600_000),
    ("socket.listen_backlog", 1, 65_535),
    ("http.page_items_max", 1, 100_000),
    ("process.shutdown_secs", 0, 3600),
];

/// The texts that are one of a few words.
const WORDS: &[(&str, &[&str])] = &[
    ("publish.in_doubt", &["drop", "resend"]),
    ("log.format", &["human", "json"]),
];

/// Checks one value by itself: its type, its range, its form.
///
/// # Errors
/// [`SettingsError::Value`] or, inside `publish.subject`, [`SettingsError::UnknownKey`].
pub(super) fn entry(entry: &Entry) -> Result<(), SettingsError> {
    if std::mem::discriminant(&entry.value) != std::mem::discriminant(&entry.default) {
        return Err(wrong_type(entry, entry.place.clone(), &entry.value));
    }
    match &entry.value {
        Value::Integer(number) => in_range(entry, *number),
        Value::String(text) => text_form(entry, &entry.place, text),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(at, item)| {
            let place = entry.item_places.get(at).unwrap_or(&entry.place);
            match item {
                Value::Table(table) if entry.key == "publish.subject" => subject_policy(place, table),
                Value::String(text) if entry.key != "publish.subject" => text_form(entry, place, text),
                other => Err(wrong_type(entry, place.clone(), other)),
            }
        }),
        _ => Ok(()),
    }
}

/// The error of a value whose type is not that of the default.
pub(super) fn wrong_type(entry: &Entry, place: Place, found: &Value) -> SettingsError {
    let allowed = match &entry.default {
        Value::Integer(_) => range_text(&entry.key),
        Value::Boolean(_) => "true or false".to_owned(),
        Value::Array(_) if entry.key == "publish.subject" => {
            "a list of { pattern = \"…\", in_doubt = \"drop\" or \"resend\" } in a settings file".to_owned()
        }
        Value::Array(_) => "a list of texts".to_owned(),
        _ => "a text".to_owned(),
    };
    SettingsError::Value {
        place,
        key: entry.key.clone(),
        allowed,
        found: shown(&entry.key, found),
    }
}

/// A value as it may be shown: secrets masked.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => {
            let text = match key {
                "nodes.zookeeper_auth" => masked_pair(text),
                "nodes.upstream" => masked_url(text),
                _ => text.clone(),
            };
            Value::String(text).to_string()
        }
        other => other.to_string(),
    }
}

/// A comma-separated text as a list; empty items are dropped.
pub(super) fn list(text: &str) -> Value {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

fn range_text(key: &str) -> String {
    RANGES.iter().find(|(name, ..)| *name == key).map_or_else(
        || "a whole number".to_owned(),
        |(_, low, high)| format!("a whole number from {low} to {high}"),
    )
}

fn in_range(entry: &Entry, number: i64) -> Result<(), SettingsError> {
    let range = RANGES.iter().find(|(name, ..)| *name == entry.key);
    match range {
        Some((_, low, high)) if !(*low..=*high).contains(&number) => {
            Err(wrong_type(entry, entry.place.clone(), &entry.value))
        }
        _ => Ok(()),
    }
}

fn text_form(entry: &Entry, place: &Place, text: &str) -> Result<(), SettingsError> {
    let allowed = match entry.key.as_str() {
        "listen" if !host_and_port(text) => "host:port, such as \"127.0.0.1:4222\"",
        "http.listen" if !text.is_empty() && !host_and_port(text) => "host:port, or empty",
        "advertise" if !text.is_empty() && (!host_and_port(text) || text.ends_with(":0")) => {
            "host:port, or empty"
        }
        "nodes.dns_server" if !text.is_empty() && SocketAddr::from_str(text).is_err() => "ip:port, or empty",
        "nodes.zookeeper_auth" if !text.is_empty() && !text.contains(':') => "user:password, or empty",
        "log.level" if crate::logging::filter(text).is_err() => {
            "error, warn, info, debug, trace, or a filter such as \"info,standin_registry=debug\""
        }
        _ => match WORDS.iter().find(|(name, _)| *name == entry.key) {
            Some((_, words)) if !words.contains(&text) => {
                return Err(not_a_word(&entry.key, place, words, text));
            }
            _ => return super::sources::text_form(&entry.key, place, text),
        },
    };
    Err(SettingsError::Value {
        place: place.clone(),
        key: entry.key.clone(),
        allowed: allowed.to_owned(),
        found: shown(&entry.key, &Value::String(text.to_owned())),
    })
}

fn not_a_word(key: &str, place: &Place, words: &[&str], found: &str) -> SettingsError {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    SettingsError::Value {
        place: place.clone(),
        key: key.to_owned(),
        allowed: words.join(" or "),
        found: format!("{found:?}"),
    }
}

fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
    })
}

/// One `{ pattern = …, in_doubt = … }` of `publish.subject`.
fn subject_policy(place: &Place, table: &Table) -> Result<(), SettingsError> {
    if let Some(key) = table
        .keys()
        .find(|key| !["pattern", "in_doubt"].contains(&key.as_str()))
    {
        return Err(SettingsError::UnknownKey {
            place: place.clone(),
            key: key.clone(),
            section: " in publish.subject".to_owned(),
            hint: "; it takes pattern and in_doubt".to_owned(),
        });
    }
    let refuse = |key: &str, allowed: String| SettingsError::Value {
        place: place.clone(),
        key: format!("publish.subject.{key}"),
        allowed,
        found: table
            .get(key)
            .map_or_else(|| "missing".to_owned(), ToString::to_string),
    };
    match table.get("pattern").and_then(Value::as_str) {
        None => {
            return Err(refuse(
                "pattern",
                "a subject pattern, such as \"orders.>\"".to_owned(),
            ));
        }
        Some(text) => drop(Pattern::new(text).map_err(|error| SettingsError::Conflict {
            place: place.clone(),
            rule: format!("publish.subject.pattern: {error}"),
        })?),
    };
    match table.get("in_doubt").and_then(Value::as_str) {
        Some("drop" | "resend") => Ok(()),
        _ => Err(refuse("in_doubt", "\"drop\" or \"resend\"".to_owned())),
    }
}

/// Checks what must hold between values.
///
/// # Errors
/// [`SettingsError::Conflict`] at the place of the value that should change.
pub(super) fn across(settings: &Settings, entries: &[Entry]) -> Result<(), SettingsError> {
    let Settings {
        nodes,
        choice,
        publish,
        session,
        limits,
        ..
    } = settings;
    let rules = [
        (
            settings.listen.is_empty(),
            "listen",
            "listen must name at least one ip:port, else no component can connect".to_owned(),
        ),
        (
            choice.cooldown_max_ms < choice.cooldown_base_ms,
            "choice.cooldown_max_ms",
            format!(
                "choice.cooldown_max_ms ({}) is below choice.cooldown_base_ms ({}); raise it or lower the other",
                choice.cooldown_max_ms.0, choice.cooldown_base_ms.0
            ),
        ),
        (
            session.buffer_bytes < session.control_line_bytes_max,
            "session.buffer_bytes",
            format!(
                "session.buffer_bytes ({}) is below session.control_line_bytes_max ({}): not even one line would fit; \
                 raise it or lower the other",
                session.buffer_bytes, session.control_line_bytes_max
            ),
        ),
        (
            limits.buffers_total_bytes_max < session.buffer_bytes,
            "limits.buffers_total_bytes_max",
            format!(
                "limits.buffers_total_bytes_max ({}) is below session.buffer_bytes ({}): one session could not fill \
                 its buffer; raise it or lower the other",
                limits.buffers_total_bytes_max, session.buffer_bytes
            ),
        ),
        (
            publish.in_doubt_bytes_max < publish.confirm_bytes,
            "publish.in_doubt_bytes_max",
            format!(
                "publish.in_doubt_bytes_max ({}) is below publish.confirm_bytes ({}): the component would be held \
                 before a confirmation is asked for; raise it or lower the other",
                publish.in_doubt_bytes_max, publish.confirm_bytes
            ),
        ),
        (
            !nodes.zookeeper_auth.is_empty() && !nodes.zookeeper_auth_file.as_os_str().is_empty(),
            "nodes.zookeeper_auth",
            "nodes.zookeeper_auth and nodes.zookeeper_auth_file are both set; keep one".to_owned(),
        ),
    ];
    let place_of = |key: &str| {
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(Place::Default, |entry| entry.place.clone())
    };
    for (broken, key, rule) in rules {
        if broken {
            return Err(SettingsError::Conflict {
                place: place_of(key),
                rule,
            });
        }
    }
    if let Some((upstream, listen)) = own_address(settings) {
        return Err(SettingsError::Conflict {
            place: place_of("nodes.upstream"),
            rule: format!(
                "nodes.upstream names {upstream}, where this sidecar itself listens ({listen}): give the node's own \
                 address, or another listen address"
            ),
        });
    }
    Ok(())
}

/// An upstream that is this sidecar itself, as happens when it inherits the component's `NATS_URL`; and the listener that
/// it names. Names other than `localhost` are not resolved.
fn own_address(settings: &Settings) -> Option<(Upstream, &str)> {
    let upstreams = settings
        .nodes
        .upstream
        .iter()
        .filter_map(|url| Upstream::from_str(url.reveal()).ok());
    let listeners: Vec<(Endpoint, &str)> = settings
        .listen
        .iter()
        .filter_map(|text| Some((text.parse().ok()?, text.as_str())))
        .collect();
    upstreams.into_iter().find_map(|upstream| {
        let own = listeners
            .iter()
            .find(|(local, _)| listens_at(local, &upstream.endpoint))?;
        Some((upstream, own.1))
    })
}

fn listens_at(local: &Endpoint, other: &Endpoint) -> bool {
    let address = |endpoint: &Endpoint| match &*endpoint.host {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => endpoint.ip(),
    };
    let same_host = match (address(local), address(other)) {
        (Some(local), Some(other)) => local == other || (local.is_unspecified() && other.is_loopback()),
        _ => local.host == other.host,
    };
    local.port != 0 && local.port == other.port && same_host
}

/// At least one source of nodes must be there before the sidecar starts.
///
/// # Errors
/// [`SettingsError::NoSource`].
pub(super) fn has_source(settings: &Settings) -> Result<(), SettingsError> {
    let nodes = &settings.nodes;
    if nodes.zookeeper.is_empty() && nodes.upstream.is_empty() && nodes.dns.is_empty() {
        return Err(SettingsError::NoSource);
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
