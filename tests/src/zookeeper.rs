//! A real ZooKeeper server, and sessions with it that register nodes.
//!
//! [`Registrar`] is one session: a small program around a ZooKeeper library other than the product's. When it is closed, its
//! ephemeral znodes disappear at once. When it is dropped, they disappear at the session timeout, as after a power cut.

use crate::certificates::Authority;
use crate::condition::eventually;
use crate::netns::{Netns, connect_inside};
use crate::peers;
use crate::port::{free_address, free_port};
use crate::process::{Process, Program, Stream};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The path under which the product looks for nodes by default.
pub const NODES_PATH: &str = "/standin/nodes";

/// Libraries of the Debian package libzookeeper-java. It has half the dependencies of the package zookeeper, which needs a
/// desktop Java. The second library writes the log to standard error.
const JARS: [&str; 2] = ["zookeeper", "slf4j-simple"];
/// More libraries of that package, for TLS.
const TLS_JARS: [&str; 10] = [
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-tcnative",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
    "commons-io",
];
pub(crate) const USUAL_PORT: u16 = 2181;
const START_TIMEOUT: Duration = Duration::from_secs(60);
const SRVR_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT_SECS: u64 = 4;

/// One ZooKeeper server with its own data folder.
#[derive(Debug)]
pub struct ZooKeeper {
    address: SocketAddr,
    folder: TempDir,
    process: Option<Process>,
    /// Name of the namespace in which the server and its registrars run.
    netns: Option<String>,
    membership: Option<Membership>,
    tls: Option<TlsPort>,
    /// Value of `jute.maxbuffer`, the limit on the size of a request, in bytes.
    request_bytes_max: Option<usize>,
}

/// The port of a server for connections with TLS.
#[derive(Clone, Debug)]
struct TlsPort {
    address: SocketAddr,
    /// File with the server's certificate and key.
    identity: String,
    /// File with the authority of its clients.
    authority: String,
}

/// Place of a server in an [`Ensemble`](crate::Ensemble).
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    /// Number of the server, from 1.
    pub(crate) number: usize,
    /// Lines of the settings that name all servers.
    pub(crate) settings: String,
}

impl ZooKeeper {
    /// Starts a server on a free port and waits until it serves.
    pub async fn start() -> Self {
        let mut zookeeper = Self::described(free_address(), None, None);
        zookeeper.start_again().await;
        zookeeper
    }

    /// Starts a server that takes requests of up to this number of bytes.
    pub async fn start_with_large_requests(bytes_max: usize) -> Self {
        let mut zookeeper = Self::described(free_address(), None, None);
        zookeeper.request_bytes_max = Some(bytes_max);
        zookeeper.start_again().await;
        zookeeper
    }

    /// Starts a server that has a second port, which demands TLS and a certificate of this authority.
    pub async fn start_with_tls(authority: &Authority) -> Self {
        let mut zookeeper = Self::described(free_address(), None, None);
        let (certificate, key) = authority.certify("zookeeper", &["localhost"]);
        let identity = zookeeper.folder.path().join("identity.pem");
        let text =
            |file: &str| std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        write(&identity, &format!("{}{}", text(&key), text(&certificate)));
        zookeeper.tls = Some(TlsPort {
            address: free_address(),
            identity: identity.display().to_string(),
            authority: authority.file(),
        });
        zookeeper.write_settings();
        zookeeper.start_again().await;
        zookeeper
    }

