//! `--embedded`: one broker node, or a mesh of several, in the sidecar's process, to try the sidecar without a cluster.
//!
//! The sockets listen before the settings are loaded, so that the addresses of the nodes can be put into the settings. In
//! a build without the feature `embedded` there is no broker, and the flag is an error.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Limit on the nodes of an embedded cluster, which is only for trials.
pub const NODES_MAX: usize = 9;

/// Running embedded nodes. Dropping the value stops them.
#[derive(Debug)]
pub struct EmbeddedNodes {
    #[cfg(feature = "embedded")]
    _servers: Vec<standin_broker::Server>,
}

/// Listening sockets of embedded nodes that do not run yet.
#[derive(Debug)]
pub struct Embedded {
    /// For each node, the socket for clients and the socket for the other nodes.
    listeners: Vec<(TcpListener, TcpListener)>,
    urls: Vec<String>,
    /// For each node, its address for the other nodes.
    routes: Vec<String>,
}

impl Embedded {
    /// Listens for `count` nodes on free ports of the loopback address.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::Unsupported`] in a build without the broker.
    pub fn listen(count: usize) -> io::Result<Self> {
        if cfg!(not(feature = "embedded")) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this build has no broker; build it with the feature `embedded`",
            ));
        }
        let (mut listeners, mut urls, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let any = (Ipv4Addr::LOCALHOST, 0);
            let (clients, mesh) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
            urls.push(format!("nats://{}", clients.local_addr()?));
            routes.push(mesh.local_addr()?.to_string());
            listeners.push((clients, mesh));
        }
        Ok(Self {
            listeners,
            urls,
            routes,
        })
    }

    /// Returns the addresses of the nodes, in the form of `--upstream`.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Starts the nodes, connected to each other, and returns when they serve. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The error of the broker.
    #[cfg(feature = "embedded")]
    pub async fn run(self) -> io::Result<EmbeddedNodes> {
        use standin_broker::{Server, Settings, Sockets};
        let starts = self
            .listeners
            .into_iter()
            .enumerate()
            .map(|(number, (clients, mesh))| {
                let mut others = self.routes.clone();
                others.remove(number);
                async move {
                    let address = clients.local_addr()?;
                    let mut settings = Settings::from_toml("").map_err(io::Error::other)?;
                    settings.addr = address.ip().to_string();
                    settings.port = address.port().into();
                    settings.server_name = format!("embedded-{}", number + 1);
                    let sockets = Sockets {
                        clients: Some(clients),
                        mesh: (!others.is_empty()).then_some(mesh),
                    };
                    settings.cluster.routes = others.iter().map(|other| other.as_str().into()).collect();
                    let server = Server::start_on(sockets, settings, std::future::pending());
                    server.await.map_err(io::Error::other)
                }
            });
        let servers = futures_util::future::try_join_all(starts).await?;
        Ok(EmbeddedNodes { _servers: servers })
    }

    /// Is never called, because [`listen`](Self::listen) fails in a build without the broker.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_async, reason = "same signature as with the broker")]
    pub async fn run(self) -> io::Result<EmbeddedNodes> {
        let Self {
            listeners, routes, ..
        } = self;
        Err(io::Error::other(format!(
            "no broker for {listeners:?}, {routes:?}"
        )))
    }
}
