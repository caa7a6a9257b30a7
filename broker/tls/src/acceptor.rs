//! Handshakes of connections that are accepted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::Ticketer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::files::{Files, MinVersion, TlsError, provider};
use crate::stream::Stream;

/// Makes the handshakes of connections that are accepted. A connection keeps what its acceptor had, so an acceptor is replaced, not
/// changed.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Reads the files. With `verify` a client must have a certificate of one of the authorities.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn new(files: &Files, verify: bool, min_version: MinVersion) -> Result<Self, TlsError> {
        let own = files.own()?.ok_or(TlsError::NoCertificate)?;
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(min_version.versions())?;
        let builder = if verify {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(files.authorities()?, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Content {
                file: files.authorities.clone(),
                problem: format!("cannot verify clients: {error}"),
            })?)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(own.chain, own.key);
        let mut config = config.map_err(|error| files.do_not_fit(&error))?;
        config.ticketer = Ticketer::new()?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Begins TLS on a connection that has none yet. Its reads and writes make the handshake.
    ///
    /// # Errors
    /// The error of the TLS library; a configuration that was accepted gives none.
    pub fn begin(&self, stream: &mut Stream) -> io::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        stream.start_tls(connection.into());
        Ok(())
    }

    /// Makes the handshake within `limit`. `received` was read from the socket before.
    ///
    /// # Errors
    /// The error of the socket, `TimedOut`, or one of kind `InvalidData` that says why the handshake failed.
    pub async fn accept(&self, socket: TcpStream, received: &[u8], limit: Duration) -> io::Result<Stream> {
        let connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        timeout(limit, Stream::shake_hands(socket, connection.into(), received)).await?
    }
}
