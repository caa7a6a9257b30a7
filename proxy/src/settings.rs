//! The settings of the sidecar. They are checked before anything starts.
//!
//! `deploy/proxy.toml` holds all defaults and is compiled in. [`standin_daemon::settings`] describes how a user's file,
//! the environment and the flags override them. Each struct here is a section of the file, and each field a key.
//!
//! | file | holds |
//! |---|---|
//! | `listener` | `[[listener]]`: the settings of one listener |
//! | `check` | the allowed values of each key, and rules between keys |
//! | `sources` | the settings of the node sources, as the registry needs them |

#![expect(missing_docs, reason = "deploy/proxy.toml describes the keys")]

mod check;
mod listener;
mod sources;

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use standin_daemon::admission::AdmissionLimits;
use standin_daemon::certificate_watch::Doors;
use standin_daemon::connection_limit::ConnectionLimit;
use standin_daemon::http::PageAccess;
pub use standin_daemon::logging::LogFormat;
pub use standin_daemon::settings::{Flag, Input, Loaded, Micros, Millis, Place, Secs, SettingsError};
use standin_daemon::settings::{Secret, changes, of_text, reloaded};
use standin_daemon::tls::{HandshakeFirst, TlsSection};

pub use self::listener::{ListenerSection, RulesSection};
pub use standin_daemon::own_credentials::CredentialsSection;

/// Text of `deploy/proxy.toml`, the commented defaults.
pub const DEFAULTS: &str = include_str!("../../deploy/proxy.toml");

/// Policy for publishes that were written but not acked when their node died (promise S3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InDoubt {
    /// Not sent again: at most once, as NATS promises.
    #[default]
    Drop,
    /// Sent again to the next node: at least once.
    Resend,
}

