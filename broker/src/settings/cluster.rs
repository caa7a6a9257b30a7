//! The sections `[cluster]` and `[nodes]`: how this node finds the other nodes, and how they find it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use standin_daemon::settings::{
    Millis, Place, Places, Secret, SettingsError, ZooKeeperAuth, host_and_port, masked_url,
};
use standin_registry::{
    AllowedNode, AllowedNodes, Config, Endpoint, Node, RegistryError, Upstream, ZnodeReaders, ZooKeeperConfig,
};

use super::users::PermissionTable;
use super::{ListenAddress, Settings};

/// Default port on which other nodes connect, as in the documentation of `nats-server`.
const PORT_DEFAULT: i32 = 6222;

/// Bytes of `cluster.max_pending` for the initial interest, in addition to one message.
const INITIAL_INTEREST_BYTES: usize = 2 << 20;

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub name: String,
    pub listen: String,
    pub advertise: String,
    pub no_advertise: bool,
    pub user: String,
    pub password: Secret,
    pub permissions: PermissionTable,
    pub routes: Vec<Secret>,
    pub zone: String,
    pub weight: u32,
    pub queue_preference: QueuePreference,
    pub sync_timeout_ms: Millis,
    pub flush_timeout_ms: Millis,
    pub connect_timeout_ms: Millis,
    pub ping_interval_ms: Millis,
    pub ping_timeout_ms: Millis,
    pub redial_ms_max: Millis,
    pub max_pending: usize,
    pub nodes_max: usize,
}

/// The order of the members of a queue group for a message: `cluster.queue_preference`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueuePreference {
    /// Each member in the cluster is chosen alike.
    Even,
    /// Members on the node of the publisher come first.
    Local,
}

/// `[nodes]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    pub zookeeper: String,
    pub zookeeper_path: String,
    pub zookeeper_session_timeout_ms: Millis,
    pub zookeeper_auth: Secret,
    pub zookeeper_auth_file: PathBuf,
    pub zookeeper_readers: ZnodeReaders,
    pub allowed_nodes: Vec<String>,
}

/// A node of `cluster.routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfiguredRoute {
    pub(crate) endpoint: Endpoint,
    /// User and password for this node, if they differ from `cluster.user` and `cluster.password`.
    pub(crate) credentials: Option<(String, Secret)>,
}

/// Splits `nats://user:password@host:port` into the user info (before the `@`) and host:port. Removes nats:// or
/// nats-route://. Keeps any other scheme, so that later parsing fails.
pub(crate) fn split_url(text: &str) -> (Option<&str>, &str) {
    // The documentation of nats-server uses nats-route://.
    let rest = ["nats://", "nats-route://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text)
        .trim_end_matches('/');
    match rest.rsplit_once('@') {
        Some((user_info, host)) if !user_info.contains("://") => (Some(user_info), host),
        _ => (None, rest),
    }
}

/// Parses the user info of an address: user and password, each of which may be percent-encoded.
pub(crate) fn credentials(user_info: &str) -> Result<(String, Secret), String> {
    let upstream: Upstream = format!("nats://{user_info}@host:1")
        .parse()
        .map_err(|error: standin_registry::RegistryError| error.to_string())?;
    let known = upstream
        .credentials
        .and_then(|known| Some((known.user?, known.password?.into())));
    known.ok_or_else(|| "user:password before the @".to_owned())
}

/// Returns whether `text` is valid for `cluster.listen`: host:port, with port -1 for any free port. An empty host means all
/// addresses.
pub(super) fn is_listen(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let port = if port == "-1" { "0" } else { port };
    host_and_port(&format!("{host}:{port}"))
}

/// Returns whether `text` is an address by which others can reach a node: host:port, a host, or an IPv6 address in brackets with a port.
pub(super) fn is_advertised(text: &str) -> bool {
    let is_name =
        |host: &str| !host.is_empty() && !host.contains(['/', '@']) && !host.contains(char::is_whitespace);
    let can_be_reached = |host: &str| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host.parse::<IpAddr>().map_or(true, |ip| !ip.is_unspecified())
    };
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
            is_port && host_and_port(text) && is_name(host) && can_be_reached(host)
        }
        None => is_name(text) && can_be_reached(text),
    }
}

