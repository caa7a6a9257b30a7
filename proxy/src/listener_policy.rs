//! What a listener allows its components, and what the sidecar does for them: TLS, credentials, subjects, peers.

use std::time::Duration;

use ipnet::IpNet;
use standin_daemon::own_credentials::OwnCredentials;
use standin_daemon::tls::{HandshakeFirst, TlsMode};
use standin_tls::acceptor::Acceptor;
use standin_wire::Permissions;

use crate::peer::Peer;
use crate::settings::{ComponentTlsSection, ListenerSection, Place, SettingsError};

/// The part of a listener's settings that its connections and sessions read.
#[derive(Debug, Clone)]
pub(crate) struct ListenerPolicy {
    /// TLS for components; `None` if it is off.
    pub(crate) tls: Option<ComponentTls>,
    /// Credentials that the sidecar holds.
    pub(crate) credentials: Option<OwnCredentials>,
    /// The subjects that components may use; `None` if they may use all.
    pub(crate) permissions: Option<Permissions>,
    /// Users and groups that may connect. Without any of them, everybody may.
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// Networks of the load balancers that may connect. Without any, every TCP peer may, and none sends a header.
    balancers: Vec<IpNet>,
}

impl ListenerPolicy {
    /// Reads the files of the listener.
    ///
    /// # Errors
    /// [`SettingsError`] for a file that cannot be used.
    pub(crate) fn new(settings: &ListenerSection) -> Result<Self, SettingsError> {
        let permissions = settings.permissions();
        let permissions = permissions.map_err(|error| SettingsError::Conflict {
            place: Place::Default,
            rule: format!("listener: {error}"),
        })?;
        Ok(Self {
            tls: ComponentTls::new(&settings.tls)?,
            credentials: OwnCredentials::read(&settings.credentials)?,
            permissions,
            uids: settings.uids.clone(),
            gids: settings.gids.clone(),
            balancers: settings.balancers().collect(),
        })
    }

    /// Returns whether this peer may connect.
    pub(crate) fn allows(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Unix { uid, gid, .. } => {
                self.uids.is_empty() && self.gids.is_empty()
                    || self.uids.contains(uid)
                    || self.gids.contains(gid)
            }
            Peer::Tcp(address) => {
                let has = |network: &IpNet| network.contains(&address.ip());
                !self.expects_proxy_header() || self.balancers.iter().any(has)
            }
            // The balancer was checked before its header was read.
            Peer::Proxied(_) => true,
        }
    }

    /// Returns whether each connection begins with a PROXY protocol header.
    pub(crate) fn expects_proxy_header(&self) -> bool {
        !self.balancers.is_empty()
    }
}

/// TLS for components.
#[derive(Debug, Clone)]
pub(crate) struct ComponentTls {
    pub(crate) acceptor: Acceptor,
    /// Whether a component may also speak without TLS.
    pub(crate) is_optional: bool,
    /// Whether a component must have a certificate.
    pub(crate) verify: bool,
    /// Whether the handshake comes before INFO.
    pub(crate) is_first: bool,
    pub(crate) timeout: Duration,
}

impl ComponentTls {
    fn new(settings: &ComponentTlsSection) -> Result<Option<Self>, SettingsError> {
        let ComponentTlsSection {
            handshake_first,
            section,
        } = settings;
        let acceptor = section.acceptor().map_err(|error| SettingsError::Unusable {
            section: "tls.component",
            error: error.to_string(),
        })?;
        Ok(acceptor.map(|acceptor| Self {
            acceptor,
            is_optional: section.mode == TlsMode::Optional,
            verify: section.verify,
            is_first: *handshake_first == HandshakeFirst::Yes,
            timeout: section.timeout_ms.duration(),
        }))
    }
}