    /// Returns the port for TLS of a server that [`start_with_tls`](Self::start_with_tls) started.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|tls| tls.address.port())
    }

    /// Starts a server at the namespace's own address, where other hosts of its network reach it.
    pub async fn start_on(netns: &Netns) -> Self {
        let address = SocketAddr::new(netns.address(), free_port());
        let mut zookeeper = Self::described(address, Some(netns), None);
        zookeeper.start_again().await;
        zookeeper
    }

    /// Starts a server at the namespace's own address and ZooKeeper's usual port.
    pub async fn start_on_usual_port(netns: &Netns) -> Self {
        let address = SocketAddr::new(netns.address(), USUAL_PORT);
        let mut zookeeper = Self::described(address, Some(netns), None);
        zookeeper.start_again().await;
        zookeeper
    }

    /// Returns a server that is not started yet.
    pub(crate) fn described(
        address: SocketAddr,
        netns: Option<&Netns>,
        membership: Option<Membership>,
    ) -> Self {
        let folder =
            TempDir::new().unwrap_or_else(|error| panic!("cannot make a folder for ZooKeeper: {error}"));
        let zookeeper = Self {
            address,
            folder,
            process: None,
            netns: netns.map(|netns| netns.name().to_owned()),
            membership,
            tls: None,
            request_bytes_max: None,
        };
        zookeeper.write_settings();
        zookeeper
    }

    fn write_settings(&self) {
        let mut settings = format!(
            "dataDir={}/data\nclientPort={}\nclientPortAddress={}\ntickTime=500\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n{}",
            self.folder.path().display(),
            self.address.port(),
            self.address.ip(),
            self.membership.as_ref().map_or("", |member| &member.settings),
        );
        if let Some(tls) = &self.tls {
            let _ = writeln!(
                settings,
                "secureClientPort={}\nsecureClientPortAddress={}\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.type=PEM\nssl.keyStore.location={}\nssl.trustStore.type=PEM\nssl.trustStore.location={}",
                tls.address.port(),
                tls.address.ip(),
                tls.identity,
                tls.authority,
            );
        }
        write(&self.folder.path().join("zoo.cfg"), &settings);
    }

    /// Returns the address to which clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `HOST:PORT`, the value of `--zookeeper`.
    pub fn hosts(&self) -> String {
        self.address.to_string()
    }

    /// Kills the server. Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again on the same port with its old data, and waits until it serves.
    pub async fn start_again(&mut self) {
        self.launch();
        self.wait_until_serving().await;
    }

    /// Starts the server and does not wait: a server of an ensemble serves only after it has found others.
    pub(crate) fn launch(&mut self) {
        if let Some(member) = &self.membership {
            let data = self.folder.path().join("data");
            if let Err(error) = std::fs::create_dir_all(&data) {
                panic!("cannot make {}: {error}", data.display());
            }
            write(&data.join("myid"), &member.number.to_string());
        }
        let tls_jars = if self.tls.is_some() { &TLS_JARS[..] } else { &[] };
        let jars = JARS.iter().chain(tls_jars);
        let jars: Vec<String> = jars.map(|jar| format!("/usr/share/java/{jar}.jar")).collect();
        let limit = self
            .request_bytes_max
            .map(|max| format!("-Djute.maxbuffer={max}"));
        let memory = if limit.is_some() { "-Xmx1g" } else { "-Xmx256m" };
        let process = self
            .program("java")
            // For a fast start and little memory. A test is too short to profit from more.
            .args([memory, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(limit)
            .args(["-cp", &jars.join(":")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.path().join("zoo.cfg"))
            .start(format!("zookeeper {}", self.address));
        self.process = Some(process);
    }

    /// Waits until the server serves.
    pub async fn wait_until_serving(&mut self) {
        eventually(
            format!("ZooKeeper serves on {}", self.address),
            START_TIMEOUT,
            async || {
                let process = self.process();
                assert!(
                    process.is_running(),
                    "ZooKeeper ended during its start:\n{}",
                    process.tail()
                );
                self.mode().await.is_some()
            },
        )
        .await;
    }

    /// Kills the server, deletes all data and sessions, and starts it again.
    pub async fn lose_everything(&mut self) {
        self.kill();
        if let Err(error) = std::fs::remove_dir_all(self.folder.path().join("data")) {
            panic!("cannot remove ZooKeeper's data: {error}");
        }
        self.start_again().await;
    }

    /// Returns the server's process.
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("ZooKeeper is not running"))
    }

    /// Opens a session with a timeout of 4 s, from the namespace of this server.
    pub async fn registrar(&self) -> Registrar {
        let process = self
            .program(peers::python())
            .arg(peers::component_source("registrar.py"))
            .args([self.hosts(), SESSION_TIMEOUT_SECS.to_string()])
            .start(format!("registrar at {}", self.address));
        let mut registrar = Registrar { process };
        registrar.answer(0).await;
        registrar
    }

    fn program(&self, path: impl Into<std::path::PathBuf>) -> Program {
        Program::new(path).inside_named(self.netns.as_deref())
    }

    /// Returns `standalone`, `leader` or `follower`; `None` if the server does not serve, as without a quorum.
    pub async fn mode(&self) -> Option<String> {
        let ask = async {
            let mut stream = connect_inside(self.netns.as_deref(), self.address).await?;
            stream.write_all(b"srvr").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(SRVR_TIMEOUT, ask).await.ok()?.ok()?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.to_owned())
    }
}

/// Format of the record with a node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// `host:port`.
    Plain,
    /// The JSON of Nerve.
    Nerve,
    /// The ServiceInstance of Curator.
    Curator,
    /// A member of a ServerSet, as Finagle and Aurora write it.
    ServerSet,
    /// The format of `standin-broker`.
    Own,
}

