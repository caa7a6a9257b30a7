//! A cluster of real nats-server nodes, each of which a test can kill, freeze, restart or put into lame duck mode.

use crate::condition::eventually;
use crate::http::Endpoint;
use crate::links::Links;
use crate::netns::Netns;
use crate::peers;
use crate::port::free_port;
use crate::process::{Process, Program};
use crate::zookeeper::{Record, Registrar, write};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A version of nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The newest, from PyPI.
    Newest,
    /// Debian's, 2.9.
    Debian,
}

impl Version {
    /// Returns the path of the program.
    pub fn program(self) -> PathBuf {
        match self {
            Self::Newest => peers::folder().join("python/bin/nats-server"),
            Self::Debian => "/usr/sbin/nats-server".into(),
        }
    }
}

/// Settings of a cluster that is not started yet.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    size: usize,
    version: Version,
    authorization: String,
    jetstream: bool,
    host: IpAddr,
    netns: Option<String>,
    routed: bool,
}

impl ClusterBuilder {
    /// Uses this version instead of the newest.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Requires this user and password from clients.
    #[must_use]
    pub fn user_password(mut self, user: &str, password: &str) -> Self {
        self.authorization = format!("authorization {{ user: \"{user}\", password: \"{password}\" }}\n");
        self
    }

    /// Requires this token from clients.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.authorization = format!("authorization {{ token: \"{token}\" }}\n");
        self
    }

    /// Enables JetStream, each node with its own store.
    #[must_use]
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// Starts the nodes without routes, so that no node names another in INFO.
    #[must_use]
    pub fn strangers(mut self) -> Self {
        self.routed = false;
        self
    }

    /// Runs the nodes in this namespace, at its address.
    #[must_use]
    pub fn inside(mut self, netns: &Netns) -> Self {
        self.host = netns.address();
        self.netns = Some(netns.name().to_owned());
        self
    }

    /// Starts all nodes and waits until each has a route to each other one.
    pub async fn start(self) -> Cluster {
        let route_ports: Vec<u16> = (0..self.size).map(|_| free_port()).collect();
        let mut nodes: Vec<NatsNode> = (0..self.size)
            .map(|index| NatsNode::new(&self, index, &route_ports))
            .collect();
        for node in &mut nodes {
            node.launch();
        }
        let mut cluster = Cluster {
            nodes,
            routed: self.routed,
        };
        cluster.wait_until_whole().await;
        cluster
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in order.
    pub nodes: Vec<NatsNode>,
    routed: bool,
}

impl Cluster {
    /// Returns a builder for this many nodes of the newest version, without authentication.
    pub fn builder(size: usize) -> ClusterBuilder {
        ClusterBuilder {
            size,
            version: Version::Newest,
            authorization: String::new(),
            jetstream: false,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            netns: None,
            routed: true,
        }
    }

    /// Starts a cluster with the defaults of [`builder`](Self::builder).
    pub async fn start(size: usize) -> Self {
        Self::builder(size).start().await
    }

    /// Registers every node in ZooKeeper under its name.
    pub async fn announce(&self, registrar: &mut Registrar, record: Record) {
        for node in &self.nodes {
            registrar.announce(record, node.name(), node.address()).await;
        }
    }

    /// Waits until every running node is ready and has a route to every other running node.
    pub async fn wait_until_whole(&mut self) {
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else {
                continue;
            };
            process.wait_for_line("Server is ready", START_TIMEOUT).await;
            if !self.routed {
                continue;
            }
            let what = format!("{} has routes to {} others", node.name, running - 1);
            eventually(what, START_TIMEOUT, async || {
                node.routed_peers().await == Some(running - 1)
            })
            .await;
        }
    }

    /// Kills one node (SIGKILL).
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts a killed node again on its old ports and waits until the cluster is whole.
    pub async fn restart(&mut self, index: usize) {
        self.nodes[index].kill();
        self.nodes[index].launch();
        self.wait_until_whole().await;
    }

    /// Returns the index of the node with this client address.
    pub fn index_of(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }
}

/// One nats-server.
#[derive(Debug)]
pub struct NatsNode {
    name: String,
    address: SocketAddr,
    monitoring: Endpoint,
    program: Program,
    folder: TempDir,
    process: Option<Process>,
}

impl NatsNode {
    fn new(builder: &ClusterBuilder, index: usize, route_ports: &[u16]) -> Self {
        let name = format!("nats-{}", index + 1);
        let folder =
            TempDir::new().unwrap_or_else(|error| panic!("cannot make a folder for {name}: {error}"));
        let address = SocketAddr::from((builder.host, free_port()));
        let monitoring = Endpoint {
            address: (builder.host, free_port()).into(),
            netns: builder.netns.clone(),
        };
        let mut settings = format!(
            "server_name: \"{name}\"\nlisten: \"{address}\"\nhttp: \"{}\"\n{}lame_duck_grace_period: \"1s\"\n",
            monitoring.address, builder.authorization
        );
        if builder.jetstream {
            let _ = writeln!(
                settings,
                "jetstream {{ store_dir: \"{}/store\" }}",
                folder.path().display()
            );
        }
        if builder.routed && builder.size > 1 {
            let route = |port: &u16| format!("\"nats-route://{}:{port}\"", builder.host);
            let routes: Vec<String> = route_ports.iter().map(route).collect();
            let listen = format!("{}:{}", builder.host, route_ports[index]);
            let _ = writeln!(
                settings,
                "cluster {{ name: e2e, listen: \"{listen}\", routes: [{}] }}",
                routes.join(", ")
            );
        }
        write(&folder.path().join("nats.conf"), &settings);
        let mut program = Program::new(builder.version.program())
            .arg("-c")
            .arg(folder.path().join("nats.conf"));
        if let Some(netns) = &builder.netns {
            program = program.inside_named(netns);
        }
        Self {
            name,
            address,
            monitoring,
            program,
            folder,
            process: None,
        }
    }

    fn launch(&mut self) {
        self.process = Some(self.program.start(self.name.clone()));
    }

    /// Returns its `server_name`: `nats-1`, `nats-2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address to which clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns that address as `nats://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Returns the folder with its settings and its store.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the address of its monitoring pages.
    pub fn monitoring(&self) -> &Endpoint {
        &self.monitoring
    }

    /// Returns its process.
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("{} is not running", self.name))
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts its lame duck mode: it tells its clients (`ldm` in INFO), closes them one after the other, and ends.
    pub fn enter_lame_duck(&mut self) {
        self.process().signal(Signal::SIGUSR2);
    }

    /// Returns the number of its client connections; `None` if it does not answer.
    pub async fn client_count(&self) -> Option<u64> {
        self.monitoring.get_json("/varz").await?["connections"].as_u64()
    }

    /// Returns the number of peers to which all connections are open.
    async fn routed_peers(&self) -> Option<usize> {
        let links = Links::read(&self.monitoring).await?;
        Some(links.peers().filter(|peer| links.is_complete(peer)).count())
    }
}
