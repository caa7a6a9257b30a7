//! Handshakes of connections that are dialled.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::files::{Files, MinVersion, TlsError, provider};
use crate::stream::Stream;

/// Makes the handshakes of connections that are dialled. All of them share the sessions that servers let be resumed, so that a second
/// handshake with the same server costs less.
#[derive(Debug, Clone)]
pub struct Dialler {
    config: Arc<ClientConfig>,
}

impl Dialler {
    /// Reads the files. With `verify` a server must have a certificate of one of the authorities. The own certificate is shown to a server that asks
    /// for one.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn new(files: &Files, verify: bool, min_version: MinVersion) -> Result<Self, TlsError> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(min_version.versions())?;
        let builder = if verify {
            builder.with_root_certificates(files.authorities()?)
        } else {
            let any = AnyCertificate(provider());
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(any))
        };
        let config = match files.own()? {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let config = builder.with_client_auth_cert(own.chain, own.key);
                config.map_err(|error| files.do_not_fit(&error))?
            }
        };
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Makes the handshake within `limit`. The server's certificate must have `name`, a host name or an IP address.
    ///
    /// # Errors
    /// The error of the socket, `TimedOut`, `InvalidInput` for a name that no certificate can have, or `InvalidData` with the reason why
    /// the handshake failed.
    pub async fn connect(&self, socket: TcpStream, name: &str, limit: Duration) -> io::Result<Stream> {
        let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = ServerName::try_from(host).map_err(|_| {
            let text = format!("no certificate can have the name {name:?}");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let connection = ClientConnection::new(Arc::clone(&self.config), host).map_err(io::Error::other)?;
        timeout(limit, Stream::shake_hands(socket, connection.into(), &[])).await?
    }
}

/// Takes any certificate of a server, for settings that say so. The signature of the handshake is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
