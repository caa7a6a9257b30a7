//! Identity of a session: the address that its component sees as the server, and the credentials that nodes see.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use standin_registry::{Config, Credentials, Endpoint, RegistryError};

use crate::settings::Settings;

/// Identity of the component towards nodes, and of the sidecar towards the component.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Host in the INFO to the component (promise S7).
    pub(crate) host: String,
    /// Port in the INFO to the component.
    pub(crate) port: u16,
    /// The sidecar's own mark in INFO.
    pub(crate) mark: Arc<str>,
    /// Number of the session. INFO has it as `client_id` if no node has assigned one.
    pub(crate) session_id: u64,
    /// The component's address.
    pub(crate) component_ip: IpAddr,
    /// Credentials for components that send none, on nodes without credentials of their own.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// Settings from which the identity of each session is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdentitySettings {
    /// Host and port in INFO; `None`: the address to which the component connected.
    pub(crate) advertise: Option<Endpoint>,
    /// Credentials for components that send none.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

impl IdentitySettings {
    /// Takes the address from `settings`, and the credentials from `config`, which was made from them.
    ///
    /// # Errors
    /// [`RegistryError`] if the address cannot be read. Settings that were loaded have been checked for this.
    pub(crate) fn new(settings: &Settings, config: &Config) -> Result<Self, RegistryError> {
        let mut fixed = config.fixed.iter();
        let credentials = fixed.find_map(|upstream| upstream.credentials.clone());
        let advertise = match settings.advertise.as_str() {
            "" => None,
            address => Some(address.parse()?),
        };
        Ok(Self {
            advertise,
            credentials: credentials.map(Arc::new),
        })
    }

    /// Returns the identity of session `session_id`, whose component at `component_ip` connected to the address `local`.
    /// `mark` is the sidecar's own.
    pub(crate) fn identity(
        &self,
        session_id: u64,
        component_ip: IpAddr,
        local: SocketAddr,
        mark: &Arc<str>,
    ) -> Identity {
        let (host, port) = match &self.advertise {
            Some(endpoint) => (endpoint.host.to_string(), endpoint.port),
            None => (local.ip().to_string(), local.port()),
        };
        Identity {
            host,
            port,
            mark: Arc::clone(mark),
            session_id,
            component_ip,
            credentials: self.credentials.clone(),
        }
    }
}
