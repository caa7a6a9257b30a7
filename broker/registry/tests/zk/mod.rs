//! Helpers of the tests with real ZooKeeper servers: a client that writes znodes, and functions that wait for a state of a watch.

pub(crate) mod announcing;
pub(crate) mod child;
pub(crate) mod leaks;
pub(crate) mod proxy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::{ZooKeeper, eventually};
use standin_registry::{Config, Health, Snapshot, SourceState, Watch, ZooKeeperConfig, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zookeeper_async::{Acl, CreateMode, Permission, ZkError, ZkResult, ZooKeeper as Client};

pub(crate) const PATH: &str = "/standin/nodes";
/// Time limit for steps without a promised time, long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Session timeout of most tests, which is the minimum.
pub(crate) const SESSION: Duration = Duration::from_secs(4);
/// Promised maximum time from a change in ZooKeeper to the snapshot with it, and to the repair of our znode.
pub(crate) const PROMISED: Duration = Duration::from_secs(1);

/// Starts a server, and returns it with a client of the test.
pub(crate) async fn started() -> (ZooKeeper, Writer) {
    let server = ZooKeeper::start().await;
    let writer = Writer::to(&server).await;
    (server, writer)
}

/// Returns a server that is not running yet.
pub(crate) async fn stopped_server() -> ZooKeeper {
    let mut server = ZooKeeper::start().await;
    server.kill();
    server
}

/// Returns the number of clients that are connected to the server.
pub(crate) async fn connections(server: &ZooKeeper) -> Option<usize> {
    let mut stream = TcpStream::connect(server.address()).await.ok()?;
    stream.write_all(b"srvr").await.ok()?;
    let mut status = String::new();
    stream.read_to_string(&mut status).await.ok()?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("Connections: "))?;
    // The connection of this request is included.
    Some(line.parse::<usize>().ok()?.saturating_sub(1))
}

/// ZooKeeper client of the test.
pub(crate) struct Writer {
    pub(crate) zookeeper: Client,
}

impl Writer {
    pub(crate) async fn to(server: &ZooKeeper) -> Self {
        let (hosts, timeout, retry) = (
            server.hosts(),
            Duration::from_secs(20),
            Duration::from_millis(200),
        );
        let connecting = Client::connect_with_retry_time(&hosts, timeout, |_| (), retry);
        let zookeeper = tokio::time::timeout(TIMEOUT, connecting).await.unwrap().unwrap();
        Self { zookeeper }
    }

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
pub(crate) async fn watched(records: &[&str]) -> (ZooKeeper, Writer, Watch) {
    let (server, writer) = started().await;
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
    if tokio::time::timeout(TIMEOUT, waiting).await.is_err() {
        let (snapshot, health) = (watch.snapshot(), watch.health());
        panic!("not within {TIMEOUT:?}: {what}; {snapshot:?} {health:#?}");
    }
    begun.elapsed()
}

pub(crate) async fn until_health(watch: &Watch, what: &str, good: impl Fn(&Health) -> bool) -> Duration {
    let begun = Instant::now();
    eventually(what, TIMEOUT, async || good(&watch.health())).await;
    begun.elapsed()
}

pub(crate) async fn until_zookeeper_is(watch: &Watch, state: SourceState) -> Duration {
    until_health(watch, state.as_str(), |health| health.zookeeper.state == state).await
}
