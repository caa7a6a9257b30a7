//! Why a client's connection ends, and what the client is told.

/// Why a client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It closed.
    ClientClosed,
    /// Its connection broke.
    ReadError,
    /// Its socket failed on a write.
    WriteError,
    /// More than `pending_bytes_max` waits for it.
    SlowConsumerPending,
    /// It took nothing for longer than `write_deadline`.
    SlowConsumerDeadline,
    /// It answered too few PINGs.
    Stale,
    /// No CONNECT in time.
    AuthenticationTimeout,
    /// Its credentials are wrong, or missing.
    AuthorizationViolation,
    /// New settings do not admit it any more.
    AuthorizationRevoked,
    /// A frame over the limit, or none at all; with the text of [`standin_wire::WireError::server_text`].
    Protocol(&'static str),
    /// CONNECT asks for a version of the protocol that there is not.
    InvalidProtocol,
    /// `no_responders` without `headers`.
    NoRespondersWithoutHeaders,
    /// HPUB without `headers`.
    HeadersNotSupported,
    /// The node at the other end of the link does not want it after all.
    Refused,
    /// The server ends.
    Shutdown,
    /// Its task panicked.
    Bug,
}

/// Kinds of reasons, as metrics name them.
pub(crate) const KINDS: [&str; 12] = [
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
];

impl Reason {
    /// The text of the `-ERR` before the end, without quotes, as `nats-server` words it; `None`: it closes without a word.
    pub(crate) const fn text(self) -> Option<&'static str> {
        match self {
            Self::ClientClosed
            | Self::ReadError
            | Self::WriteError
            | Self::SlowConsumerPending
            | Self::SlowConsumerDeadline
            | Self::Refused
            | Self::Shutdown
            // As nats-server: the client did nothing wrong, and many libraries end for good at an `-ERR`.
            | Self::AuthorizationRevoked
            | Self::Bug => None,
            Self::Stale => Some("Stale Connection"),
            Self::AuthenticationTimeout => Some("Authentication Timeout"),
            Self::AuthorizationViolation => Some("Authorization Violation"),
            Self::Protocol(text) => Some(text),
            Self::InvalidProtocol => Some("invalid client protocol"),
            Self::NoRespondersWithoutHeaders => Some("no responders requires headers support"),
            Self::HeadersNotSupported => Some("message headers not supported"),
        }
    }

    /// The name that `nats-server` gives it in its log and its pages.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "Client Closed",
            Self::ReadError => "Read Error",
            Self::WriteError => "Write Error",
            Self::SlowConsumerPending => "Slow Consumer (Pending Bytes)",
            Self::SlowConsumerDeadline => "Slow Consumer (Write Deadline)",
            Self::Stale => "Stale Connection",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::AuthorizationViolation | Self::AuthorizationRevoked => "Authentication Failure",
            Self::Protocol(_) | Self::InvalidProtocol => "Protocol Violation",
            Self::NoRespondersWithoutHeaders => "No Responders Requires Headers",
            Self::HeadersNotSupported => "Missing Headers Support",
            Self::Refused => "Refused",
            Self::Shutdown => "Server Shutdown",
            Self::Bug => "Internal Error",
        }
    }

    /// Its place in [`KINDS`].
    pub(crate) const fn kind(self) -> usize {
        match self {
            Self::ClientClosed => 0,
            Self::ReadError => 1,
            Self::WriteError => 2,
            Self::SlowConsumerPending => 3,
            Self::SlowConsumerDeadline => 4,
            Self::Stale => 5,
            Self::AuthenticationTimeout => 6,
            Self::AuthorizationViolation | Self::AuthorizationRevoked => 7,
            Self::Protocol(_)
            | Self::InvalidProtocol
            | Self::NoRespondersWithoutHeaders
            | Self::HeadersNotSupported => 8,
            Self::Refused => 9,
            Self::Shutdown => 10,
            Self::Bug => 11,
        }
    }

    /// Whether nothing more can, or should, be written.
    pub(crate) const fn is_broken(self) -> bool {
        matches!(
            self,
            Self::ReadError | Self::WriteError | Self::SlowConsumerPending | Self::SlowConsumerDeadline
        )
    }
}
