//! The credentials, limits and timeouts in force, with units converted. SIGHUP can change them.

use std::io;
use std::time::Duration;

use standin_daemon::admission::AdmissionLimits;
use standin_daemon::certificate_watch::expiries;
use standin_daemon::tls::{HandshakeFirst, TlsMode};
use standin_tls::acceptor::Acceptor;
use standin_tls::dialler::Dialler;
use standin_tls::files::TlsError;
use standin_tls::stream::Stream;
use tokio::net::TcpStream;

use crate::auth::Access;
use crate::settings::{self, Settings};

/// The policy in force. The limits on pending bytes, subscriptions and unanswered PINGs are per client.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) access: Access,
    /// TLS for clients; `None` if it is off.
    pub(crate) tls: Option<ClientTls>,
    /// TLS for routes; `None` if it is off.
    pub(crate) route_tls: Option<RouteTls>,
    /// The doors with a certificate, each with the expiry of its certificate in seconds since 1970.
    pub(crate) certificates: Vec<(String, i64)>,
    /// Timeout for CONNECT, if credentials are required.
    pub(crate) auth_timeout: Duration,
    pub(crate) payload_bytes_max: usize,
    pub(crate) control_line_bytes_max: usize,
    /// Limits on connections before login. `connections_max` is reduced to what the limit on open files allows.
    pub(crate) admission: AdmissionLimits,
    /// 0: no limit.
    pub(crate) subscriptions_max: usize,
    pub(crate) pending_bytes_max: usize,
    /// Maximum time for which a socket may accept no bytes.
    pub(crate) write_deadline: Duration,
    pub(crate) ping_interval: Duration,
    /// Maximum number of unanswered PINGs.
    pub(crate) ping_max: u32,
    /// Maximum time for which a PONG waits for acks of other nodes.
    pub(crate) flush_timeout: Duration,
    /// Time for clients to leave by themselves in lame duck mode.
    pub(crate) lame_duck_grace: Duration,
    /// Time over which the remaining clients are closed after that.
    pub(crate) lame_duck: Duration,
}

/// TLS for clients.
#[derive(Debug, Clone)]
pub(crate) struct ClientTls {
    pub(crate) acceptor: Acceptor,
    /// Whether a client may also speak without TLS.
    pub(crate) is_optional: bool,
    /// Whether a client must have a certificate.
    pub(crate) verify: bool,
    pub(crate) handshake_first: HandshakeFirst,
    pub(crate) timeout: Duration,
}

/// TLS for routes. Both sides show a certificate, unless `verify` is off.
#[derive(Debug, Clone)]
pub(crate) struct RouteTls {
    acceptor: Acceptor,
    dialler: Dialler,
    /// The name that every node's certificate must have; empty: the host that is dialled.
    server_name: String,
    timeout: Duration,
}

impl RouteTls {
    fn new(settings: &settings::RouteTls) -> Result<Option<Self>, TlsError> {
        let settings::RouteTls { server_name, section } = settings;
        let Some(acceptor) = section.acceptor()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            acceptor,
            dialler: section.dialler()?,
            server_name: server_name.clone(),
            timeout: section.timeout_ms.duration(),
        }))
    }

    /// Makes the handshake of a route that was dialled at `host`.
    pub(crate) async fn connect(&self, socket: TcpStream, host: &str) -> io::Result<Stream> {
        let name = match self.server_name.as_str() {
            "" => host,
            name => name,
        };
        self.dialler.connect(socket, name, self.timeout).await
    }

    /// Makes the handshake of a route that was accepted.
    pub(crate) async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        self.acceptor.accept(socket, &[], self.timeout).await
    }
}

impl Policy {
    /// Makes the policy of these settings.
    ///
    /// # Errors
    /// [`TlsError`] if a file of TLS cannot be used.
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        let Settings {
            authorization,
            limits,
            process,
            ..
        } = settings;
        let settings::ClientTls {
            handshake_first,
            section,
            ..
        } = &settings.tls.client;
        let tls = section.acceptor()?.map(|acceptor| ClientTls {
            acceptor,
            is_optional: section.mode == TlsMode::Optional,
            verify: section.verify,
            handshake_first: *handshake_first,
            timeout: section.timeout_ms.duration(),
        });
        Ok(Self {
            access: settings.access(),
            tls,
            route_tls: RouteTls::new(&settings.tls.route)?,
            certificates: expiries(&settings.tls_doors())?,
            auth_timeout: authorization.timeout_ms.duration(),
            payload_bytes_max: limits.max_payload,
            control_line_bytes_max: limits.max_control_line,
            admission: AdmissionLimits {
                connections_max: settings.connections().that_fit(),
                half_open_max: limits.max_half_open,
                address_connections_max: limits.max_address_connections,
                address_connects_per_second_max: limits.max_address_connects_per_second,
            },
            subscriptions_max: limits.max_subscriptions,
            pending_bytes_max: limits.max_pending,
            write_deadline: limits.write_deadline_ms.duration(),
            ping_interval: limits.ping_interval_ms.duration(),
            ping_max: limits.ping_max,
            flush_timeout: settings.cluster.flush_timeout_ms.duration(),
            lame_duck_grace: process.lame_duck_grace_secs.duration(),
            lame_duck: process.lame_duck_secs.duration(),
        })
    }
}
