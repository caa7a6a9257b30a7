//! One node of a [`Mesh`](crate::Mesh): a `standin-broker` or `nats-server` process, with every way to start and to end it.

use crate::figures::Figures;
use crate::http::Endpoint;
use crate::netns::{Netns, connect_inside};
use crate::port::free_port;
use crate::process::{Process, Program};
use crate::raw::RawClient;
use crate::server::ServerKind;
use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::net::TcpStream;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One node. Its ports and its name stay the same over every restart.
#[derive(Debug)]
pub struct MeshNode {
    kind: ServerKind,
    name: String,
    address: SocketAddr,
    cluster: SocketAddr,
    http: Endpoint,
    /// Flags by which it finds the other nodes.
    joining: Vec<String>,
    /// Further flags, used from the next start on.
    pub flags: Vec<String>,
    /// Settings of `standin-broker`, such as `cluster.ping_timeout_ms`, used from the next start on.
    pub settings: Vec<(String, String)>,
    process: Option<Process>,
}

impl MeshNode {
    /// Returns a node that is not started yet, on loopback or at the address of a namespace.
    pub(crate) fn new(kind: ServerKind, name: String, netns: Option<&Netns>) -> Self {
        let host = netns.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Netns::address);
        let own = || SocketAddr::new(host, free_port());
        Self {
            kind,
            name,
            address: own(),
            cluster: own(),
            http: Endpoint {
                address: own(),
                netns: netns.map(|netns| netns.name().to_owned()),
            },
            joining: Vec::new(),
            flags: Vec::new(),
            settings: Vec::new(),
            process: None,
        }
    }

    pub(crate) fn join_by(&mut self, flags: Vec<String>) {
        self.joining = flags;
    }

    /// Returns its server name: `n1`, `n2`, …
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

    /// Returns the address to which other nodes connect.
    pub fn cluster_address(&self) -> SocketAddr {
        self.cluster
    }

    /// Returns the address of its monitoring pages.
    pub fn http(&self) -> &Endpoint {
        &self.http
    }

    /// Returns a number of `/varz`, such as `connections`; `None` if the node does not answer.
    pub async fn varz(&self, key: &str) -> Option<u64> {
        self.http.get_json("/varz").await?[key].as_u64()
    }

    /// Returns `num_subscriptions` of `/subsz`: subscriptions of its clients, and interest of other nodes.
    pub async fn num_subscriptions(&self) -> Option<u64> {
        self.http.get_json("/subsz").await?["num_subscriptions"].as_u64()
    }

    /// Returns the number of messages received over the routes that are open now.
    pub async fn messages_from_links(&self) -> u64 {
        let page = self.http.get_json("/routez").await.unwrap_or_default();
        let routes = page["routes"].as_array().map_or(&[][..], Vec::as_slice);
        routes.iter().filter_map(|route| route["in_msgs"].as_u64()).sum()
    }

    /// Connects a client's socket, from the host on which the node runs.
    ///
    /// # Errors
    /// The socket's error.
    pub async fn connect(&self) -> std::io::Result<TcpStream> {
        match &self.http.netns {
            Some(netns) => connect_inside(netns, self.address).await,
            None => TcpStream::connect(self.address).await,
        }
    }

    /// Connects a raw client, from the host on which the node runs.
    pub async fn client(&self) -> RawClient {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(stream)) => RawClient::open_over(stream).await,
            other => panic!("{} does not accept a client: {other:?}", self.name),
        }
    }

    /// Returns its process, running or ended.
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("{} was never started", self.name))
    }

    /// Returns the threads, files, memory and CPU time of its process.
    pub fn figures(&self) -> Figures {
        self.process.as_ref().map(Process::figures).unwrap_or_default()
    }

    /// Returns whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Returns whether it is between [`freeze`](Self::freeze) and [`thaw`](Self::thaw).
    pub fn is_frozen(&mut self) -> bool {
        self.is_running() && self.process().is_frozen()
    }

    /// Starts it and does not wait until it is ready.
    pub fn launch(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let program = self.program();
        self.process = Some(program.start(format!("{} {}", self.kind.name(), self.name)));
    }

    /// Waits until its log says that it is ready.
    pub async fn wait_until_ready(&mut self) {
        self.process()
            .wait_for_line("Server is ready", START_TIMEOUT)
            .await;
    }

    /// Kills it if it runs, starts it, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch();
        self.wait_until_ready().await;
    }

    /// Kills it (SIGKILL) and waits until the kernel has closed its sockets.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.process().kill();
        }
    }

    /// Freezes it (SIGSTOP): it stays connected and answers nothing.
    pub async fn freeze(&mut self) {
        self.process().freeze().await;
    }

    /// Ends the freeze (SIGCONT).
    pub fn thaw(&mut self) {
        self.process().thaw();
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&mut self) {
        self.process().signal(Signal::SIGTERM);
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub async fn stop(&mut self, timeout: Duration) -> ExitStatus {
        self.terminate();
        self.process().wait_for_end(timeout).await
    }

    /// Starts its lame duck mode (SIGUSR2): it tells its clients (`ldm` in INFO), closes them one after the other, and ends.
    pub fn enter_lame_duck(&mut self) {
        self.process().signal(Signal::SIGUSR2);
    }

    fn program(&self) -> Program {
        let program = self
            .kind
            .program()
            .args(["-a", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(["-m", &self.http.address.port().to_string()])
            .args(["-n", &self.name])
            .args(["--cluster", &format!("nats://{}", self.cluster)])
            .args(&self.joining)
            .args(&self.flags);
        let program = self.settings.iter().fold(program, |program, (key, value)| {
            program.env(format!("STANDIN_{}", key.replace('.', "_").to_uppercase()), value)
        });
        match &self.http.netns {
            Some(netns) => program.inside_named(netns),
            None => program,
        }
    }
}
