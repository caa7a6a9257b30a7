//! The settings of a node, checked before the node starts.
//!
//! The defaults are in `deploy/broker.toml`, which is compiled in. A settings file, the environment and the flags override them, as described
//! in [`standin_daemon::settings`]. The structs of this module are the sections of the file, their fields the keys. Most keys
//! that `nats-server` also has are named as there; their defaults may differ.

#![expect(missing_docs, reason = "each key is described in deploy/broker.toml")]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use standin_daemon::certificate_watch::Doors;
use standin_daemon::connection_limit::ConnectionLimit;
use standin_daemon::http::PageAccess;
pub use standin_daemon::logging::LogFormat;
use standin_daemon::settings::{
    self, MASK, Places, Schema, ZooKeeperAuth, mask_given, masked_pair, masked_url, masked_whole, of_text,
    refused,
};
pub use standin_daemon::settings::{Flag, Input, Loaded, Millis, Place, Secs, SettingsError};
use standin_daemon::tls::{HandshakeFirst, TlsMode, TlsSection};

use self::listen_address::is_host;
use crate::account::AccountLimits;
use crate::auth::Access;
use crate::natsconf;

mod cluster;
mod listen_address;
mod users;

pub use cluster::{Cluster, Nodes, QueuePreference};
pub(crate) use cluster::{address_towards, credentials, split_url};
pub use listen_address::ListenAddress;
pub use users::{
    AccountEntry, AllowResponses, Authorization, OverRate, PermissionTable, SubjectLists, UserEntry,
};

/// The commented defaults, `deploy/broker.toml`.
pub const DEFAULTS: &str = include_str!("../../deploy/broker.toml");

/// All settings. The meaning, unit and range of each key are in `deploy/broker.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub addr: String,
    pub port: i32,
    pub server_name: String,
    pub advertise: String,
    pub authorization: Authorization,
    pub accounts: Vec<AccountEntry>,
    pub limits: Limits,
    pub nodes: Nodes,
    pub cluster: Cluster,
    pub http: Http,
    pub tls: Tls,
    pub log: Log,
    pub process: Process,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub max_payload: usize,
    pub max_control_line: usize,
    pub max_connections: usize,
    pub max_half_open: usize,
    pub max_address_connections: usize,
    pub max_address_connects_per_second: usize,
    pub max_subscriptions: usize,
    pub max_pending: usize,
    pub write_deadline_ms: Millis,
    pub ping_interval_ms: Millis,
    pub ping_max: u32,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub addr: String,
    pub port: i32,
    pub token_file: PathBuf,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub client: ClientTls,
    pub route: RouteTls,
    pub http: TlsSection,
}

/// `[tls.client]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    pub handshake_first: HandshakeFirst,
    pub verify_and_map: bool,
    #[serde(flatten)]
    pub section: TlsSection,
}

/// `[tls.route]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTls {
    /// The name that the certificate of every node must have; empty: the host by which the node is dialled.
    pub server_name: String,
    #[serde(flatten)]
    pub section: TlsSection,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
    pub file: PathBuf,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub workers: usize,
    pub match_cache_max: usize,
    pub pid_file: PathBuf,
    pub ports_file_dir: PathBuf,
    pub listen_backlog: u32,
    pub lame_duck_grace_secs: Secs,
    pub lame_duck_secs: Secs,
}

