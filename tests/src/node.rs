//! One `standin-broker` or `nats-server`, alone or a node of a [`Mesh`](crate::Mesh): a process, and all ways to start, end
//! and freeze it. By default it gets only flags that both programs have, so that a test runs against both.

use crate::figures::Figures;
use crate::http::Endpoint;
use crate::netns::{Netns, connect_inside};
use crate::peers;
use crate::port::free_port;
use crate::process::{Process, Program};
use crate::raw::RawClient;
use nix::sys::signal::Signal;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::net::TcpStream;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The program that is run as a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// `standin-broker`.
    Standin,
    /// The newest `nats-server`, from PyPI.
    NatsServer,
    /// Debian's `nats-server`, 2.9.
    OldNatsServer,
}

impl ServerKind {
    /// Returns the name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standin => "standin-broker",
            Self::NatsServer | Self::OldNatsServer => "nats-server",
        }
    }

    /// Returns the path of the program.
    pub fn path(self) -> PathBuf {
        match self {
            Self::Standin => peers::broker_binary(),
            Self::NatsServer => peers::folder().join("python/bin/nats-server"),
            Self::OldNatsServer => "/usr/sbin/nats-server".into(),
        }
    }

    /// Returns the program, without arguments.
    pub fn program(self) -> Program {
        Program::new(self.path())
    }
}

/// One server. Its ports and its name stay the same over every restart.
#[derive(Debug)]
pub struct Node {
    kind: ServerKind,
    name: String,
    address: SocketAddr,
    cluster: SocketAddr,
    http: Endpoint,
    /// Flags of a node of a mesh: its name, and how it finds the other nodes.
    joining: Vec<String>,
    /// Further flags and the environment, used from the next start on.
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// Starts a server without a cluster, with these flags and those of its address, and waits until it is ready.
    pub async fn start(kind: ServerKind, flags: &[&str]) -> Self {
        Self::start_in(kind, flags, &[]).await
    }

    /// Starts a server as [`start`](Self::start) does, with these environment variables.
    pub async fn start_in(kind: ServerKind, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut node = Self::new(kind, kind.name().to_owned(), None);
        node.add_flags(flags);
        let variables = environment.iter();
        node.environment = variables
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        node.restart().await;
        node
    }

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
            environment: Vec::new(),
            process: None,
        }
    }

    pub(crate) fn join_by(&mut self, flags: Vec<String>) {
        self.joining = flags;
    }

    /// Adds flags, used from the next start on. They override those of the mesh.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// Sets a key of the settings, such as `cluster.ping_timeout_ms`, from the next start on. Only `standin-broker` has them.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        assert_eq!(
            self.kind,
            ServerKind::Standin,
            "only standin-broker has the setting {key}"
        );
        let variable = format!("STANDIN_{}", key.replace('.', "_").to_uppercase());
        self.environment.push((variable, value.to_string()));
    }

    /// Returns its name: `n1`, `n2`, … in a mesh, otherwise that of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address to which clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the [`address`](Self::address) as `nats://HOST:PORT`.
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
        connect_inside(self.http.netns.as_deref(), self.address).await
    }

    /// Connects a raw client, from the host on which the node runs.
    pub async fn client(&self) -> RawClient {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(stream)) => RawClient::open_over(stream).await,
            other => panic!("{} does not accept a client: {other:?}", self.name),
        }
    }

    /// Connects a raw client that has subscribed to this subject with the sid 1.
    pub async fn subscriber(&self, subject: &str) -> RawClient {
        self.client().await.subscribed(subject).await
    }

    /// Returns its process, running or ended.
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("{} was never started", self.name))
    }

    /// Waits until a line of its log contains `text`, and returns the line.
    #[track_caller]
    pub fn logs(&mut self, text: &str) -> impl Future<Output = String> {
        self.logs_after(0, text)
    }

    /// Waits as [`logs`](Self::logs) does, for a line after the mark.
    #[track_caller]
    pub fn logs_after(&mut self, mark: usize, text: &str) -> impl Future<Output = String> {
        let line = self.process().wait_for_line_after(mark, text, START_TIMEOUT);
        async move { line.await.text }
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
        self.command(&[])
    }

    /// Returns a program that runs a command, such as `doctor`, with the flags and the environment of this server.
    pub fn command(&self, words: &[&str]) -> Program {
        let mut program = self
            .kind
            .program()
            .args(words)
            .args(["-a", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(["-m", &self.http.address.port().to_string()])
            .args(&self.joining)
            .args(&self.flags)
            .inside_named(self.http.netns.as_deref());
        for (name, value) in &self.environment {
            program = program.env(name, value);
        }
        program
    }
}
