//! The allowed values of each key, and rules between keys.
//!
//! Each error has the place (file and line) of the value to change. The ranges are also in `deploy/proxy.toml`, as
//! `[low..high]`; a test compares the two.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use standin_daemon::listen::covers;
use standin_daemon::own_credentials::OwnCredentials;
use standin_daemon::settings::{
    self, Places, Schema, Secret, ZooKeeperAuth, host_and_port, masked_pair, masked_url, masked_whole,
    refused,
};
use standin_daemon::tls::TlsMode;
use standin_daemon::unix_socket;
use standin_registry::{Endpoint, Upstream};
use standin_tls::files::{Files, TlsError};
use standin_wire::Pattern;
use toml::{Table, Value};

use super::{DEFAULTS, Place, Settings, SettingsError, listener};

/// Allowed range of each numeric key, both ends included.
const RANGES: &[(&str, i64, i64)] = &[
    ("nodes.zookeeper_session_timeout_ms", 4000, 300_000),
    ("nodes.dns_refresh_ms", 1000, 3_600_000),
    ("nodes.nodes_max", 1, 100_000),
    ("choice.cooldown_base_ms", 1, 60_000),
    ("choice.cooldown_max_ms", 1, 600_000),
    ("choice.rebalance_secs", 0, 86_400),
    ("choice.rebalance_min_secs", 0, 604_800),
    ("dial.connect_timeout_ms", 10, 60_000),
    ("dial.handshake_timeout_ms", 10, 60_000),
    ("dial.stagger_ms", 10, 60_000),
    ("dial.dials_concurrent_max", 1, 10_000),
    ("dial.retries_per_second_max", 1, 10_000),
    ("dial.spread_us_per_session", 0, 100_000),
    ("dial.spread_max_ms", 0, 60_000),
    ("health.probe_interval_ms", 50, 600_000),
    ("health.probe_timeout_ms", 50, 600_000),
    ("health.idle_probe_interval_ms", 1000, 3_600_000),
    ("publish.confirm_bytes", 1024, 1 << 30),
    ("publish.confirm_interval_ms", 1, 60_000),
    ("publish.in_doubt_bytes_max", 65_536, 1 << 30),
    ("session.buffer_bytes", 4096, 1 << 30),
    ("session.outage_secs", 0, 86_400),
    ("session.settle_ms", 0, 60_000),
    ("session.info_wait_ms", 0, 60_000),
    ("session.component_pending_bytes_max", 65_536, 1 << 30),
    ("session.component_stall_secs", 1, 3600),
    ("session.ping_interval_secs", 1, 86_400),
    ("session.ping_max", 1, 100),
    ("session.subscriptions_max", 0, 100_000_000),
    ("session.control_line_bytes_max", 256, 1 << 20),
    ("limits.connections_max", 1, 1_000_000),
    ("limits.half_open_max", 1, 1_000_000),
    ("limits.address_connections_max", 0, 1_000_000),
    ("limits.address_connects_per_second_max", 0, 1_000_000),
    ("limits.workers", 0, 1024),
    ("limits.buffers_total_bytes_max", 1 << 20, 1 << 40),
    ("socket.keepalive_secs", 1, 7200),
    ("socket.user_timeout_ms", 100, 600_000),
    ("socket.listen_backlog", 1, 65_535),
    ("http.page_items_max", 1, 100_000),
    ("tls.component.timeout_ms", 10, 60_000),
    ("tls.node.timeout_ms", 10, 60_000),
    ("tls.http.timeout_ms", 10, 10_000),
    ("process.shutdown_secs", 0, 3600),
];

/// Keys whose value is one of a few words.
const WORDS: &[(&str, &[&str])] = &[
    ("publish.in_doubt", &["drop", "resend"]),
    ("log.format", &["human", "json"]),
    ("tls.component.mode", &["off", "optional", "required"]),
    ("tls.component.handshake_first", &["no", "yes"]),
    ("tls.component.min_version", &["1.2", "1.3"]),
    ("tls.node.mode", &["off", "optional", "required"]),
    ("tls.node.handshake_first", &["no", "yes"]),
    ("tls.node.min_version", &["1.2", "1.3"]),
    ("tls.http.mode", &["off", "required"]),
    ("tls.http.min_version", &["1.2", "1.3"]),
];

