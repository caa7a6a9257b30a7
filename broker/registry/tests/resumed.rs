//! The znode of a node when its connection to ZooKeeper is reset, becomes silent, or is interrupted until the session expires. In
//! the tests `the_znode_exists_throughout_…`, a reader checks continuously that the znode exists.

use crate::zk::announcing::*;
use crate::zk::proxy::Proxy;
use crate::zk::*;
use e2e::{ZooKeeper, eventually};
use standin_registry::{Announcement, Node};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A reader that lists the znodes repeatedly, as fast as the server answers.
struct Reader {
    stop: oneshot::Sender<()>,
    /// Number of reads, and number of those in which the node was missing.
    reading: JoinHandle<(u64, u64)>,
}

impl Reader {
    async fn start(server: &ZooKeeper) -> Self {
        let reader = Writer::to(server).await;
        let (stop, mut stopped) = oneshot::channel();
        let reading = tokio::spawn(async move {
            let (mut reads, mut missing) = (0, 0);
            while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                let children = reader.zookeeper.get_children(PATH, false).await.unwrap();
                reads += 1;
                missing += u64::from(!children.iter().any(|child| child == "n1"));
            }
            (reads, missing)
        });
        Self { stop, reading }
    }

    /// Stops the reader, and returns the number of reads in which the node was missing.
    async fn missing(self) -> u64 {
        drop(self.stop);
        let (reads, missing) = self.reading.await.unwrap();
        assert!(reads > 100, "{reads} reads prove nothing");
        missing
    }
}

struct Scene {
    server: ZooKeeper,
    proxy: Proxy,
    record: Node,
    announcement: Announcement,
    writer: Writer,
}

/// Registers a node through a proxy.
async fn scene() -> Scene {
    let server = ZooKeeper::start().await;
    let proxy = Proxy::before(server.address().port()).await;
    let record = node("n1", 4222);
    let announcement = announced(proxy.hosts(), record.clone()).await;
    let writer = Writer::to(&server).await;
    Scene {
        server,
        proxy,
        record,
        announcement,
        writer,
    }
}

impl Scene {
    /// Returns the zxid that created the znode, the version of its data, and its owner.
    async fn stat(&self) -> (i64, i32, i64) {
        let (_, stat) = read(&self.writer, &znode("n1")).await.unwrap();
        (stat.czxid, stat.version, stat.ephemeral_owner)
    }

    /// Interrupts the connection and waits until the node is registered again.
    async fn interrupt(&mut self, how: impl FnOnce(&Proxy)) {
        how(&self.proxy);
        until_it_is(&self.announcement, "seeking").await;
        until_it_is(&self.announcement, "announced").await;
    }
}

#[tokio::test]
async fn the_znode_exists_throughout_a_reset_of_the_connection() {
    let mut scene = scene().await;
    let before = scene.stat().await;
    let reader = Reader::start(&scene.server).await;
    for _ in 0..3 {
        scene.interrupt(Proxy::reset).await;
        assert_eq!(
            scene.stat().await,
            before,
            "never deleted, created again or written"
        );
    }
    assert_eq!(reader.missing().await, 0);
    // The node can still delete the znode.
    scene.announcement.withdraw().await;
    assert_eq!(owner(&scene.writer, &znode("n1")).await, None);
}

#[tokio::test]
async fn the_znode_exists_throughout_the_replacement_of_a_silent_connection() {
    let mut scene = scene().await;
    let before = scene.stat().await;
    let reader = Reader::start(&scene.server).await;
    scene.interrupt(Proxy::swallow).await;
    assert_eq!(
        scene.stat().await,
        before,
        "never deleted, created again or written"
    );
    // If the znode still exists after this time, the new connection keeps the session alive.
    tokio::time::sleep(2 * SESSION).await;
    assert_eq!(scene.stat().await, before);
    assert_eq!(reader.missing().await, 0);
}

#[tokio::test]
async fn a_record_that_changes_during_an_interruption_is_written_over_the_next_connection() {
    let scene = scene().await;
    let before = scene.stat().await;
    scene.proxy.swallow();
    let changed = draining(&scene.record);
    scene.announcement.set(changed.clone()).unwrap();
    until_it_is(&scene.announcement, "seeking").await;
    until_registered(&scene.writer, &changed, 0).await;
    let after = scene.stat().await;
    assert_eq!(after, (before.0, before.1 + 1, before.2));
}

#[tokio::test]
async fn the_node_is_registered_again_after_its_session_expired() {
    let mut scene = scene().await;
    let before = scene.stat().await.2;
    scene.proxy.close();
    until_it_is(&scene.announcement, "seeking").await;
    eventually("the server ends the session", TIMEOUT, async || {
        owner(&scene.writer, &znode("n1")).await.is_none()
    })
    .await;
    scene.proxy.open().await;
    until_registered(&scene.writer, &scene.record, before).await;
    until_it_is(&scene.announcement, "announced").await;
}
