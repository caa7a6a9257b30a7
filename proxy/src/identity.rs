//! Identity of a session: the address that its component sees as the server, and the credentials that nodes see.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use standin_registry::{Credentials, Endpoint, Upstream};

use crate::peer::Peer;
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
    /// Place of the component's listener in [`Policy::listeners`](crate::policy::Policy::listeners).
    pub(crate) listener: usize,
    /// Credentials for components that send none, on nodes without credentials of their own.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// Stands in for the identity of a session that is read from the state of the former program.
impl Default for Identity {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 0,
            mark: "".into(),
            session_id: 0,
            component_ip: Ipv4Addr::UNSPECIFIED.into(),
            listener: 0,
            credentials: None,
        }
    }
}

impl Identity {
    /// Creates the identity for session number `session_id`. Its component connected to the address `local`, or, if that is
    /// `None`, to a Unix socket. `mark` is the sidecar's own.
    pub(crate) fn new(
        settings: &Settings,
        session_id: u64,
        listener: usize,
        component: &Peer,
        local: Option<SocketAddr>,
        mark: &Arc<str>,
    ) -> Self {
        // Nobody can connect to port 0, and a component on a Unix socket need not.
        let local = local.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        // These texts were checked when the settings were loaded, so the only `advertise` that is not an address is the empty one.
        let (host, port) = match settings.advertise.parse() {
            Ok(Endpoint { host, port }) => (host.to_string(), port),
            Err(_) => (local.ip().to_string(), local.port()),
        };
        let upstreams = settings.nodes.upstream.iter();
        let mut upstreams = upstreams.flat_map(|url| url.reveal().parse());
        let credentials = upstreams.find_map(|upstream: Upstream| upstream.credentials);
        Self {
            host,
            port,
            mark: Arc::clone(mark),
            session_id,
            component_ip: component.ip(),
            listener,
            credentials: credentials.map(Arc::new),
        }
    }
}