const SCHEMA: Schema = Schema {
    defaults: DEFAULTS,
    defaults_file: "deploy/proxy.toml",
    ranges: RANGES,
    words: WORDS,
    tables: &[
        (
            "publish.subject",
            "{ pattern = \"…\", in_doubt = \"drop\" or \"resend\" }",
        ),
        ("listener", "{ listen = [\"…\"], … }"),
    ],
    secret_files: &[
        "nodes.zookeeper_auth_file",
        "credentials.password_file",
        "credentials.token_file",
        "credentials.nkey_seed_file",
        "credentials.creds_file",
        "tls.component.key_file",
        "listener.credentials.password_file",
        "listener.credentials.token_file",
        "listener.credentials.nkey_seed_file",
        "listener.credentials.creds_file",
        "listener.tls.key_file",
        "tls.node.key_file",
        "tls.http.key_file",
        "http.token_file",
    ],
    restart: &[
        "listen",
        "limits.workers",
        "socket.listen_backlog",
        "http.listen",
        "log.format",
    ],
    variables: &[("NATS_URL", "nodes.upstream")],
    other_format: None,
    masked,
    text: text_form,
    table: |key, place, table| match key {
        "listener" => listener::check(&SCHEMA, place, table),
        _ => subject_policy(place, table),
    },
};

fn masked(key: &str, text: &str) -> Option<String> {
    match key.strip_prefix("listener.").unwrap_or(key) {
        ZooKeeperAuth::KEY => Some(masked_pair(text)),
        "credentials.password" | "credentials.token" => Some(masked_whole(text)),
        "nodes.upstream" | "nodes.zookeeper" | "nodes.allowed_nodes" => Some(masked_url(text)),
        _ => None,
    }
}

fn text_form(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    let allowed = match key {
        "listen" if !listener::is_address(text) => listener::ADDRESS,
        "http.listen" if !text.is_empty() && !host_and_port(text) && !is_port(text) => {
            "host:port, a port of 127.0.0.1, or empty"
        }
        "advertise" if !text.is_empty() && !can_be_connected_to(text) => {
            "host:port that components can connect to, or empty"
        }
        "nodes.dns_server" if !text.is_empty() && SocketAddr::from_str(text).is_err() => "ip:port, or empty",
        _ => return super::sources::text_form(key, place, text),
    };
    let found = masked(key, text).unwrap_or_else(|| text.to_owned());
    Err(refused(key, place, allowed, &found))
}

/// Returns whether `text` is a port alone.
fn is_port(text: &str) -> bool {
    host_and_port(&format!("127.0.0.1:{text}"))
}

/// Returns whether a component can connect to `text`: it is `host:port`, the port is not 0, and the host is not an unspecified
/// address (0.0.0.0 or ::).
fn can_be_connected_to(text: &str) -> bool {
    Endpoint::from_str(text).is_ok_and(|endpoint| !endpoint.ip().is_some_and(|ip| ip.is_unspecified()))
}

/// Checks one entry of `publish.subject`, `{ pattern = …, in_doubt = … }`.
fn subject_policy(place: &Place, table: &Table) -> Result<(), SettingsError> {
    let unknown = table
        .keys()
        .filter(|key| !["pattern", "in_doubt"].contains(&key.as_str()))
        .map(|key| SettingsError::UnknownKey {
            place: place.clone(),
            key: format!("publish.subject.{key}"),
            section: String::new(),
            hint: "; it takes pattern and in_doubt".to_owned(),
        });
    let refuse = |key: &str, allowed: &str| SettingsError::Value {
        place: place.clone(),
        key: format!("publish.subject.{key}"),
        allowed: allowed.to_owned(),
        found: table
            .get(key)
            .map_or_else(|| "missing".to_owned(), ToString::to_string),
    };
    let pattern = match table.get("pattern").and_then(Value::as_str).map(Pattern::new) {
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(SettingsError::Conflict {
            place: place.clone(),
            rule: format!("publish.subject.pattern: {error}"),
        }),
        None => Some(refuse("pattern", "a subject pattern, such as \"orders.>\"")),
    };
    let in_doubt = match table.get("in_doubt").and_then(Value::as_str) {
        Some("drop" | "resend") => None,
        _ => Some(refuse("in_doubt", "\"drop\" or \"resend\"")),
    };
    SettingsError::all(unknown.chain(pattern).chain(in_doubt))
}