/// The minimum and maximum of each number.
const RANGES: &[(&str, i64, i64)] = &[
    ("port", -1, 65_535),
    ("authorization.timeout_ms", 10, 60_000),
    ("limits.max_payload", 1, 64 << 20),
    ("limits.max_control_line", 128, 1 << 20),
    ("limits.max_connections", 1, 1_000_000),
    ("limits.max_half_open", 1, 1_000_000),
    ("limits.max_address_connections", 0, 1_000_000),
    ("limits.max_address_connects_per_second", 0, 1_000_000),
    ("limits.max_subscriptions", 0, 100_000_000),
    ("limits.max_pending", 65_536, 1 << 40),
    ("limits.write_deadline_ms", 10, 3_600_000),
    ("limits.ping_interval_ms", 10, 86_400_000),
    ("limits.ping_max", 1, 100),
    ("nodes.zookeeper_session_timeout_ms", 4000, 300_000),
    ("cluster.weight", 1, 1_000_000),
    ("cluster.sync_timeout_ms", 100, 600_000),
    ("cluster.flush_timeout_ms", 1, 60_000),
    ("cluster.connect_timeout_ms", 10, 60_000),
    ("cluster.ping_interval_ms", 50, 600_000),
    ("cluster.ping_timeout_ms", 50, 600_000),
    ("cluster.redial_ms_max", 100, 600_000),
    ("cluster.max_pending", 65_536, 1 << 30),
    ("cluster.nodes_max", 2, 1000),
    ("http.port", -1, 65_535),
    ("tls.client.timeout_ms", 10, 60_000),
    ("tls.route.timeout_ms", 10, 60_000),
    ("tls.http.timeout_ms", 10, 10_000),
    ("process.workers", 0, 1024),
    ("process.match_cache_max", 0, 100_000_000),
    ("process.listen_backlog", 1, 65_535),
    ("process.lame_duck_grace_secs", 0, 3600),
    ("process.lame_duck_secs", 0, 86_400),
];

const SCHEMA: Schema = Schema {
    defaults: DEFAULTS,
    defaults_file: "deploy/broker.toml",
    ranges: RANGES,
    words: &[
        ("log.format", &["human", "json"]),
        ("nodes.zookeeper_readers", &["all", "creator"]),
        ("tls.client.mode", &["off", "optional", "required"]),
        ("tls.client.handshake_first", &["no", "yes", "auto"]),
        ("tls.client.min_version", &["1.2", "1.3"]),
        ("tls.route.mode", &["off", "required"]),
        ("tls.route.min_version", &["1.2", "1.3"]),
        ("tls.http.mode", &["off", "required"]),
        ("tls.http.min_version", &["1.2", "1.3"]),
    ],
    tables: &[
        ("authorization.users", "{ user = \"…\", password = \"…\" }"),
        (
            "authorization.default_permissions",
            "{ publish = …, subscribe = … }",
        ),
        ("cluster.permissions", "{ publish = …, subscribe = … }"),
        ("accounts", "{ name = \"…\", users = [ … ] }"),
    ],
    secret_files: &[
        "nodes.zookeeper_auth_file",
        "http.token_file",
        "tls.client.key_file",
        "tls.route.key_file",
        "tls.http.key_file",
    ],
    restart: &[
        "addr",
        "port",
        "server_name",
        "advertise",
        "nodes.zookeeper",
        "nodes.zookeeper_path",
        "nodes.zookeeper_session_timeout_ms",
        "nodes.zookeeper_auth",
        "nodes.zookeeper_auth_file",
        "nodes.zookeeper_readers",
        "cluster.name",
        "cluster.listen",
        "cluster.advertise",
        "cluster.no_advertise",
        "cluster.user",
        "cluster.password",
        "cluster.permissions",
        "cluster.routes",
        "cluster.zone",
        "cluster.weight",
        "cluster.queue_preference",
        "cluster.sync_timeout_ms",
        "cluster.connect_timeout_ms",
        "cluster.ping_interval_ms",
        "cluster.ping_timeout_ms",
        "cluster.redial_ms_max",
        "cluster.max_pending",
        "cluster.nodes_max",
        "http.addr",
        "http.port",
        "log.format",
        "log.file",
        "process.workers",
        "process.match_cache_max",
        "process.pid_file",
        "process.ports_file_dir",
        "process.listen_backlog",
    ],
    variables: &[],
    other_format: Some(natsconf::read),
    masked,
    text: check_text,
    table: users::check_table,
};

fn is_tls(text: &str) -> bool {
    text.get(..6)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("tls://"))
}

