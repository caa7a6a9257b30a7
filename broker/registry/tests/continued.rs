//! A node's znode while its connection to ZooKeeper is reset, falls silent, or stays away until the session expires: a
//! reader that looks at every moment.

use crate::zk::announcing::*;
use crate::zk::proxy::Proxy;
use crate::zk::*;
use standin_registry::{Announcement, NodeState, Record};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A reader that lists the path again and again, as fast as the server answers.
struct Reader {
    stop: oneshot::Sender<()>,
    /// How often it looked, and how often the node was missing.
    looking: JoinHandle<(u64, u64)>,
}

impl Reader {
    async fn start(server: &Server) -> Self {
        let reader = server.writer().await;
        let (stop, mut stopped) = oneshot::channel();
        let looking = tokio::spawn(async move {
            let (mut looks, mut missing) = (0, 0);
            while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                let children = reader.zookeeper.get_children(PATH, false).await.unwrap();
                looks += 1;
                missing += u64::from(!children.iter().any(|child| child == "n1"));
            }
            (looks, missing)
        });
        Self { stop, looking }
    }

    /// How often the node was missing.
    async fn missing(self) -> u64 {
        drop(self.stop);
        let (looks, missing) = self.looking.await.unwrap();
        assert!(looks > 100, "{looks} looks show nothing");
        missing
    }
}

struct Scene {
    server: Server,
    proxy: Proxy,
    record: Record,
    announcement: Announcement,
    writer: Writer,
}

/// A node announced over a proxy.
async fn scene() -> Scene {
    let server = Server::started().await;
    let proxy = Proxy::before(server.port).await;
    let record = node("n1", 4222);
    let announcement = announced(proxy.hosts(), record.clone()).await;
    let writer = server.writer().await;
    Scene {
        server,
        proxy,
        record,
        announcement,
        writer,
    }
}

impl Scene {
    /// The change that created the znode, how often its data were changed since, and whose it is.
    async fn stat(&self) -> (i64, i32, i64) {
        let (_, stat) = read(&self.writer, &znode("n1")).await.unwrap();
        (stat.czxid, stat.version, stat.ephemeral_owner)
    }

    /// Breaks the connection and waits until the announcement stands again.
    async fn broken(&mut self, how: impl FnOnce(&Proxy)) {
        how(&self.proxy);
        until_it_is(&mut self.announcement, "seeking").await;
        until_it_is(&mut self.announcement, "announced").await;
    }
}

#[tokio::test]
async fn a_reset_connection_is_replaced_and_the_znode_stands_throughout() {
    let mut scene = scene().await;
    let before = scene.stat().await;
    let reader = Reader::start(&scene.server).await;
    for _ in 0..3 {
        scene.broken(Proxy::reset).await;
        assert_eq!(scene.stat().await, before, "never deleted, made again or written");
    }
    assert_eq!(reader.missing().await, 0);
    // It is still the node's own to withdraw.
    scene.announcement.withdraw().await;
    assert_eq!(owner(&scene.writer, &znode("n1")).await, None);
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_replaced_and_the_znode_stands_throughout() {
    let mut scene = scene().await;
    let before = scene.stat().await;
    let reader = Reader::start(&scene.server).await;
    scene.broken(Proxy::swallow).await;
    assert_eq!(scene.stat().await, before, "never deleted, made again or written");
    // And it outlives the timeout of the session, so the new connection keeps the session alive.
    tokio::time::sleep(2 * SESSION).await;
    assert_eq!(scene.stat().await, before);
    assert_eq!(reader.missing().await, 0);
    scene.announcement.withdraw().await;
}

#[tokio::test]
async fn a_record_that_changes_meanwhile_is_written_over_the_next_connection() {
    let mut scene = scene().await;
    let before = scene.stat().await;
    scene.proxy.swallow();
    let changed = Record {
        state: NodeState::Draining,
        ..scene.record.clone()
    };
    scene.announcement.set(changed.clone()).unwrap();
    until_it_is(&mut scene.announcement, "seeking").await;
    until_stands(&scene.writer, &znode("n1"), &changed, 0).await;
    let after = scene.stat().await;
    assert_eq!(after, (before.0, before.1 + 1, before.2));
    scene.announcement.withdraw().await;
}

#[tokio::test]
async fn a_session_that_expired_is_replaced_at_once() {
    let mut scene = scene().await;
    let before = scene.stat().await.2;
    scene.proxy.close();
    until_it_is(&mut scene.announcement, "seeking").await;
    eventually("the server ends the session", async || {
        owner(&scene.writer, &znode("n1")).await.is_none()
    })
    .await;
    scene.proxy.open().await;
    until_stands(&scene.writer, &znode("n1"), &scene.record, before).await;
    until_it_is(&mut scene.announcement, "announced").await;
    scene.announcement.withdraw().await;
}