impl Record {
    /// Returns the record for the node `id` at `address`.
    pub fn text(self, id: &str, address: SocketAddr) -> String {
        let (host, port) = (address.ip().to_string(), address.port());
        let value = match self {
            Self::Plain => return address.to_string(),
            Self::Nerve => {
                json!({ "host": host, "port": port, "name": id, "haproxy_server_options": null, "weight": 1 })
            }
            Self::Curator => json!({
                "name": "nats", "id": id, "address": host, "port": port, "sslPort": null, "payload": null,
                "registrationTimeUTC": 1_400_000_000_000_u64, "serviceType": "DYNAMIC", "uriSpec": null,
            }),
            Self::ServerSet => json!({
                "serviceEndpoint": { "host": host, "port": port }, "additionalEndpoints": {}, "status": "ALIVE",
            }),
            Self::Own => json!({
                "v": 1, "id": id, "client": address.to_string(), "mesh": address.to_string(), "http": null, "tls": false,
                "zone": "", "weight": 1, "state": "up", "version": "0.1.0",
            }),
        };
        value.to_string()
    }
}

/// One ZooKeeper session, held by its own process.
#[derive(Debug)]
pub struct Registrar {
    process: Process,
}

impl Registrar {
    /// Creates or changes a persistent znode, and creates its parents.
    pub async fn put(&mut self, path: &str, data: &str) {
        self.carry_out(&json!({ "do": "put", "path": path, "data": data, "ephemeral": false }))
            .await;
    }

    /// Creates or changes a persistent znode with these bytes, repeated. Its parents must exist.
    pub async fn put_bytes(&mut self, path: &str, bytes: &[u8], repeat: usize) {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        self.carry_out(&json!({ "do": "put_bytes", "path": path, "hex": hex, "repeat": repeat }))
            .await;
    }

    /// Registers `count` nodes that do not exist, each at an address of its own, as persistent znodes. Their paths are `path` and a
    /// number.
    pub async fn put_many(&mut self, path: &str, count: usize) {
        self.carry_out(&json!({ "do": "put_many", "path": path, "count": count }))
            .await;
    }

    /// Creates or changes an ephemeral znode of this session, and creates its parents.
    pub async fn put_ephemeral(&mut self, path: &str, data: &str) {
        self.carry_out(&json!({ "do": "put", "path": path, "data": data, "ephemeral": true }))
            .await;
    }

    /// Registers the node `id` with an ephemeral znode under [`NODES_PATH`].
    pub async fn announce(&mut self, record: Record, id: &str, address: SocketAddr) {
        self.put_ephemeral(&format!("{NODES_PATH}/{id}"), &record.text(id, address))
            .await;
    }

    /// Unregisters the node `id`.
    pub async fn withdraw(&mut self, id: &str) {
        self.delete(&format!("{NODES_PATH}/{id}")).await;
    }

    /// Deletes a znode and everything below it, if it exists.
    pub async fn delete(&mut self, path: &str) {
        self.carry_out(&json!({ "do": "delete", "path": path })).await;
    }

    /// Deletes every znode except ZooKeeper's own, as an operator may do by mistake.
    pub async fn wipe(&mut self) {
        self.carry_out(&json!({ "do": "wipe" })).await;
    }

    /// Returns the sorted names of a znode's children; none if it does not exist.
    pub async fn children(&mut self, path: &str) -> Vec<String> {
        let answer = self.carry_out(&json!({ "do": "children", "path": path })).await;
        serde_json::from_value(answer).unwrap_or_default()
    }

    /// Waits until exactly these nodes are registered under [`NODES_PATH`].
    pub async fn until_registered(&mut self, ids: &[&str]) {
        eventually(
            format!("{ids:?} are registered"),
            ANSWER_TIMEOUT * 2,
            async || self.children(NODES_PATH).await == ids,
        )
        .await;
    }

    /// Returns a znode's data; empty if it does not exist.
    pub async fn get(&mut self, path: &str) -> String {
        self.carry_out(&json!({ "do": "get", "path": path }))
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Closes the session: its ephemeral znodes disappear at once.
    pub async fn close(mut self) {
        self.process.close_input();
        self.process.wait_for_end(ANSWER_TIMEOUT).await;
    }

    async fn carry_out(&mut self, command: &Value) -> Value {
        let mark = self.process.mark();
        self.process.say(&command.to_string());
        self.answer(mark).await
    }

    async fn answer(&mut self, mark: usize) -> Value {
        let line = self.process.wait_for_line_after(mark, "{", ANSWER_TIMEOUT).await;
        assert_eq!(line.stream, Stream::Out, "{}: {}", self.process.name(), line.text);
        let answer: Value = serde_json::from_str(&line.text).unwrap_or_default();
        match answer.get("ok") {
            Some(ok) => ok.clone(),
            None => panic!("{}: {}", self.process.name(), line.text),
        }
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    if let Err(error) = std::fs::write(path, text) {
        panic!("cannot write {}: {error}", path.display());
    }
}