/// Checks an entry of `nodes.allowed_nodes`.
pub(super) fn check_allowed(place: &Place, text: &str) -> Result<(), SettingsError> {
    let checked = text.parse::<AllowedNode>().map(drop);
    checked.map_err(|error| SettingsError::Conflict {
        place: place.clone(),
        rule: format!("nodes.allowed_nodes: {}", masked(error)),
    })
}

/// Masks what stands before an `@` in the value that an error shows: a password given by mistake.
fn masked(mut error: RegistryError) -> RegistryError {
    if let RegistryError::Address { text: value, .. } | RegistryError::Setting { value, .. } = &mut error {
        *value = masked_url(value);
    }
    error
}

/// Parses an entry of `cluster.routes`.
pub(super) fn route(text: &str) -> Result<ConfiguredRoute, String> {
    let (user_info, host) = split_url(text);
    if !host_and_port(host) {
        return Err("[nats://][user:password@]host:port".to_owned());
    }
    Ok(ConfiguredRoute {
        endpoint: host
            .parse()
            .map_err(|error: standin_registry::RegistryError| error.to_string())?,
        credentials: user_info.map(credentials).transpose()?,
    })
}

impl Settings {
    /// Returns whether the node is part of a cluster.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        !self.cluster.listen.is_empty() || !self.nodes.zookeeper.is_empty() || !self.cluster.routes.is_empty()
    }

    /// Returns the name of the cluster; empty if the cluster has none, or if the node is not part of one.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        if self.is_clustered() {
            &self.cluster.name
        } else {
            ""
        }
    }

    /// Returns the address to listen on for other nodes.
    #[must_use]
    pub fn mesh_listen(&self) -> ListenAddress {
        match self.cluster.listen.rsplit_once(':') {
            Some((host, port)) => ListenAddress::new(host, port.parse().unwrap_or(PORT_DEFAULT)),
            None => ListenAddress::new(&self.addr, PORT_DEFAULT),
        }
    }

    /// Returns the nodes of `cluster.routes`.
    pub(crate) fn routes(&self) -> Vec<ConfiguredRoute> {
        let routes = self.cluster.routes.iter();
        // Invalid routes were refused when the settings were loaded.
        routes.filter_map(|text| route(text.reveal()).ok()).collect()
    }

    /// Returns the nodes that may be dialled: those of `nodes.allowed_nodes` and `cluster.routes`.
    pub(crate) fn allowed_nodes(&self) -> AllowedNodes {
        let configured = self.routes().into_iter().map(|route| route.endpoint);
        AllowedNodes::new(self.nodes.allowed_nodes.iter().map(String::as_str), configured)
    }

    /// Returns the ZooKeeper ensemble, if it is set. Reads `nodes.zookeeper_auth_file`.
    ///
    /// # Errors
    /// [`SettingsError`], if the file cannot be read or is invalid.
    pub(crate) fn zookeeper(&self) -> Result<Option<ZooKeeperConfig>, SettingsError> {
        if self.nodes.zookeeper.is_empty() {
            return Ok(None);
        }
        Ok(Some(ZooKeeperConfig {
            digest_auth: self.zookeeper_auth().read()?,
            ..self.ensemble()
        }))
    }

    /// Returns the ZooKeeper ensemble without credentials.
    fn ensemble(&self) -> ZooKeeperConfig {
        ZooKeeperConfig {
            path: self.nodes.zookeeper_path.clone(),
            session_timeout_ms: self.nodes.zookeeper_session_timeout_ms.0,
            readers: self.nodes.zookeeper_readers,
            ..ZooKeeperConfig::new(self.nodes.zookeeper.clone())
        }
    }

    fn zookeeper_auth(&self) -> ZooKeeperAuth<'_> {
        ZooKeeperAuth::new(&self.nodes.zookeeper_auth, &self.nodes.zookeeper_auth_file)
    }

    /// Returns the errors of `[cluster]` and `[nodes]`.
    pub(super) fn check_cluster(&self, places: &Places<'_>) -> Vec<SettingsError> {
        let (cluster, nodes) = (&self.cluster, &self.nodes);
        let rules = [
            (
                cluster.listen.is_empty() && nodes.zookeeper.is_empty() && !cluster.routes.is_empty(),
                "cluster.routes",
                "cluster.routes is set and cluster.listen is not: other nodes could not connect; set cluster.listen (--cluster \
                 nats://HOST:PORT)",
            ),
            (
                cluster.max_pending < self.limits.max_payload + INITIAL_INTEREST_BYTES,
                "cluster.max_pending",
                "cluster.max_pending must be at least limits.max_payload plus 2 MiB; with less, the initial interest or one message \
                 could exceed it and close the link",
            ),
            (
                cluster.user.is_empty() != cluster.password.is_empty(),
                "cluster.user",
                "cluster.user and cluster.password must be set together; set both or none",
            ),
            (
                nodes.zookeeper_readers == ZnodeReaders::Creator
                    && nodes.zookeeper_auth.is_empty()
                    && nodes.zookeeper_auth_file.as_os_str().is_empty(),
                "nodes.zookeeper_readers",
                "nodes.zookeeper_readers = \"creator\" needs credentials; set nodes.zookeeper_auth_file",
            ),
        ];
        let broken = rules.into_iter().filter(|(broken, ..)| *broken);
        let mut errors: Vec<_> = broken
            .map(|(_, key, rule)| places.conflict(key, rule.to_owned()))
            .collect();
        errors.extend(self.zookeeper_auth().check(places).err());
        if self.is_clustered() {
            errors.extend(self.check_clustered(places));
        }
        if !nodes.zookeeper.is_empty() {
            let config = Config {
                zookeeper: Some(self.ensemble()),
                ..Config::default()
            };
            if let Err(error) = config.check() {
                errors.push(places.conflict("nodes.zookeeper", masked(error).to_string()));
            }
        }
        errors
    }

    /// Returns the errors of a clustered node: a port used twice, a server_name that cannot be registered.
    fn check_clustered(&self, places: &Places<'_>) -> Vec<SettingsError> {
        let mesh_port = i32::from(self.mesh_listen().port());
        let ports = [("port", self.port), ("http.port", self.http.port)];
        let same = ports
            .into_iter()
            .filter(|(_, port)| *port > 0 && *port == mesh_port);
        let mut errors: Vec<_> = same
            .map(|(key, port)| {
                let rule = format!("{key} and the port of cluster.listen are both {port}; give each its own");
                places.conflict("cluster.listen", rule)
            })
            .collect();
        // Without a name the node registers under its server id, which is always valid.
        let id = Some(self.server_name.as_str()).filter(|name| !name.is_empty());
        if let Err(error) = Node::new(id.unwrap_or("id"), Endpoint::new("host", 1)).check_record() {
            let rule = format!("server_name cannot be registered: {error}");
            errors.push(places.conflict("server_name", rule));
        }
        errors
    }
}

/// Returns the local IP address from which packets to `towards` are sent; without `towards`, the one for the default route of IPv4 or else of
/// IPv6; 127.0.0.1 if the host has no such route. A node that listens on all addresses advertises this address.
pub(crate) fn address_towards(towards: Option<SocketAddr>) -> IpAddr {
    // Networks for documentation, so only the default route leads there.
    let outside = [
        SocketAddr::from(([192, 0, 2, 1], 9)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
    ];
    let local = |towards: &SocketAddr| -> std::io::Result<IpAddr> {
        let any = if towards.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        // Connecting a datagram socket sends nothing; it only looks up the IP route.
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(towards)?;
        Ok(socket.local_addr()?.ip())
    };
    let mut targets = towards.as_ref().map_or(&outside[..], std::slice::from_ref).iter();
    let found = targets.find_map(|target| local(target).ok());
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
