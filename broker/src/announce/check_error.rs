//! [`CheckError`], the reason why a check of the server failed.

use std::io;
use std::time::Duration;

use standin_daemon::settings::SettingsError;
use standin_registry::RegistryError;
use standin_tls::files::TlsError;
use standin_wire::WireError;
use thiserror::Error;

/// Reason why a check failed, and what to do.
#[derive(Debug, Error)]
pub(super) enum CheckError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("{missing} within {limit:?}")]
    Timeout {
        /// What did not come, such as `no INFO`.
        missing: &'static str,
        limit: Duration,
    },
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broke(#[source] io::Error),
    #[error("not a NATS server: {0}")]
    NotNats(WireError),
    #[error("INFO is not a JSON object of a NATS server: {0}")]
    BadInfo(#[source] serde_json::Error),
    #[error("it is a sidecar and not a server; give the address of a server with --node")]
    Sidecar,
    #[error("the server answered -ERR '{text}'{hint}", hint = hint(.text))]
    Refused { text: String },
    #[error(
        "the server offers no TLS, but flags for TLS (--tls-…) are given; switch TLS on at the server, or leave the flags out"
    )]
    TlsMissing,
    #[error("the server sent bytes between its INFO and the TLS handshake")]
    TlsBytesBefore,
    #[error(
        "TLS handshake failed: {error}; the certificate of the server must be issued for the name {name:?} (--tls-server-name), by an \
         authority in --tls-ca-file"
    )]
    TlsHandshake {
        #[source]
        error: io::Error,
        name: String,
    },
    #[error("TLS cannot be used: {0}")]
    TlsFiles(#[from] TlsError),
    #[error("the credentials cannot be used: {0}")]
    Credentials(#[from] SettingsError),
    #[error("{address}/healthz answered {status:?}, not 200")]
    Unhealthy { address: String, status: String },
    #[error("{address}/healthz cannot be read: {error}")]
    Healthz {
        address: String,
        #[source]
        error: io::Error,
    },
    #[error("the server cannot be registered: {0}; give another id with --id")]
    Record(#[from] RegistryError),
}

impl CheckError {
    /// Returns whether the failure proves that nothing listens at the address. Other failures may be temporary.
    pub(super) fn is_certain(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Returns the stable name, for logs.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout { .. } => "timeout",
            Self::Closed => "closed",
            Self::Broke(_) => "broke",
            Self::NotNats(_) => "not_nats",
            Self::BadInfo(_) => "bad_info",
            Self::Sidecar => "sidecar",
            Self::Refused { .. } => "refused",
            Self::TlsMissing | Self::TlsBytesBefore | Self::TlsHandshake { .. } | Self::TlsFiles(_) => "tls",
            Self::Credentials(_) => "credentials",
            Self::Unhealthy { .. } | Self::Healthz { .. } => "healthz",
            Self::Record(_) => "record",
        }
    }
}

/// Returns what to do about an `-ERR` of the server.
fn hint(text: &str) -> &'static str {
    if text.to_lowercase().contains("authorization") {
        "; give the credentials of a user: --user and --password-file, --token-file, --nkey-seed-file or --creds-file"
    } else {
        ""
    }
}
