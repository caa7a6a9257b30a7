//! `--embedded`: a broker node, or a mesh of several, in the sidecar's own process, for a first look without a cluster.
//!
//! The sockets listen before the settings are read, so that they can name the nodes as they name any other. A build without the
//! feature `embedded` has no broker in it, and says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Nodes of an embedded cluster at most: it is for a first look.
pub const NODES_MAX: usize = 9;

/// Embedded nodes that run. Dropped, they end.
#[derive(Debug)]
pub struct EmbeddedNodes {
    #[cfg(feature = "embedded")]
    _servers: Vec<standin_broker::Server>,
}

/// The sockets of nodes that are not running yet.
#[derive(Debug)]
pub struct Embedded {
    /// For each node, one for clients and one for the other nodes.
    listeners: Vec<(TcpListener, TcpListener)>,
    urls: Vec<String>,
}

impl Embedded {
    /// Listens for `count` nodes on free ports of the loopback address.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Unsupported`] in a build without broker.
    pub fn listen(count: usize) -> io::Result<Self> {
        if cfg!(not(feature = "embedded")) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this build has no broker in it; build it with the feature `embedded`",
            ));
        }
        let (mut listeners, mut urls) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let (clients, mesh) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
            urls.push(format!("nats://{}", clients.local_addr()?));
            listeners.push((clients, mesh));
        }
        Ok(Self { listeners, urls })
    }

    /// Where the nodes are, as `--upstream` says it.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Runs the nodes, linked with each other, and returns when they serve. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the broker says.
    #[cfg(feature = "embedded")]
    pub async fn run(self) -> Result<EmbeddedNodes, String> {
        use standin_broker::{Server, Settings, Sockets};
        let mesh_addresses = self
            .listeners
            .iter()
            .map(|(_, mesh)| mesh.local_addr().map(|address| address.to_string()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| error.to_string())?;
        let single = self.listeners.len() == 1;
        let starts = self
            .listeners
            .into_iter()
            .enumerate()
            .map(|(number, (clients, mesh))| {
                let mesh_addresses = &mesh_addresses;
                async move {
                    let address = clients.local_addr().map_err(|error| error.to_string())?;
                    let mut settings = Settings::from_toml("").map_err(|error| error.to_string())?;
                    settings.addr = address.ip().to_string();
                    settings.port = address.port().into();
                    settings.server_name = format!("embedded-{}", number + 1);
                    let mut sockets = Sockets {
                        clients: Some(clients),
                        mesh: None,
                    };
                    if !single {
                        sockets.mesh = Some(mesh);
                        let others = mesh_addresses
                            .iter()
                            .enumerate()
                            .filter(|(other, _)| *other != number);
                        settings.cluster.routes =
                            others.map(|(_, address)| address.as_str().into()).collect();
                    }
                    Server::start_on(sockets, settings, std::future::pending())
                        .await
                        .map_err(|error| error.to_string())
                }
            });
        let servers = futures_util::future::try_join_all(starts).await?;
        Ok(EmbeddedNodes { _servers: servers })
    }

    /// Never called: without broker there are no sockets either.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_async, reason = "as the other one")]
    pub async fn run(self) -> Result<EmbeddedNodes, String> {
        Err(format!("this build has no broker for {:?}", self.listeners))
    }
}
