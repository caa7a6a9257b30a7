//! Helpers for tests of registrations: records, and waiting for the state of an announcement and of a znode.

use std::time::{Duration, Instant};

use standin_registry::{
    Announcement, Endpoint, Node, NodeState, RegistrationState, RegistryError, ZooKeeperConfig, watch,
};
use zookeeper_async::{Acl, CreateMode, Stat, ZkError};

use super::*;

pub(crate) fn settings(hosts: impl Into<String>) -> ZooKeeperConfig {
    config(hosts).zookeeper.unwrap()
}

/// Creates the record of a node at the port `port`.
pub(crate) fn node(id: &str, port: u16) -> Node {
    Node {
        mesh: Some(Endpoint::new("10.0.0.1", port + 2_000)),
        ..Node::new(id, Endpoint::new("10.0.0.1", port))
    }
}

/// Returns the record of `node` while it drains.
pub(crate) fn draining(node: &Node) -> Node {
    let state = NodeState::Draining;
    Node {
        state,
        ..node.clone()
    }
}

/// Registers a node in a session of its own, until the announcement is dropped.
pub(crate) fn announce(zookeeper: ZooKeeperConfig, record: Node) -> Result<Announcement, RegistryError> {
    let zookeeper = Some(zookeeper);
    let watch = watch(Config {
        zookeeper,
        ..Config::default()
    })?;
    let announcement = Announcement::reserve(&watch, record)?;
    announcement.release();
    Ok(announcement)
}

async fn until_state(
    announcement: &Announcement,
    what: &str,
    good: impl FnMut(&RegistrationState) -> bool,
) -> Duration {
    let begun = Instant::now();
    let mut state = announcement.follow();
    if tokio::time::timeout(TIMEOUT, state.wait_for(good)).await.is_err() {
        panic!("not within {TIMEOUT:?}: {what}; {:?}", announcement.state());
    }
    begun.elapsed()
}

/// Waits until the node is not registered, with a reason that contains `text`.
pub(crate) async fn until_seeking(announcement: &Announcement, text: &str) -> Duration {
    until_state(
        announcement,
        text,
        |state| matches!(state, RegistrationState::Seeking { reason } if reason.contains(text)),
    )
    .await
}

/// Waits until the state has this name.
pub(crate) async fn until_it_is(announcement: &Announcement, name: &str) -> Duration {
    until_state(announcement, name, |state| state.as_str() == name).await
}

pub(crate) async fn announced(hosts: String, record: Node) -> Announcement {
    let announcement = announce(settings(hosts), record).unwrap();
    until_it_is(&announcement, "announced").await;
    announcement
}

/// Returns the ids of all registered nodes, as the announcement's session sees them.
pub(crate) fn registered(announcement: &Announcement) -> Vec<String> {
    assert_eq!(announcement.state(), RegistrationState::Announced);
    ids(&announcement.watch().snapshot().registered)
}

/// Opens a session and reserves the path of a node.
pub(crate) fn reserved(server: &ZooKeeper, record: Node) -> Announcement {
    let watch = watch(config(server.hosts())).unwrap();
    Announcement::reserve(&watch, record).unwrap()
}

pub(crate) fn reason(announcement: &Announcement) -> String {
    match announcement.state() {
        RegistrationState::Seeking { reason } | RegistrationState::Taken { reason, .. } => reason,
        state => panic!("{state:?}"),
    }
}

/// Reads a znode.
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

/// Waits until the znode of this node is ephemeral, has its record, and is not owned by `old_owner`. Returns the time that
/// this took.
pub(crate) async fn until_registered(writer: &Writer, node: &Node, old_owner: i64) -> Duration {
    let (begun, path) = (Instant::now(), znode(&node.id));
    eventually("our record is registered", TIMEOUT, async || {
        read(writer, &path).await.is_some_and(|(data, stat)| {
            data == node.to_record() && stat.is_ephemeral() && stat.ephemeral_owner != old_owner
        })
    })
    .await;
    begun.elapsed()
}

/// Creates an ephemeral znode with the name `id` in the session of the writer, and returns its owner.
pub(crate) async fn hold(writer: &Writer, id: &str, data: String, acl: Vec<Acl>) -> i64 {
    writer.create_path(PATH).await;
    let (path, data) = (znode(id), data.into_bytes());
    let creating = writer.zookeeper.create(&path, data, acl, CreateMode::Ephemeral);
    creating.await.unwrap();
    let stat = writer.zookeeper.exists(&path, false).await.unwrap();
    stat.unwrap().ephemeral_owner
}
