//! Real ZooKeeper servers for the tests, each on its own port and in its own folder. They are stopped at the end of the test. The
//! tests read and write znodes with a separate client.

pub(crate) mod announcing;
pub(crate) mod child;
pub(crate) mod leaks;
pub(crate) mod proxy;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use standin_registry::{Config, Health, Snapshot, SourceState, Watch, ZooKeeperConfig, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use zookeeper_async::{Acl, CreateMode, Permission, ZkError, ZkResult, ZooKeeper};

pub(crate) const PATH: &str = "/standin/nodes";
/// Time limit for steps without a promised time, long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Session timeout of most tests, which is the minimum.
pub(crate) const SESSION: Duration = Duration::from_secs(4);
/// Promised maximum time from a change in ZooKeeper to the snapshot with it, and to the repair of our znode.
pub(crate) const PROMISED: Duration = Duration::from_secs(1);
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A server. Its data survive [`Server::kill`], and are used by the next [`Server::start`].
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Creates a server without starting it.
    pub(crate) fn new() -> Self {
        assert!(
            Path::new(JAR).exists(),
            "{JAR} is missing: install the Debian package libzookeeper-java"
        );
        Self {
            port: free_port(),
            folder: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    pub(crate) async fn started() -> Self {
        let mut server = Self::new();
        server.start().await;
        server
    }

    pub(crate) fn hosts(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the server and waits until it accepts sessions.
    pub(crate) async fn start(&mut self) {
        let folder = self.folder.path();
        let settings = folder.join("zoo.cfg");
        let text = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\ntickTime=500\nadmin.enableServer=false\n\
             maxClientCnxns=0\nfsync.warningthresholdms=60000\n",
            folder.join("data").display(),
            self.port
        );
        std::fs::write(&settings, text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        // The server ends with the test, even if the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "java"])
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dzookeeper.forceSync=no", "-cp", JAR])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("cannot start java: install the Debian packages default-jre-headless and util-linux");
        self.process = Some(process);
        eventually("the server accepts sessions", async || {
            self.status().await.is_some_and(|text| text.contains("Mode:"))
        })
        .await;
    }

    /// Returns the answer to the command `srvr`.
    pub(crate) async fn status(&self) -> Option<String> {
        let asking = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            stream.write_all(b"srvr").await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok()?
    }

    /// Returns the number of connected clients, without the client that asks.
    pub(crate) async fn connections(&self) -> Option<usize> {
        let status = self.status().await?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("Connections: "))?;
        Some(line.parse::<usize>().ok()?.saturating_sub(1))
    }

    pub(crate) async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().await.unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.process.as_ref().and_then(Child::id).unwrap();
        kill(Pid::from_raw(id as i32), signal).unwrap();
    }

    /// Deletes the data. The server must not be running.
    pub(crate) fn wipe(&self) {
        assert!(self.process.is_none());
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    pub(crate) async fn writer(&self) -> Writer {
        let (hosts, timeout, retry) = (self.hosts(), Duration::from_secs(20), Duration::from_millis(200));
        let connecting = ZooKeeper::connect_with_retry_time(&hosts, timeout, |_| (), retry);
        let zookeeper = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap();
        Writer {
            zookeeper: Arc::new(zookeeper),
        }
    }
}

/// Client of the test.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) zookeeper: Arc<ZooKeeper>,
}

impl Writer {
    /// Creates a persistent znode.
    pub(crate) async fn create(&self, path: &str, data: &str, acl: Vec<Acl>) -> ZkResult<String> {
        self.zookeeper
            .create(path, data.into(), acl, CreateMode::Persistent)
            .await
    }

    /// Creates the znode at `path` and its parents.
    pub(crate) async fn create_path(&self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            match self.create(&path[..end], "", open()).await {
                Ok(_) | Err(ZkError::NodeExists) => {}
                Err(error) => panic!("{}: {error}", &path[..end]),
            }
        }
    }

