//! Features of `nats-server` that this server does not support, with the error texts for their flags and `.conf` keys.

/// A feature of `nats-server` that this server does not support: the error text, without a full stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) &'static str);

impl Unsupported {
    pub(crate) const AUTH_CALLOUT: Self = Self("authorization callouts are not supported");
    pub(crate) const CONNECTION_TYPES: Self =
        Self("users for WebSocket, MQTT or leaf nodes are not supported: only STANDARD is");
    pub(crate) const GATEWAYS: Self = Self("gateways are not supported: they need nats-server");
    pub(crate) const HANDSHAKE_RATE: Self = Self(
        "a limit on all TLS handshakes is not supported: max_address_connects_per_second limits each address",
    );
    pub(crate) const HEADERS_OFF: Self = Self("switching headers off is not supported");
    pub(crate) const HTTP_BASE_PATH: Self = Self("another base path for the pages is not supported");
    pub(crate) const IMPORTS: Self = Self("imports and exports between accounts are not supported");
    pub(crate) const JETSTREAM: Self = Self("JetStream is not supported: it needs nats-server");
    pub(crate) const LEAF_NODES: Self = Self("leaf nodes are not supported: they need nats-server");
    pub(crate) const MAPPINGS: Self = Self("subject mappings are not supported");
    pub(crate) const MESSAGE_TRACE: Self = Self("message tracing is not supported");
    pub(crate) const MQTT: Self = Self("MQTT is not supported: it needs nats-server");
    pub(crate) const OPERATORS: Self = Self("operators and JWTs are not supported: they need nats-server");
    pub(crate) const PINNED_CERTIFICATES: Self = Self(
        "pinned certificates are not supported: with verify, ca_file says whose certificates are accepted",
    );
    pub(crate) const PROFILING: Self = Self("profiling is not supported");
    pub(crate) const PROXY_PROTOCOL: Self = Self("the PROXY protocol is not supported");
    pub(crate) const ROUTE_ACCOUNTS: Self = Self("routes for one account are not supported");
    pub(crate) const SUBJECT_TOKENS: Self = Self("a limit on the tokens of a subject is not supported");
    pub(crate) const SYSLOG: Self =
        Self("logging to syslog is not supported: the log goes to standard error, or to the file of --log");
    pub(crate) const TLS_CHOICES: Self =
        Self("a choice of ciphers, curves or stored certificates is not supported: those of rustls are used");
    pub(crate) const WEBSOCKET: Self = Self("WebSocket is not supported: it needs nats-server");
    pub(crate) const WRITE_TIMEOUT: Self = Self(
        "a client that does not read is closed after write_deadline; write_timeout can only be \"close\"",
    );
}

/// Reason why log lines without a timestamp are not available.
pub(crate) const LOGTIME_OFF: &str = "log lines always have a timestamp";

/// Reason why a system account has hardly any effect.
pub(crate) const SYSTEM_ACCOUNT: &str =
    "this server publishes no events; if all users are in this account, other clients need no credentials";

/// Reason why a size limit of the log file has no effect.
pub(crate) const LOG_ROTATION: &str =
    "the log file is not rotated by size: use logrotate, and send SIGUSR1 after it renames the file";
