//! `--embedded`: a broker node in the sidecar's own process, for a first look without a cluster.
//!
//! Its socket listens before the settings are read, so that they can name it as they name any other node. A build without the
//! feature `embedded` has no broker in it, and says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Nodes of an embedded cluster, until they can form one.
pub const NODES_MAX: usize = 1;

/// Embedded nodes that run. Dropped, they end.
#[derive(Debug)]
pub struct Nodes {
    #[cfg(feature = "embedded")]
    _servers: Vec<standin_broker::Server>,
}

/// The sockets of nodes that are not running yet.
#[derive(Debug)]
pub struct Embedded {
    listeners: Vec<TcpListener>,
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
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            urls.push(format!("nats://{}", listener.local_addr()?));
            listeners.push(listener);
        }
        Ok(Self { listeners, urls })
    }

    /// Where the nodes are, as `--upstream` says it.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Runs the nodes. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the broker says.
    #[cfg(feature = "embedded")]
    pub fn run(self) -> Result<Nodes, String> {
        use standin_broker::{Server, Settings};
        let start = |listener: TcpListener| {
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let mut settings = Settings::from_toml("").map_err(|error| error.to_string())?;
            settings.addr = address.ip().to_string();
            settings.port = address.port().into();
            Server::start_on(listener, settings).map_err(|error| error.to_string())
        };
        let servers = self.listeners.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Nodes { _servers: servers })
    }

    /// Never called: without broker there are no sockets either.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "embedded"))]
    pub fn run(self) -> Result<Nodes, String> {
        Err(format!("this build has no broker for {:?}", self.listeners))
    }
}
