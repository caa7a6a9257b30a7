//! Tests with real ZooKeeper servers: paths, records and changes of znodes.

use std::time::Duration;

use crate::zk::*;
use standin_registry::{NodeState, SourceState, ZooKeeperConfig, watch};
use zookeeper_async::{Acl, CreateMode, Permission};

/// Promised maximum time from a change in ZooKeeper to the snapshot with it.
const PROMISED: Duration = Duration::from_secs(1);

#[tokio::test]
async fn changes_of_nodes_and_of_their_records_are_seen_within_a_second() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    // The parent znode does not exist yet. It is created with the first node.
    writer
        .put("n1", r#"{"v":1,"id":"n1","client":"10.0.0.1:4222","state":"up"}"#)
        .await;
    assert!(until_live(&watch, &["n1"]).await < PROMISED);
    for state in ["draining", "up", "draining"] {
        writer
            .put(
                "n1",
                &format!(r#"{{"v":1,"id":"n1","client":"10.0.0.1:4222","state":"{state}"}}"#),
            )
            .await;
        let taken = until(&watch, state, |snapshot| snapshot.live[0].state.as_str() == state).await;
        assert!(taken < PROMISED, "{taken:?}");
    }
    assert_eq!(watch.snapshot().live[0].state, NodeState::Draining);
    writer
        .put("n2", r#"{"host":"10.0.0.2","port":4222,"name":"i-2"}"#)
        .await;
    assert!(until_live(&watch, &["i-2", "n1"]).await < PROMISED);
    writer.delete("n1").await;
    assert!(until_live(&watch, &["i-2"]).await < PROMISED);
    // Deleted and created again before it was read. The new record is used.
    writer.delete("n2").await;
    writer.put("n2", "10.0.0.3:4222").await;
    assert!(until_live(&watch, &["10.0.0.3:4222"]).await < PROMISED);
    watch.close().await;
}

#[tokio::test]
async fn a_missing_chroot_is_waited_for() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let mut config = config(format!("{}/app/blue", server.hosts()));
    config.zookeeper.as_mut().unwrap().path = "/nodes".into();
    let watch = watch(config).unwrap();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    writer.create_path("/app/blue/nodes").await;
    let path = "/app/blue/nodes/a";
    writer
        .zookeeper
        .create(
            path,
            b"a:1".to_vec(),
            Acl::open_unsafe().clone(),
            CreateMode::Persistent,
        )
        .await
        .unwrap();
    assert!(until_live(&watch, &["a:1"]).await < PROMISED);
    watch.close().await;
}

#[tokio::test]
async fn the_chroot_itself_can_be_the_parent_of_the_nodes() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    let mut config = config(format!("{}{PATH}", server.hosts()));
    config.zookeeper.as_mut().unwrap().path = "/".into();
    let watch = watch(config).unwrap();
    until_live(&watch, &["a:1"]).await;
    writer.put("b", "b:1").await;
    assert!(until_live(&watch, &["a:1", "b:1"]).await < PROMISED);
    watch.close().await;
}

#[tokio::test]
async fn nodes_with_an_acl_need_the_digest_credentials_and_other_nodes_are_read_without_them() {
    let mut server = Server::started().await;
    let writer = server.writer().await;
    writer.create_path("/standin").await;
    writer
        .zookeeper
        .add_auth("digest", b"reader:secret".to_vec())
        .await
        .unwrap();
    let only_us = || vec![Acl::new(Permission::ALL, "auth", "")];
    let create = async |path: &str, data: &str, acl| {
        writer
            .zookeeper
            .create(path, data.into(), acl, CreateMode::Persistent)
            .await
            .unwrap();
    };
    create(PATH, "", only_us()).await;
    create(&format!("{PATH}/a"), "a:1", only_us()).await;

    let stranger = watch(config(server.hosts())).unwrap();
    until_health(&stranger, "the refusal is reported", |health| {
        health
            .zookeeper
            .last_error
            .as_deref()
            .is_some_and(|error| error.contains("digest credentials"))
    })
    .await;
    assert!(stranger.snapshot().is_empty());
    stranger.close().await;

    let mut allowed = config(server.hosts());
    allowed.zookeeper.as_mut().unwrap().digest_auth = Some("reader:secret".into());
    let reader = watch(allowed).unwrap();
    until_live(&reader, &["a:1"]).await;
    // A record of another registrar that may not be read is skipped. The others are read.
    create(
        &format!("{PATH}/b"),
        "b:1",
        vec![Acl::new(
            Permission::ALL,
            "digest",
            "other:aaaaaaaaaaaaaaaaaaaaaaaaaaa=",
        )],
    )
    .await;
    create(&format!("{PATH}/c"), "c:1", only_us()).await;
    assert!(until_live(&reader, &["a:1", "c:1"]).await < PROMISED);
    until_health(&reader, "one is skipped", |health| health.zookeeper.skipped == 1).await;
    // The credentials are sent again after a reconnect.
    server.kill().await;
    until_zookeeper_is(&reader, SourceState::Lost).await;
    server.start().await;
    until_zookeeper_is(&reader, SourceState::Healthy).await;
    assert_eq!(live(&reader.snapshot()), ["a:1", "c:1"]);
    reader.close().await;
}

