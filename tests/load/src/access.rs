//! How the connections of a measurement are made: with TLS or without, and as which user. It is set once for the whole program, because
//! a measurement compares programs and not users.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;

use crate::Outcome;

static ACCESS: OnceLock<Access> = OnceLock::new();

/// Options of every measurement.
#[derive(Debug, Args)]
pub(crate) struct AccessOptions {
    /// Connect with TLS. The file has the authority that certified the servers, in PEM.
    #[arg(long, global = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The user of all connections.
    #[arg(long, global = true, value_name = "NAME:PASSWORD", value_parser = User::parse)]
    user: Option<User>,
}

/// How connections are made.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) user: Option<User>,
}

/// A user with a password.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl AccessOptions {
    /// Applies the options to all connections that are made later.
    pub(crate) fn apply(self) -> Outcome<()> {
        let tls = self.tls_ca.as_deref().map(read_authority).transpose()?;
        let access = Access { tls, user: self.user };
        ACCESS
            .set(access)
            .map_err(|_| "the options are applied twice".into())
    }
}

impl Access {
    /// Returns how connections are made: without TLS and without a user, if no options say otherwise.
    pub(crate) fn current() -> &'static Self {
        ACCESS.get_or_init(Self::default)
    }

    /// Returns the TLS state of a new connection to `server`, or `None` without TLS.
    pub(crate) fn tls_to(&self, server: SocketAddr) -> Result<Option<ClientConnection>, rustls::Error> {
        let connection = |config| ClientConnection::new(Arc::clone(config), server.ip().into());
        self.tls.as_ref().map(connection).transpose()
    }
}

impl User {
    fn parse(text: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (name, password) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
        Ok(Self {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Returns the CONNECT of a component, for messages with `headers` or without. Without, it has `protocol` 0, so that the server sends no
/// later INFO.
pub(crate) fn connect(user: Option<&User>, headers: bool) -> Vec<u8> {
    let mut fields = json!({ "verbose": false, "pedantic": false, "name": "load", "lang": "rust" });
    if headers {
        fields["headers"] = true.into();
    } else {
        fields["protocol"] = 0.into();
    }
    if let Some(user) = user {
        fields["user"] = user.name.as_str().into();
        fields["pass"] = user.password.as_str().into();
    }
    format!("CONNECT {fields}\r\n").into_bytes()
}

fn read_authority(file: &Path) -> Outcome<Arc<ClientConfig>> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        authorities.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(
        config.with_root_certificates(authorities).with_no_client_auth(),
    ))
}
