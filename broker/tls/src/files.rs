//! The files of one door: a certificate with its key, and the authorities that peers must have been certified by.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{bounded_file, certificate};

/// Maximum size of a file with certificates or a key, in bytes. All authorities of a system take about 220,000.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The lowest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinVersion {
    /// TLS 1.2, as `nats-server` has it.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

impl MinVersion {
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        match self {
            Self::Tls12 => BOTH,
            Self::Tls13 => &BOTH[..1],
        }
    }
}

/// The files of one door. An empty path means that the file is not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The own certificate, followed by those that certify it, in PEM.
    pub cert: PathBuf,
    /// The private key of the own certificate, in PEM.
    pub key: PathBuf,
    /// The authorities that certify peers, in PEM. Empty: those of the system.
    pub authorities: PathBuf,
}

/// Errors of the files and of what is in them. Each names the file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file does not have what it must have.
    #[error("{file} {problem}", file = file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{given} is set, but {missing} is not: a certificate needs its key")]
    Half {
        /// The setting that is given.
        given: &'static str,
        /// The setting that is missing.
        missing: &'static str,
    },
    /// A door that accepts connections has no certificate.
    #[error("cert_file and key_file are not set: a server needs a certificate")]
    NoCertificate,
    /// The system has no authorities, and none are set.
    #[error("the system has no certificate authorities: install them (ca-certificates), or set ca_file")]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    SetUp(#[from] rustls::Error),
}

impl Files {
    /// Returns the own certificate chain and its key; `None` if the door has none.
    pub(crate) fn own(&self) -> Result<Option<Own>, TlsError> {
        match (is_set(&self.cert), is_set(&self.key)) {
            (false, false) => Ok(None),
            (true, false) => Err(TlsError::Half {
                given: "cert_file",
                missing: "key_file",
            }),
            (false, true) => Err(TlsError::Half {
                given: "key_file",
                missing: "cert_file",
            }),
            (true, true) => {
                let chain = chain(&self.cert)?;
                let key = PrivateKeyDer::from_pem_slice(&content(&self.key)?)
                    .map_err(|error| unusable(&self.key, error, "PRIVATE KEY"))?;
                Ok(Some(Own { chain, key }))
            }
        }
    }

    /// Returns the authorities that certify peers.
    pub(crate) fn authorities(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut store = RootCertStore::empty();
        if is_set(&self.authorities) {
            for authority in chain(&self.authorities)? {
                store.add(authority).map_err(|error| TlsError::Content {
                    file: self.authorities.clone(),
                    problem: format!("has a certificate that cannot be an authority: {error}"),
                })?;
            }
        } else {
            // Errors of single files are not fatal: most systems have some old certificate that cannot be read.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
        Ok(Arc::new(store))
    }

    pub(crate) fn do_not_fit(&self, error: &rustls::Error) -> TlsError {
        TlsError::Content {
            file: self.key.clone(),
            problem: format!("does not fit {}: {error}", self.cert.display()),
        }
    }

    /// Returns when the own certificate expires, in seconds since 1970; `None` if there is none.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn expires_at(&self) -> Result<Option<i64>, TlsError> {
        let own = self.own()?;
        Ok(own.and_then(|own| certificate::expires_at(own.chain.first()?)))
    }

    /// Returns the own certificate, without reading its key; `None` if there is none.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn certificate(&self) -> Result<Option<CertificateDer<'static>>, TlsError> {
        if !is_set(&self.cert) {
            return Ok(None);
        }
        Ok(chain(&self.cert)?.into_iter().next())
    }
}

/// The own certificate chain and its key.
pub(crate) struct Own {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

pub(crate) fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn content(file: &Path) -> Result<Vec<u8>, TlsError> {
    bounded_file::read(file, FILE_BYTES_MAX).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        error,
    })
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = content(file)?;
    match CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => Err(unusable(file, pem::Error::NoItemsFound, "CERTIFICATE")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(unusable(file, error, "CERTIFICATE")),
    }
}

fn unusable(file: &Path, error: pem::Error, section: &str) -> TlsError {
    let file = file.to_owned();
    match error {
        pem::Error::Io(error) => TlsError::Unreadable { file, error },
        pem::Error::NoItemsFound => TlsError::Content {
            file,
            problem: format!("has no section \"BEGIN {section}\": give a file in PEM format"),
        },
        other => TlsError::Content {
            file,
            problem: format!("is not valid PEM: {other}"),
        },
    }
}
