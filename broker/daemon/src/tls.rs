//! `[tls.…]`: the TLS settings of one door. A door is a kind of connection with TLS settings of its own, such as those from clients,
//! those between nodes, or HTTP. The keys in this file are the same for all doors of both programs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use standin_tls::acceptor::Acceptor;
use standin_tls::dialler::Dialler;
pub use standin_tls::files::MinVersion;
use standin_tls::files::{Files, TlsError};

use crate::settings::Millis;

/// Whether a door speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// No TLS.
    Off,
    /// TLS and plain text, on one port.
    Optional,
    /// TLS only.
    Required,
}

/// Whether the handshake comes before INFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandshakeFirst {
    /// INFO comes first.
    #[default]
    No,
    /// The handshake comes first.
    Yes,
    /// The handshake comes first if the client begins it at once.
    Auto,
}

/// `[tls.…]`: the settings of one door. `deploy/broker.toml` and `deploy/proxy.toml` describe the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsSection {
    /// Whether the door speaks TLS.
    pub mode: TlsMode,
    /// The own certificate chain, in PEM.
    pub cert_file: PathBuf,
    /// Its private key, in PEM.
    pub key_file: PathBuf,
    /// The authorities that certify peers, in PEM; empty: those of the system.
    pub ca_file: PathBuf,
    /// Whether peers must have a certificate.
    pub verify: bool,
    /// The lowest version of TLS.
    pub min_version: MinVersion,
    /// Limit on the duration of a handshake.
    pub timeout_ms: Millis,
}

impl Default for TlsSection {
    /// Returns the settings of a door that speaks no TLS.
    fn default() -> Self {
        Self {
            mode: TlsMode::Off,
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            verify: false,
            min_version: MinVersion::default(),
            timeout_ms: Millis(2000),
        }
    }
}

impl TlsSection {
    /// Returns whether the door speaks TLS at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode != TlsMode::Off
    }

    /// Returns the files of the door.
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            cert: self.cert_file.clone(),
            key: self.key_file.clone(),
            authorities: self.ca_file.clone(),
        }
    }

    /// Reads the files, for connections that are accepted. Returns `None` if the door speaks no TLS.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn acceptor(&self) -> Result<Option<Acceptor>, TlsError> {
        let acceptor = || Acceptor::new(&self.files(), self.verify, self.min_version);
        self.is_on().then(acceptor).transpose()
    }

    /// Reads the files, for connections that are dialled.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn dialler(&self) -> Result<Dialler, TlsError> {
        Dialler::new(&self.files(), self.verify, self.min_version)
    }
}
