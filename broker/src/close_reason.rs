//! The reasons for closing the connection of a client or a route, and the `-ERR` that the client gets.

/// Reason for closing the connection of a client or a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    ClientClosed,
    ReadError,
    WriteError,
    /// More than `pending_bytes_max` bytes are pending.
    SlowConsumerPending,
    /// The socket accepted no bytes for longer than `write_deadline`.
    SlowConsumerDeadline,
    /// Too many PINGs are unanswered.
    Stale,
    /// The client's account has its maximum of clients.
    AccountConnections,
    AuthenticationTimeout,
    TlsHandshake,
    AuthorizationViolation,
    /// Reloaded settings no longer admit the client.
    AuthorizationRevoked,
    /// A frame is invalid or over a limit. The value is its [`standin_wire::WireError::server_text`].
    Protocol(&'static str),
    /// CONNECT has an unknown version of the protocol.
    InvalidProtocol,
    /// CONNECT has `no_responders` without `headers`.
    NoRespondersWithoutHeaders,
    /// HPUB from a client whose CONNECT has no `headers`.
    HeadersNotSupported,
    /// The node at the other end refused the route.
    Refused,
    Shutdown,
    Panicked,
    /// The client had not logged in, and its place was needed for another one.
    Evicted,
}

/// The values of the metric label `reason`. Their indexes are those of [`CloseReason::kind`].
pub(crate) const KINDS: [&str; 15] = [
    "client_closed",
    "read_error",
    "write_error",
    "slow_consumer_pending",
    "slow_consumer_deadline",
    "stale",
    "authentication_timeout",
    "authorization",
    "protocol",
    "refused",
    "shutdown",
    "bug",
    "tls_handshake",
    "account_connections",
    "evicted",
];

impl CloseReason {
    /// Returns the text of the `-ERR` that is sent before closing, without quotes, as in `nats-server`. `None`: no `-ERR` is sent.
    pub(crate) const fn text(self) -> Option<&'static str> {
        match self {
            Self::ClientClosed
            | Self::ReadError
            | Self::WriteError
            | Self::SlowConsumerPending
            | Self::SlowConsumerDeadline
            | Self::Refused
            | Self::TlsHandshake
            | Self::Shutdown
            // As in nats-server for a removed user: many client libraries do not reconnect after an `-ERR`, and this client did
            // nothing wrong.
            | Self::AuthorizationRevoked
            | Self::Evicted
            | Self::Panicked => None,
            Self::Stale => Some("Stale Connection"),
            Self::AccountConnections => Some("maximum account active connections exceeded"),
            Self::AuthenticationTimeout => Some("Authentication Timeout"),
            Self::AuthorizationViolation => Some("Authorization Violation"),
            Self::Protocol(text) => Some(text),
            Self::InvalidProtocol => Some("invalid client protocol"),
            Self::NoRespondersWithoutHeaders => Some("no responders requires headers support"),
            Self::HeadersNotSupported => Some("message headers not supported"),
        }
    }

    /// Returns the name of the reason in the log and on the monitoring pages. Most names are those of `nats-server`.
    pub(crate) const fn as_str(self) -> &'static str {
        self.kind_and_name().1
    }

    /// Returns the index of the reason in [`KINDS`].
    pub(crate) const fn kind(self) -> usize {
        self.kind_and_name().0
    }

    const fn kind_and_name(self) -> (usize, &'static str) {
        match self {
            Self::ClientClosed => (0, "Client Closed"),
            Self::ReadError => (1, "Read Error"),
            Self::WriteError => (2, "Write Error"),
            Self::SlowConsumerPending => (3, "Slow Consumer (Pending Bytes)"),
            Self::SlowConsumerDeadline => (4, "Slow Consumer (Write Deadline)"),
            Self::Stale => (5, "Stale Connection"),
            Self::AccountConnections => (13, "Maximum Account Connections Exceeded"),
            Self::AuthenticationTimeout => (6, "Authentication Timeout"),
            Self::AuthorizationViolation | Self::AuthorizationRevoked => (7, "Authentication Failure"),
            Self::Protocol(_) | Self::InvalidProtocol => (8, "Protocol Violation"),
            Self::NoRespondersWithoutHeaders => (8, "No Responders Requires Headers"),
            Self::HeadersNotSupported => (8, "Missing Headers Support"),
            Self::Refused => (9, "Refused"),
            Self::Shutdown => (10, "Server Shutdown"),
            Self::Panicked => (11, "Internal Error"),
            Self::TlsHandshake => (12, "TLS Handshake Failure"),
            Self::Evicted => (14, "Evicted before Login"),
        }
    }

    /// Returns whether the connection must be closed without writing more to it.
    pub(crate) const fn is_broken(self) -> bool {
        matches!(
            self,
            Self::ReadError | Self::WriteError | Self::SlowConsumerPending | Self::SlowConsumerDeadline
        )
    }
}