#[tokio::test]
async fn a_thousand_children_changed_in_a_burst_are_all_seen() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    writer.put_many("n", 1_000).await;
    let taken = until(&watch, "1,000 live", |snapshot| snapshot.live.len() == 1_000).await;
    assert!(taken < PROMISED, "{taken:?} after 1,000 came");
    writer.delete_many("n", 500).await;
    let taken = until(&watch, "500 live", |snapshot| snapshot.live.len() == 500).await;
    assert!(taken < PROMISED, "{taken:?} after 500 went");
    watch.close().await;
}

#[tokio::test]
async fn invalid_records_are_skipped_and_counted_once_and_those_of_other_registrars_are_read() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("garbage", "\u{1}\u{2}no record").await;
    writer.put("empty", "").await;
    writer.put("plain", "10.0.0.1:4222").await;
    writer
        .put("nerve", r#"{"host":"10.0.0.2","port":4222,"name":"i-2"}"#)
        .await;
    writer
        .put(
            "curator",
            r#"{"name":"nats","id":"u","address":"10.0.0.3","port":null,"sslPort":4443,"payload":null}"#,
        )
        .await;
    writer
        .put(
            "serverset",
            r#"{"serviceEndpoint":{"host":"10.0.0.4","port":4222},"status":"ALIVE","shard":0}"#,
        )
        .await;
    writer
        .put(
            "stopping",
            r#"{"serviceEndpoint":{"host":"10.0.0.5","port":4222},"status":"STOPPING"}"#,
        )
        .await;
    let watch = watch(config(server.hosts())).unwrap();
    until_live(
        &watch,
        &["10.0.0.1:4222", "10.0.0.3:4443", "10.0.0.4:4222", "i-2"],
    )
    .await;
    let skipped = || {
        (
            watch.health().zookeeper.skipped,
            watch.health().zookeeper.skipped_total,
        )
    };
    assert_eq!(skipped(), (2, 2));
    writer.put("more", "10.0.0.6:4222").await;
    until(&watch, "five", |snapshot| snapshot.live.len() == 5).await;
    assert_eq!(skipped(), (2, 2), "the same garbage is not counted again");
    writer.put("garbage", "other garbage").await;
    until_health(&watch, "changed garbage counts again", |health| {
        health.zookeeper.skipped_total == 3
    })
    .await;
    writer.put("garbage", "10.0.0.7:4222").await;
    until(&watch, "six", |snapshot| snapshot.live.len() == 6).await;
    assert_eq!(skipped(), (1, 3));
    watch.close().await;
}

#[tokio::test]
async fn children_above_the_limit_are_ignored_and_counted() {
    let server = Server::started().await;
    server.writer().await.put_many("n", 12).await;
    let mut config = config(server.hosts());
    config.nodes_max = 10;
    let watch = watch(config).unwrap();
    until(&watch, "ten", |snapshot| snapshot.live.len() == 10).await;
    assert_eq!(watch.health().zookeeper.over_limit, 2);
    watch.close().await;
}

#[tokio::test]
async fn a_change_that_no_watch_reports_is_found_by_the_audit() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    let mut config = config(server.hosts());
    let zookeeper = config.zookeeper.as_mut().unwrap();
    *zookeeper = ZooKeeperConfig {
        audit_ms: 1_000,
        ..zookeeper.clone()
    };
    zookeeper.digest_auth = Some("reader:secret".into());
    // No watch reports a change of an ACL. The audit finds the record when it becomes readable.
    let hidden = vec![Acl::new(
        Permission::ALL,
        "digest",
        "other:aaaaaaaaaaaaaaaaaaaaaaaaaaa=",
    )];
    let path = format!("{PATH}/b");
    writer
        .zookeeper
        .create(
            &path,
            b"b:1".to_vec(),
            Acl::open_unsafe().clone(),
            CreateMode::Persistent,
        )
        .await
        .unwrap();
    writer
        .zookeeper
        .set_acl(
            &path,
            [hidden, vec![Acl::new(Permission::ADMIN, "world", "anyone")]].concat(),
            None,
        )
        .await
        .unwrap();
    let watch = watch(config).unwrap();
    until_live(&watch, &["a:1"]).await;
    writer
        .zookeeper
        .set_acl(&path, Acl::open_unsafe().clone(), None)
        .await
        .unwrap();
    until_live(&watch, &["a:1", "b:1"]).await;
    watch.close().await;
}
