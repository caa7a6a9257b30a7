//! Features of `nats-server` that this server does not support, with the error texts for their flags and `.conf` keys.

/// A feature of `nats-server` that this server does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsupported {
    Accounts,
    AuthCallout,
    ConnectionTypes,
    Gateways,
    HeadersOff,
    Https,
    HttpBasePath,
    JetStream,
    LeafNodes,
    Mappings,
    Mqtt,
    Nkeys,
    NoAuthUser,
    Operators,
    Permissions,
    Profiling,
    ProxyProtocol,
    RouteAccounts,
    SubjectTokens,
    Syslog,
    Tls,
    WebSocket,
    WriteTimeout,
}

impl Unsupported {
    /// Returns the error text, without a full stop.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Accounts => "accounts are not supported yet",
            Self::AuthCallout => "authorization callouts are not supported",
            Self::ConnectionTypes => {
                "users for WebSocket, MQTT or leaf nodes are not supported: only STANDARD is"
            }
            Self::Gateways => "gateways are not supported: they need nats-server",
            Self::HeadersOff => "switching headers off is not supported",
            Self::Https => "HTTPS is not supported yet: the pages are served over HTTP",
            Self::HttpBasePath => "another base path for the pages is not supported",
            Self::JetStream => "JetStream is not supported: it needs nats-server",
            Self::LeafNodes => "leaf nodes are not supported: they need nats-server",
            Self::Mappings => "subject mappings are not supported",
            Self::Mqtt => "MQTT is not supported: it needs nats-server",
            Self::Nkeys => "nkeys are not supported yet",
            Self::NoAuthUser => "a user for clients without credentials is not supported yet",
            Self::Operators => "operators and JWTs are not supported: they need nats-server",
            Self::Permissions => "permissions are not supported yet",
            Self::Profiling => "profiling is not supported",
            Self::ProxyProtocol => "the PROXY protocol is not supported",
            Self::RouteAccounts => "routes for one account are not supported",
            Self::SubjectTokens => "a limit on the tokens of a subject is not supported",
            Self::Syslog => {
                "logging to syslog is not supported: the log goes to standard error, or to the file of --log"
            }
            Self::Tls => "TLS is not supported yet",
            Self::WebSocket => "WebSocket is not supported: it needs nats-server",
            Self::WriteTimeout => {
                "a client that does not read is closed after write_deadline; write_timeout can only be \"close\""
            }
        }
    }
}

/// Reason why log lines without a timestamp are not available.
pub(crate) const LOGTIME_OFF: &str = "log lines always have a timestamp";

/// Reason why a size limit of the log file has no effect.
pub(crate) const LOG_ROTATION: &str =
    "the log file is not rotated by size: use logrotate, and send SIGUSR1 after it renames the file";