impl settings::Settings for Settings {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError> {
        check_rules(self, places)
    }

    /// Checks that there is a source of nodes, and that the files of TLS and of secrets that the settings name can be used.
    fn check_complete(&self) -> Result<(), SettingsError> {
        let nodes = &self.nodes;
        if nodes.zookeeper.is_empty() && nodes.upstream.is_empty() && nodes.dns.is_empty() {
            return Err(SettingsError::Missing(NO_SOURCE));
        }
        // Reads the auth file, so that `--check` reports an error in it, and a reload (SIGHUP) reports the error before it
        // changes any setting.
        self.registry_config()?;
        let unusable = |section, error: TlsError| SettingsError::Unusable {
            section,
            error: error.to_string(),
        };
        let (_, door) = self.listener_keys();
        for listener in &*self.listeners() {
            let component = listener.tls.section.acceptor();
            component.map_err(|error| unusable(door, error))?;
            OwnCredentials::read(&listener.credentials)?;
        }
        // Without files the system's authorities are read, once a node wants TLS.
        let node = &self.tls.node.section;
        let has_files = node.is_on() && node.files() != Files::default();
        let node = has_files.then(|| node.dialler()).transpose();
        node.map_err(|error| unusable("tls.node", error))?;
        self.page_access()?;
        Ok(())
    }
}

const NO_SOURCE: &str = "no source of nodes: give ZooKeeper (--zookeeper HOST:PORT[/chroot]), a DNS name \
                         (--dns NAME:PORT), a node's address (--upstream nats://HOST:4222, or the environment variable \
                         NATS_URL), or one of them in [nodes] of a settings file (--config FILE)";

/// Checks the rules between values. Each error is at the value that should change.
fn check_rules(settings: &Settings, places: &Places<'_>) -> Result<(), SettingsError> {
    let Settings {
        nodes,
        choice,
        publish,
        session,
        limits,
        ..
    } = settings;
    // A key, the key whose value is its minimum, and the consequence of a lower value.
    let pairs = [
        (
            ("choice.cooldown_max_ms", choice.cooldown_max_ms.0),
            ("choice.cooldown_base_ms", choice.cooldown_base_ms.0),
            "",
        ),
        (
            ("session.buffer_bytes", session.buffer_bytes as u64),
            (
                "session.control_line_bytes_max",
                session.control_line_bytes_max as u64,
            ),
            ": the longest allowed line would not fit",
        ),
        (
            (
                "limits.buffers_total_bytes_max",
                limits.buffers_total_bytes_max as u64,
            ),
            ("session.buffer_bytes", session.buffer_bytes as u64),
            ": one session could not fill its buffer",
        ),
        (
            ("publish.in_doubt_bytes_max", publish.in_doubt_bytes_max as u64),
            ("publish.confirm_bytes", publish.confirm_bytes as u64),
            ": the limit would be reached before the sidecar sends a PING to get acks",
        ),
    ];
    let broken = pairs
        .into_iter()
        .filter(|((_, value), (_, least), _)| value < least);
    let mut errors = Vec::new();
    if settings.listen.is_empty() && settings.listener.is_empty() {
        let rule = "listen must contain at least one host:port, otherwise no component can connect";
        errors.push(places.conflict("listen", rule.to_owned()));
    }
    let is_simple =
        |key: &str| key == "listen" || key.starts_with("credentials.") || key.starts_with("tls.component.");
    if let Some(key) = places
        .changed(is_simple)
        .filter(|_| !settings.listener.is_empty())
    {
        let rule = format!("{key} has no effect beside [[listener]]: set it there");
        errors.push(places.conflict(key, rule));
    }
    errors.extend(broken.map(|((key, value), (other, least), why)| {
        let advice = "raise the first or lower the second";
        let rule = format!("{key} ({value}) is below {other} ({least}){why}; {advice}");
        places.conflict(key, rule)
    }));
    let auth = ZooKeeperAuth::new(&nodes.zookeeper_auth, &nodes.zookeeper_auth_file);
    errors.extend(auth.check(places).err());
    if let Some((upstream, listen)) = own_address(settings) {
        errors.push(places.conflict(
            "nodes.upstream",
            format!(
                "nodes.upstream has {upstream}, which is this sidecar's own listen address ({listen}): give the \
                 address of a node, or another listen address"
            ),
        ));
    }
    let is_tls = |upstream: &Secret| {
        upstream
            .reveal()
            .parse()
            .is_ok_and(|upstream: Upstream| upstream.tls)
    };
    if settings.tls.node.section.mode == TlsMode::Off && nodes.upstream.iter().any(is_tls) {
        let rule = "nodes.upstream has a tls:// address, but tls.node.mode is \"off\": set \"optional\"";
        errors.push(places.conflict("nodes.upstream", rule.to_owned()));
    }
    let http = settings.http_listen().unwrap_or_default();
    errors.extend(
        conflicting_listeners(settings, &http).map(|(key, address, other)| {
            places.conflict(
            key,
            format!(
                "{key} address {address} conflicts with listen address {other}; give each a different port"
            ),
        )
        }),
    );
    SettingsError::all(errors)
}