/// Returns `text` with its secrets masked, if `key` can have secrets.
fn masked(key: &str, text: &str) -> Option<String> {
    match key {
        "cluster.listen" | "cluster.routes" | "nodes.zookeeper" | "nodes.allowed_nodes" => {
            return Some(masked_url(text));
        }
        ZooKeeperAuth::KEY => return Some(masked_pair(text)),
        _ => {}
    }
    let secret = matches!(
        key,
        "authorization.password"
            | "cluster.password"
            | "authorization.token"
            | "authorization.users"
            | "authorization.users.password"
            | "accounts.users"
            | "accounts.users.password"
    );
    secret.then(|| masked_whole(text))
}

fn check_text(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    let allowed = match key {
        "addr" if !is_host(text) => "an IP address, such as \"127.0.0.1\", or the name of this host",
        "http.addr" if !text.is_empty() && !is_host(text) => {
            "an IP address or the name of this host, or empty"
        }
        "advertise" | "cluster.advertise" if !text.is_empty() && !cluster::is_advertised(text) => {
            "a reachable host:port or host, or empty"
        }
        "server_name" if text.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()) => {
            "a name without spaces and slashes, or empty"
        }
        "cluster.name" if text.contains(char::is_whitespace) => "a name without spaces, or empty",
        "cluster.listen" | "cluster.routes" if is_tls(text) => {
            "nats:// and not tls://: tls.route.mode switches TLS on for all routes"
        }
        "nodes.allowed_nodes" => return cluster::check_allowed(place, text),
        "cluster.listen" if !text.is_empty() && !cluster::is_listen(text) => {
            "host:port (port -1: any free one), or empty"
        }
        "cluster.routes" if text.contains(MASK) => return Err(mask_given(key, place)),
        "cluster.routes" if cluster::route(text).is_err() => "[nats://][user:password@]host:port",
        "cluster.routes" => return no_hash_in_route(key, place, text),
        ZooKeeperAuth::KEY => return ZooKeeperAuth::check_text(place, text),
        "authorization.password" | "authorization.token" => {
            users::whole_hash(key, place, text)?;
            return not_a_mask(key, place, text);
        }
        "cluster.password" => {
            users::not_a_hash(key, place, text)?;
            return not_a_mask(key, place, text);
        }
        _ => return not_a_mask(key, place, text),
    };
    let found = masked(key, text).unwrap_or_else(|| text.to_owned());
    Err(refused(key, place, allowed, &found))
}

/// Refuses the mask that `--print-config` shows instead of a secret.
fn not_a_mask(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    if text == MASK && masked(key, text).is_some() {
        return Err(mask_given(key, place));
    }
    Ok(())
}

/// Refuses a bcrypt hash as the password of a route.
fn no_hash_in_route(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    let credentials = cluster::route(text).ok().and_then(|route| route.credentials);
    credentials.map_or(Ok(()), |(_, password)| {
        users::not_a_hash(key, place, password.reveal())
    })
}

impl settings::Settings for Settings {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError> {
        let users = users::check(&self.authorization, &self.accounts, places);
        let users = users.err().into_iter();
        let rules = [
            (
                self.port == 0,
                "port",
                "port must be 1 to 65535, or -1 for any free port, not 0".to_owned(),
            ),
            (
                self.limits.max_pending < self.limits.max_payload,
                "limits.max_pending",
                format!(
                    "limits.max_pending ({}) is below limits.max_payload ({}): one message could make a client a slow \
                     consumer; raise limits.max_pending or lower limits.max_payload",
                    self.limits.max_pending, self.limits.max_payload
                ),
            ),
            (
                self.tls.client.verify_and_map && !self.tls.client.section.verify,
                "tls.client.verify_and_map",
                "tls.client.verify_and_map needs certificates of clients; set tls.client.verify too".to_owned(),
            ),
            (
                self.tls.client.handshake_first == HandshakeFirst::Yes
                    && self.tls.client.section.mode == TlsMode::Optional,
                "tls.client.handshake_first",
                "tls.client.handshake_first is \"yes\", but tls.client.mode is \"optional\": a client without TLS waits for \
                 INFO; set \"auto\" or \"required\""
                    .to_owned(),
            ),
            (
                self.http.port == self.port && self.port > 0,
                "http.port",
                format!("http.port and port are both {}; give each its own", self.port),
            ),
        ];
        let broken = rules.into_iter().filter(|(broken, ..)| *broken);
        let broken = broken.map(|(_, key, rule)| places.conflict(key, rule));
        SettingsError::all(users.chain(broken).chain(self.check_cluster(places)))
    }