    /// Creates or changes the znode of the node `name`.
    pub(crate) async fn put(&self, name: &str, record: &str) {
        self.create_path(PATH).await;
        let path = znode(name);
        match self.create(&path, record, open()).await {
            Ok(_) => {}
            Err(ZkError::NodeExists) => {
                self.zookeeper.set_data(&path, record.into(), None).await.unwrap();
            }
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.zookeeper.delete(&znode(name), None).await.unwrap();
    }

    /// Creates nodes `prefix0`, `prefix1` and so on, with ports from 10000, several at a time.
    pub(crate) async fn put_many(&self, prefix: &str, count: usize) {
        self.create_path(PATH).await;
        self.many(count, async |i| {
            let record = format!("h:{}", 10_000 + i);
            self.put(&format!("{prefix}{i}"), &record).await
        })
        .await;
    }

    pub(crate) async fn delete_many(&self, prefix: &str, count: usize) {
        self.many(count, async |i| self.delete(&format!("{prefix}{i}")).await)
            .await;
    }

    async fn many(&self, count: usize, each: impl AsyncFn(usize)) {
        let next = std::cell::Cell::new(0);
        let work = async || {
            while next.get() < count {
                each(next.replace(next.get() + 1)).await;
            }
        };
        tokio::join!(work(), work(), work(), work(), work(), work(), work(), work());
    }
}

pub(crate) fn open() -> Vec<Acl> {
    Acl::open_unsafe().clone()
}

/// Returns an ACL with which only another client has this permission.
pub(crate) fn only_other(permission: Permission) -> Acl {
    Acl::new(permission, "digest", "other:aaaaaaaaaaaaaaaaaaaaaaaaaaa=")
}

pub(crate) fn znode(id: &str) -> String {
    format!("{PATH}/{id}")
}

/// Starts a server with the records `HOST:PORT`, each at the znode `HOST`. Returns it with a client of the test, and with a watch that
/// has read the records.
pub(crate) async fn watched(records: &[&str]) -> (Server, Writer, Watch) {
    let server = Server::started().await;
    let writer = server.writer().await;
    for record in records {
        writer.put(record.split(':').next().unwrap(), record).await;
    }
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    until_live(&watch, records).await;
    (server, writer, watch)
}

/// Asserts that something took no longer than promised.
#[track_caller]
pub(crate) fn in_time(taken: Duration) {
    assert!(taken < PROMISED, "{taken:?}");
}

/// Configuration of most tests, with the shortest session timeout.
pub(crate) fn config(hosts: impl Into<String>) -> Config {
    let zookeeper = ZooKeeperConfig {
        session_timeout_ms: 4_000,
        ..ZooKeeperConfig::new(hosts)
    };
    Config {
        zookeeper: Some(zookeeper),
        ..Config::default()
    }
}

/// Returns the ids of the live nodes, sorted.
pub(crate) fn live(snapshot: &Snapshot) -> Vec<String> {
    ids(&snapshot.live)
}

pub(crate) fn ids(nodes: &[Arc<standin_registry::Node>]) -> Vec<String> {
    let mut ids: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
    ids.sort();
    ids
}

/// Waits until the live nodes are `wanted`, and returns the time that this took.
pub(crate) async fn until_live(watch: &Watch, wanted: &[&str]) -> Duration {
    let what = format!("{wanted:?} are live");
    until(watch, &what, |snapshot| live(snapshot) == wanted).await
}

/// Waits for a snapshot for which `good` holds, and returns the time that this took.
pub(crate) async fn until(watch: &Watch, what: &str, good: impl Fn(&Snapshot) -> bool) -> Duration {
    let begun = Instant::now();
    let mut changes = watch.clone();
    let waiting = async {
        while !good(&watch.snapshot()) {
            changes.changed().await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        let (snapshot, health) = (watch.snapshot(), watch.health());
        panic!("not within {PATIENCE:?}: {what}; {snapshot:?} {health:#?}");
    }
    begun.elapsed()
}

pub(crate) async fn until_health(watch: &Watch, what: &str, good: impl Fn(&Health) -> bool) -> Duration {
    let begun = Instant::now();
    eventually(what, async || good(&watch.health())).await;
    begun.elapsed()
}

pub(crate) async fn until_zookeeper_is(watch: &Watch, state: SourceState) -> Duration {
    until_health(watch, state.as_str(), |health| health.zookeeper.state == state).await
}

/// Waits until `good` holds, with a deadline.
pub(crate) async fn eventually(what: &str, good: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while !good().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        ticks.tick().await;
    }
}

/// Returns a free port that no other test uses. Each process has forty ports, below the ephemeral range, so that no outgoing
/// connection uses one while its server is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 300) as u16 * 40;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(next < 40, "no free port from {first} to {}", first + 39);
        match TcpListener::bind(("127.0.0.1", first + next)) {
            Ok(_) => return first + next,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("cannot bind a loopback port: {error}"),
        }
    }
}