/// Returns each listen address that conflicts with an earlier address in `listen`: its key, its text, and the text of the
/// earlier address. `http` is the address of the pages.
fn conflicting_listeners<'s>(
    settings: &'s Settings,
    http: &'s str,
) -> impl Iterator<Item = (&'static str, &'s str, &'s str)> {
    let addresses: Vec<&str> = settings.addresses().collect();
    let (key, _) = settings.listener_keys();
    let http = ("http.listen", http, addresses.len());
    let components = addresses.iter().enumerate().map(|(at, text)| (key, *text, at));
    let all: Vec<_> = components.chain([http]).collect();
    all.into_iter().filter_map(move |(key, text, at)| {
        let mut before = addresses[..at].iter();
        let is_same_file = |other: &str| unix_socket::path_of(text).is_some() && other == text;
        let conflicts = |other: &str| is_same_file(other) || listeners_conflict(other, text) == Some(true);
        let other = before.find(|other| conflicts(other))?;
        Some((key, text, *other))
    })
}

/// Returns whether two listeners cannot be open at the same time: they have the same port, and either the same address, or
/// one of them [`covers`] the other. `None`: one of the texts is not an address.
fn listeners_conflict(one: &str, other: &str) -> Option<bool> {
    let conflict = |one: IpAddr, other: IpAddr| covers(one, other) || covers(other, one);
    Some(is_same_address(
        &one.parse().ok()?,
        &other.parse().ok()?,
        conflict,
    ))
}

/// Returns the first upstream at which this sidecar itself listens, and the text of that listener. This mistake happens when
/// the sidecar inherits the component's `NATS_URL`. Names other than `localhost` are not resolved.
fn own_address(settings: &Settings) -> Option<(Upstream, &str)> {
    let upstreams = settings.nodes.upstream.iter();
    let reaches = |local: IpAddr, other: IpAddr| other.is_loopback() && covers(local, other);
    upstreams
        .flat_map(|url| url.reveal().parse())
        .find_map(|upstream: Upstream| {
            let own = settings.addresses().find(|text| {
                let local = text.parse();
                local.is_ok_and(|local| is_same_address(&local, &upstream.endpoint, reaches))
            })?;
            Some((upstream, own))
        })
}

/// Returns whether two endpoints have the same port, and either the same host or two addresses for which `matches` is true.
/// `localhost` is 127.0.0.1. Other names are not resolved.
fn is_same_address(one: &Endpoint, other: &Endpoint, matches: impl Fn(IpAddr, IpAddr) -> bool) -> bool {
    let address = |endpoint: &Endpoint| match &*endpoint.host {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => endpoint.ip(),
    };
    let same_host = match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other || matches(one, other),
        _ => one.host == other.host,
    };
    one.port == other.port && same_host
}

#[cfg(test)]
mod tests;