/// All settings. `deploy/proxy.toml` describes the meaning, the unit and the range of each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub listen: Vec<String>,
    pub listener: Vec<ListenerSection>,
    pub advertise: String,
    pub nodes: NodesSection,
    pub credentials: CredentialsSection,
    pub choice: ChoiceSection,
    pub dial: DialSection,
    pub health: HealthSection,
    pub publish: PublishSection,
    pub session: SessionSection,
    pub limits: LimitsSection,
    pub socket: SocketSection,
    pub http: HttpSection,
    pub tls: TlsSections,
    pub log: LogSection,
    pub process: ProcessSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodesSection {
    pub zookeeper: String,
    pub zookeeper_path: String,
    pub zookeeper_session_timeout_ms: Millis,
    pub zookeeper_auth: Secret,
    pub zookeeper_auth_file: PathBuf,
    pub upstream: Vec<Secret>,
    pub dns: Vec<String>,
    pub dns_refresh_ms: Millis,
    pub dns_server: String,
    pub cache_file: PathBuf,
    pub gossip: bool,
    pub allowed_nodes: Vec<String>,
    pub nodes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoiceSection {
    pub cooldown_base_ms: Millis,
    pub cooldown_max_ms: Millis,
    pub rebalance_secs: Secs,
    pub rebalance_min_secs: Secs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialSection {
    pub connect_timeout_ms: Millis,
    pub handshake_timeout_ms: Millis,
    pub stagger_ms: Millis,
    pub dials_concurrent_max: usize,
    pub retries_per_second_max: u32,
    pub spread_us_per_session: Micros,
    pub spread_max_ms: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSection {
    pub probe_interval_ms: Millis,
    pub probe_timeout_ms: Millis,
    pub idle_probe_interval_ms: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSection {
    pub in_doubt: InDoubt,
    pub confirm_bytes: usize,
    pub confirm_interval_ms: Millis,
    pub in_doubt_bytes_max: usize,
    /// The first match applies.
    pub subject: Vec<SubjectPolicy>,
}

/// One entry of `publish.subject`: another policy for the subjects that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectPolicy {
    /// A subject pattern, checked when the settings are loaded.
    pub pattern: String,
    /// The policy for matching subjects.
    pub in_doubt: InDoubt,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSection {
    pub buffer_bytes: usize,
    pub outage_secs: Secs,
    pub settle_ms: Millis,
    pub info_wait_ms: Millis,
    pub component_pending_bytes_max: usize,
    pub component_stall_secs: Secs,
    pub ping_interval_secs: Secs,
    pub ping_max: u32,
    pub subscriptions_max: usize,
    pub control_line_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    pub connections_max: usize,
    pub half_open_max: usize,
    pub address_connections_max: usize,
    pub address_connects_per_second_max: usize,
    pub workers: usize,
    pub buffers_total_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketSection {
    pub keepalive_secs: Secs,
    pub user_timeout_ms: Millis,
    pub listen_backlog: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    pub listen: String,
    pub token_file: PathBuf,
    pub page_items_max: usize,
    pub ready_needs_node: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSections {
    pub component: ComponentTlsSection,
    pub node: NodeTlsSection,
    pub http: TlsSection,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ComponentTlsSection {
    pub handshake_first: HandshakeFirst,
    #[serde(flatten)]
    pub section: TlsSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTlsSection {
    pub server_name: String,
    pub handshake_first: HandshakeFirst,
    #[serde(flatten)]
    pub section: TlsSection,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSection {
    pub shutdown_secs: Secs,
}

impl Settings {
    /// Returns the number of connections that the limit on open files must allow.
    pub const fn connections(&self) -> ConnectionLimit {
        ConnectionLimit {
            max: self.limits.connections_max,
            key: "limits.connections_max",
            name: "components",
            // One file for the component, one for its node.
            files: 2,
        }
    }

    /// Returns the limits on connections before CONNECT. `connections_max` is reduced to what the limit on open files allows.
    pub fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            connections_max: self.connections().that_fit(),
            half_open_max: self.limits.half_open_max,
            address_connections_max: self.limits.address_connections_max,
            address_connects_per_second_max: self.limits.address_connects_per_second_max,
        }
    }

    /// Returns the host:port of the HTTP pages; `None` if they are off. A port alone is one of 127.0.0.1.
    pub(crate) fn http_listen(&self) -> Option<String> {
        match self.http.listen.as_str() {
            "" => None,
            port if !port.contains(':') => Some(format!("127.0.0.1:{port}")),
            address => Some(address.to_owned()),
        }
    }

    /// Returns how the HTTP pages are reached. Reads the files that the settings name.
    pub(crate) fn page_access(&self) -> Result<PageAccess, SettingsError> {
        PageAccess::new(&self.tls.http, &self.http.token_file)
    }

    /// Returns the listeners: those of `[[listener]]`; without them, the one that `listen`, `[credentials]` and
    /// `[tls.component]` describe.
    pub fn listeners(&self) -> Cow<'_, [ListenerSection]> {
        if !self.listener.is_empty() {
            return Cow::Borrowed(&self.listener);
        }
        Cow::Owned(vec![ListenerSection {
            listen: self.listen.clone(),
            credentials: self.credentials.clone(),
            tls: self.tls.component.clone(),
            ..ListenerSection::default()
        }])
    }

    /// Returns the settings in force after a reload with the settings `new`, and the changes that need a restart and so have no effect.
    pub(crate) fn reloaded(&self, new: Self) -> (Self, Vec<String>) {
        let pending = changes(self, &new)
            .into_iter()
            .filter(|change| change.needs_restart);
        if self.listener.is_empty() && new.listener.is_empty() {
            let pending = pending.map(|change| change.to_string()).collect();
            return (reloaded(self, new), pending);
        }
        let (listeners, left) = listener::reloaded(&self.listeners(), &new.listeners());
        let pending = pending
            .filter(|change| change.key != "listen")
            .map(|change| change.to_string());
        let pending = pending.chain(left).collect();
        let mut in_force = reloaded(self, new);
        in_force.listener = listeners;
        (in_force, pending)
    }

    /// Returns the addresses of all listeners.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        let simple = self.listen.iter().filter(|_| self.listener.is_empty());
        let listed = self.listener.iter().flat_map(|listener| &listener.listen);
        simple.chain(listed).map(String::as_str)
    }

    /// Returns the key that has the addresses of the listeners, and the name of the section with their TLS.
    fn listener_keys(&self) -> (&'static str, &'static str) {
        if self.listener.is_empty() {
            ("listen", "tls.component")
        } else {
            ("listener", "listener.tls")
        }
    }

    /// Returns the doors that speak TLS, with their certificate files.
    pub fn tls_doors(&self) -> Doors {
        let (_, section) = self.listener_keys();
        let listeners = self.listeners();
        let door = |listener: &ListenerSection| match &*listeners {
            [_] => section.to_owned(),
            _ => format!("{section} {}", listener.first_address()),
        };
        let components = listeners
            .iter()
            .map(|listener| (door(listener), &listener.tls.section));
        let doors = components.chain([
            ("tls.node".to_owned(), &self.tls.node.section),
            ("tls.http".to_owned(), &self.tls.http),
        ]);
        let on = doors.filter(|(_, section)| section.is_on());
        on.map(|(door, section)| (door, section.files())).collect()
    }

    /// Returns the defaults, overridden by `text` (TOML) but not by the environment and flags. It is for programs and
    /// tests that embed the sidecar. Unlike [`Input::load`] it accepts settings without a source of nodes.
    ///
    /// # Errors
    /// Those of [`Input::load`], with `settings` as the name of the file.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        Ok(of_text::<Self>("settings", text)?.settings)
    }
}
