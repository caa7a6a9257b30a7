//! What tests of announcements share: records, and waiting for how an announcement stands and for what stands in ZooKeeper.

use std::time::{Duration, Instant};

use standin_registry::{Announcement, Endpoint, Record, Standing, ZooKeeperConfig, announce, watch};
use zookeeper_async::{Acl, CreateMode, Stat, ZkError};

use super::*;

/// The promise: what somebody did to our znode is seen and mended within this.
pub(crate) const PROMISED: Duration = Duration::from_secs(1);
/// The session timeout of most tests, the shortest there is.
pub(crate) const SESSION: Duration = Duration::from_secs(4);

pub(crate) fn settings(hosts: impl Into<String>) -> ZooKeeperConfig {
    config(hosts).zookeeper.unwrap()
}

/// A node at a port of its own.
pub(crate) fn node(id: &str, port: u16) -> Record {
    Record {
        mesh: Some(Endpoint::new("10.0.0.1", port + 2_000)),
        ..Record::new(id, Endpoint::new("10.0.0.1", port))
    }
}

pub(crate) fn znode(id: &str) -> String {
    format!("{PATH}/{id}")
}

pub(crate) async fn until_standing(
    announcement: &mut Announcement,
    what: &str,
    good: impl Fn(&Standing) -> bool,
) -> Duration {
    let begun = Instant::now();
    let waiting = async {
        while !good(&announcement.standing()) {
            announcement.changed().await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}; {:?}", announcement.standing());
    }
    begun.elapsed()
}

/// Waits until the standing has this name.
pub(crate) async fn until_it_is(announcement: &mut Announcement, name: &str) -> Duration {
    until_standing(announcement, name, |standing| standing.as_str() == name).await
}

pub(crate) async fn announced(hosts: String, record: Record) -> Announcement {
    let mut announcement = announce(settings(hosts), record).unwrap();
    until_it_is(&mut announcement, "announced").await;
    announcement
}

/// Announces a node. Returns also which nodes it sees registered at that moment.
pub(crate) async fn announced_with(hosts: String, record: Record) -> (Announcement, Vec<String>) {
    let announcement = announced(hosts, record).await;
    let registered = registered(&announcement);
    (announcement, registered)
}

/// The ids of all registered nodes, as the announcement's own session sees them.
pub(crate) fn registered(announcement: &Announcement) -> Vec<String> {
    assert_eq!(announcement.standing(), Standing::Announced);
    ids(&announcement.watch().snapshot().registered)
}

/// Opens a session and reserves the place of a node.
pub(crate) fn reserved(server: &Server, record: Record) -> Announcement {
    let watch = watch(config(server.hosts())).unwrap();
    Announcement::reserve(&watch, record).unwrap()
}

pub(crate) fn reason(announcement: &Announcement) -> String {
    match announcement.standing() {
        Standing::Seeking { reason } | Standing::Taken { reason, .. } => reason,
        standing => panic!("{standing:?}"),
    }
}

/// What stands there now.
pub(crate) async fn read(writer: &Writer, path: &str) -> Option<(String, Stat)> {
    match writer.zookeeper.get_data(path, false).await {
        Ok((data, stat)) => Some((String::from_utf8(data).unwrap(), stat)),
        Err(ZkError::NoNode) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

pub(crate) async fn owner(writer: &Writer, path: &str) -> Option<i64> {
    read(writer, path).await.map(|(_, stat)| stat.ephemeral_owner)
}

/// Waits until this record stands there as an ephemeral znode of another session than `not`, and returns how
/// long it took.
pub(crate) async fn until_stands(writer: &Writer, path: &str, record: &Record, not: i64) -> Duration {
    let begun = Instant::now();
    eventually("our record stands", async || {
        read(writer, path).await.is_some_and(|(data, stat)| {
            data == record.to_json() && stat.is_ephemeral() && stat.ephemeral_owner != not
        })
    })
    .await;
    begun.elapsed()
}

/// Puts an ephemeral znode of the writer's own session at the place of `id`, and returns its owner.
pub(crate) async fn hold(writer: &Writer, id: &str, data: String, acl: Vec<Acl>) -> i64 {
    writer.create_path(PATH).await;
    let (path, data) = (znode(id), data.into_bytes());
    let creating = writer.zookeeper.create(&path, data, acl, CreateMode::Ephemeral);
    creating.await.unwrap();
    let stat = writer.zookeeper.exists(&path, false).await.unwrap();
    stat.unwrap().ephemeral_owner
}

pub(crate) fn open() -> Vec<Acl> {
    Acl::open_unsafe().clone()
}