    /// Checks that the certificate files and the file of the token can be used.
    fn check_complete(&self) -> Result<(), SettingsError> {
        let sections = [
            ("tls.client", &self.tls.client.section),
            ("tls.route", &self.tls.route.section),
        ];
        let errors = sections.into_iter().filter_map(|(door, section)| {
            let error = section.acceptor().err()?;
            Some(SettingsError::Unusable {
                section: door,
                error: error.to_string(),
            })
        });
        SettingsError::all(errors.chain(self.page_access().err()))
    }
}

impl Settings {
    /// Returns the defaults, overridden by `text` (TOML). Ignores environment and flags. For programs and tests that embed a node.
    ///
    /// # Errors
    /// The errors of [`Input::load`], with `settings` as the name of the file.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        Ok(of_text::<Self>("settings", text)?.settings)
    }

    /// Returns a warning for each setting that is valid but may be a mistake.
    pub(crate) fn warnings(&self) -> Vec<String> {
        users::warnings(
            &self.authorization,
            &self.accounts,
            self.tls.client.verify_and_map,
        )
    }

    /// Returns the doors that speak TLS, with their certificate files.
    #[must_use]
    pub fn tls_doors(&self) -> Doors {
        let http = self.http_tls();
        let doors = [
            ("tls.client", &self.tls.client.section),
            ("tls.route", &self.tls.route.section),
            ("tls.http", &http),
        ];
        let on = doors.into_iter().filter(|(_, section)| section.is_on());
        on.map(|(door, section)| (door.to_owned(), section.files()))
            .collect()
    }

    /// Returns `[tls.http]`. Without a certificate of its own it has that for clients, as in `nats-server`.
    pub(crate) fn http_tls(&self) -> TlsSection {
        let (http, client) = (self.tls.http.clone(), &self.tls.client.section);
        if non_empty(&http.cert_file).is_some() || non_empty(&http.key_file).is_some() {
            return http;
        }
        TlsSection {
            cert_file: client.cert_file.clone(),
            key_file: client.key_file.clone(),
            ..http
        }
    }

    /// Returns how the pages are reached. Reads the files that the settings name.
    pub(crate) fn page_access(&self) -> Result<PageAccess, SettingsError> {
        PageAccess::new(&self.http_tls(), &self.http.token_file)
    }

    /// Returns the address to listen on for clients.
    #[must_use]
    pub fn listen(&self) -> ListenAddress {
        ListenAddress::new(&self.addr, self.port)
    }

    /// Returns the address to listen on for the monitoring pages, if they are served.
    #[must_use]
    pub fn http_listen(&self) -> Option<ListenAddress> {
        let addr = match self.http.addr.as_str() {
            "" => &self.addr,
            addr => addr,
        };
        (self.http.port != 0).then(|| ListenAddress::new(addr, self.http.port))
    }

    /// Returns the file for the log; `None` is standard error.
    #[must_use]
    pub fn log_file(&self) -> Option<&Path> {
        non_empty(&self.log.file)
    }

    /// Returns the number of client connections that the limit on open files must allow.
    #[must_use]
    pub const fn connections(&self) -> ConnectionLimit {
        ConnectionLimit {
            max: self.limits.max_connections,
            key: "limits.max_connections",
            name: "clients",
            files: 1,
        }
    }

    /// Returns the users that are admitted.
    #[must_use]
    pub fn access(&self) -> Access {
        users::access(
            &self.authorization,
            &self.accounts,
            self.tls.client.verify_and_map,
        )
    }

    /// Returns the accounts with their limits.
    pub(crate) fn account_limits(&self) -> impl Iterator<Item = (&str, AccountLimits)> {
        self.accounts
            .iter()
            .map(|account| (account.name.as_str(), account.limits()))
    }
}

/// Returns `path`, if it is not empty.
pub(crate) fn non_empty(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
