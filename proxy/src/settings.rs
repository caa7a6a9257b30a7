//! The settings of the sidecar: what an operator may say, checked before anything starts.
//!
//! `deploy/proxy.toml` is the one place of the defaults; it is compiled in. A user's file, the environment and the flags
//! are laid over it ([`layers`]), each value remembers where it came from, and whatever is wrong with it is told with
//! that place ([`check`]). Sections here are sections there, fields are keys.
//!
//! | file | holds |
//! |---|---|
//! | [`layers`] | the four layers, from the compiled-in file to the flags, as one list of keys with values and origins |
//! | [`document`] | one TOML text, read with line numbers |
//! | [`check`] | what is allowed for each key, and between keys |
//! | [`print`] | `--print-config` |
//! | [`change`] | what a SIGHUP changed, and what of it needs a restart |
//! | [`sources`] | the settings of the node sources, as the registry takes them |
//! | [`secret`], [`units`] | texts that are shown masked, times with their unit |

mod change;
mod check;
mod document;
mod layers;
mod print;
mod secret;
mod sources;
mod units;

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::policy::InDoubt;

pub use self::{
    change::{Change, Effect},
    layers::{Flag, Input, Loaded, Place},
    secret::{NodeUrl, UserPassword},
    units::{Micros, Millis, Secs},
};

/// The commented defaults, `deploy/proxy.toml`.
pub const DEFAULTS: &str = include_str!("../../deploy/proxy.toml");

/// Everything that can be set. The meaning of each key, its unit and its range are told in `deploy/proxy.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `ip:port` of each listener for components.
    pub listen: Vec<String>,
    /// `host:port` that INFO names; empty: the address the component connected to.
    pub advertise: String,
    /// Where nodes are found.
    pub nodes: Nodes,
    /// Which node a session gets.
    pub choice: Choice,
    /// Connecting to nodes.
    pub dial: Dial,
    /// How a silent node is found.
    pub health: Health,
    /// Publishes in doubt.
    pub publish: Publish,
    /// Limits and times of one session.
    pub session: Session,
    /// Limits of the whole process.
    pub limits: Limits,
    /// TCP options.
    pub socket: Socket,
    /// The HTTP listener.
    pub http: Http,
    /// Logging.
    pub log: Log,
    /// Start and stop.
    pub process: Process,
}

/// `[nodes]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Nodes {
    pub zookeeper: String,
    pub zookeeper_path: String,
    pub zookeeper_session_timeout_ms: Millis,
    pub zookeeper_auth: UserPassword,
    pub zookeeper_auth_file: PathBuf,
    pub upstream: Vec<NodeUrl>,
    pub dns: Vec<String>,
    pub dns_refresh_ms: Millis,
    pub dns_server: String,
    pub cache_file: PathBuf,
    pub gossip: bool,
    pub nodes_max: usize,
}

/// `[choice]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Choice {
    pub cooldown_base_ms: Millis,
    pub cooldown_max_ms: Millis,
}

/// `[dial]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Dial {
    pub connect_timeout_ms: Millis,
    pub handshake_timeout_ms: Millis,
    pub dials_concurrent_max: usize,
    pub spread_us_per_session: Micros,
    pub spread_max_ms: Millis,
}

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Health {
    pub probe_interval_ms: Millis,
    pub probe_timeout_ms: Millis,
}

/// `[publish]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Publish {
    pub in_doubt: InDoubt,
    pub confirm_bytes: usize,
    pub confirm_interval_ms: Millis,
    pub in_doubt_bytes_max: usize,
    /// First match wins.
    pub subject: Vec<SubjectPolicy>,
}

/// One entry of `publish.subject`: another policy for the subjects that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectPolicy {
    /// A subscription subject; checked at load.
    pub pattern: String,
    /// The policy for the subjects it matches.
    pub in_doubt: InDoubt,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Session {
    pub buffer_bytes: usize,
    pub outage_secs: Secs,
    pub info_wait_ms: Millis,
    pub component_pending_bytes_max: usize,
    pub component_stall_secs: Secs,
    pub ping_interval_secs: Secs,
    pub ping_max: u32,
    pub subscriptions_max: usize,
    pub control_line_bytes_max: usize,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Limits {
    pub connections_max: usize,
    pub workers: usize,
    pub buffers_total_bytes_max: usize,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Socket {
    pub keepalive_secs: Secs,
    pub user_timeout_ms: Millis,
    pub listen_backlog: u32,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Http {
    pub listen: String,
    pub page_items_max: usize,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line for an eye.
    Human,
    /// One JSON object.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "told in deploy/proxy.toml, once")]
pub struct Process {
    pub shutdown_secs: Secs,
}

/// Why settings cannot be used. The program ends with 64 for each of them.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A file that the settings name.
    #[error("cannot read the {what} {path}: {error}; name a readable file", path = path.display())]
    Unreadable {
        /// `settings file`, `ZooKeeper credentials file`.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A text that is no TOML.
    #[error("{place}: not TOML: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`{section}{hint}")]
    UnknownKey {
        /// Where it is.
        place: Place,
        /// As written.
        key: String,
        /// ` in [section]`, or empty.
        section: String,
        /// A key that looks like it, as a question, or where to look.
        hint: String,
    },
    /// A value of the wrong type or out of its range.
    #[error("{place}: {key} must be {allowed}, not {found}")]
    Value {
        /// Where it is.
        place: Place,
        /// `section.key`.
        key: String,
        /// What is allowed.
        allowed: String,
        /// What is there; secrets masked.
        found: String,
    },
    /// Values that cannot stand together.
    #[error("{place}: {rule}")]
    Conflict {
        /// Where the one is that should change.
        place: Place,
        /// What does not fit, and what to do.
        rule: String,
    },
    /// Nothing says where nodes are.
    #[error(
        "no source of nodes: give ZooKeeper (--zookeeper HOST:PORT[/chroot]), a DNS name (--dns NAME:PORT), \
         a node's address (--upstream nats://HOST:4222, or the environment variable NATS_URL), \
         or one of them in [nodes] of a settings file (--config FILE)"
    )]
    NoSource,
}

impl SettingsError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Syntax { .. } => "syntax",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Value { .. } => "value",
            Self::Conflict { .. } => "conflict",
            Self::NoSource => "no_source",
        }
    }
}

impl Settings {
    /// The defaults with `text` (TOML) laid over them, without environment and flags; for programs and tests that embed
    /// the sidecar. Unlike [`Input::load`] it does not insist on a source of nodes.
    ///
    /// # Errors
    /// As [`Input::load`]; the place is named `settings`.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        Ok(layers::of_text("settings", text)?.settings)
    }
}
