//! Tests with real ZooKeeper servers: paths, records and changes of znodes.

use crate::zk::*;
use e2e::ZooKeeper;
use standin_registry::{NodeState, SourceState, watch};
use zookeeper_async::{Acl, Permission};

#[tokio::test]
async fn changes_of_nodes_and_of_their_records_are_seen_within_a_second() {
    let (_server, writer, watch) = watched(&[]).await;
    // The parent znode does not exist yet. It is created with the first node.
    let in_state = |state| format!(r#"{{"v":1,"id":"n1","client":"10.0.0.1:4222","state":"{state}"}}"#);
    writer.put("n1", &in_state("up")).await;
    in_time(until_live(&watch, &["n1"]).await);
    for state in ["draining", "up", "draining"] {
        writer.put("n1", &in_state(state)).await;
        in_time(until(&watch, state, |snapshot| snapshot.live[0].state.as_str() == state).await);
    }
    assert_eq!(watch.snapshot().live[0].state, NodeState::Draining);
    let nerve = r#"{"host":"10.0.0.2","port":4222,"name":"i-2"}"#;
    writer.put("n2", nerve).await;
    in_time(until_live(&watch, &["i-2", "n1"]).await);
    writer.delete("n1").await;
    in_time(until_live(&watch, &["i-2"]).await);
    // The znode is deleted and created again before it is read. The new record is used.
    writer.delete("n2").await;
    writer.put("n2", "10.0.0.3:4222").await;
    in_time(until_live(&watch, &["10.0.0.3:4222"]).await);
}

#[tokio::test]
async fn a_missing_chroot_is_waited_for() {
    let (server, writer) = started().await;
    let mut config = config(format!("{}/app/blue", server.hosts()));
    config.zookeeper.as_mut().unwrap().path = "/nodes".into();
    let watch = watch(config).unwrap();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    writer.create_path("/app/blue/nodes").await;
    writer.create("/app/blue/nodes/a", "a:1", open()).await.unwrap();
    in_time(until_live(&watch, &["a:1"]).await);
}

#[tokio::test]
async fn the_chroot_itself_can_be_the_parent_of_the_nodes() {
    let (server, writer) = started().await;
    writer.put("a", "a:1").await;
    let mut config = config(format!("{}{PATH}", server.hosts()));
    config.zookeeper.as_mut().unwrap().path = "/".into();
    let watch = watch(config).unwrap();
    until_live(&watch, &["a:1"]).await;
    writer.put("b", "b:1").await;
    in_time(until_live(&watch, &["a:1", "b:1"]).await);
}

#[tokio::test]
async fn nodes_with_an_acl_need_the_digest_credentials_and_other_nodes_are_read_without_them() {
    let (mut server, writer) = started().await;
    writer.create_path("/standin").await;
    writer
        .zookeeper
        .add_auth("digest", b"reader:secret".to_vec())
        .await
        .unwrap();
    let only_us = || vec![Acl::new(Permission::ALL, "auth", "")];
    writer.create(PATH, "", only_us()).await.unwrap();
    writer.create(&znode("a"), "a:1", only_us()).await.unwrap();

    let stranger = watch(config(server.hosts())).unwrap();
    until_health(&stranger, "the refusal is reported", |health| {
        let error = health.zookeeper.last_error.as_deref();
        error.is_some_and(|error| error.contains("digest credentials"))
    })
    .await;
    assert!(stranger.snapshot().is_empty());
    stranger.close().await;

    let mut allowed = config(server.hosts());
    allowed.zookeeper.as_mut().unwrap().digest_auth = Some("reader:secret".into());
    let reader = watch(allowed).unwrap();
    until_live(&reader, &["a:1"]).await;
    // A record of another registrar that may not be read is skipped. The others are read.
    let hidden = vec![only_other(Permission::ALL)];
    writer.create(&znode("b"), "b:1", hidden).await.unwrap();
    writer.create(&znode("c"), "c:1", only_us()).await.unwrap();
    in_time(until_live(&reader, &["a:1", "c:1"]).await);
    until_health(&reader, "one record is skipped", |health| {
        health.zookeeper.skipped == 1
    })
    .await;
    // The credentials are sent again after a reconnect.
    server.kill();
    until_zookeeper_is(&reader, SourceState::Lost).await;
    server.start_again().await;
    until_zookeeper_is(&reader, SourceState::Healthy).await;
    assert_eq!(live(&reader.snapshot()), ["a:1", "c:1"]);
}

#[tokio::test]
async fn a_thousand_children_changed_in_a_burst_are_all_seen() {
    let (_server, writer, watch) = watched(&[]).await;
    writer.put_many("n", 1_000).await;
    in_time(until(&watch, "1,000 live", |snapshot| snapshot.live.len() == 1_000).await);
    writer.delete_many("n", 500).await;
    in_time(until(&watch, "500 live", |snapshot| snapshot.live.len() == 500).await);
}

#[tokio::test]
async fn invalid_records_are_skipped_and_counted_once_and_those_of_other_registrars_are_read() {
    let (server, writer) = started().await;
    for (name, record) in [
        ("garbage", "\u{1}\u{2}no record"),
        ("empty", ""),
        ("plain", "10.0.0.1:4222"),
        ("nerve", r#"{"host":"10.0.0.2","port":4222,"name":"i-2"}"#),
        (
            "stopping",
            r#"{"serviceEndpoint":{"host":"10.0.0.5","port":4222},"status":"STOPPING"}"#,
        ),
    ] {
        writer.put(name, record).await;
    }
    let watch = watch(config(server.hosts())).unwrap();
    let readable = ["10.0.0.1:4222", "i-2"];
    until_live(&watch, &readable).await;
    let skipped = || {
        let health = watch.health().zookeeper;
        (health.skipped, health.skipped_total)
    };
    assert_eq!(skipped(), (2, 2));
    writer.put("more", "10.0.0.6:4222").await;
    until(&watch, "three live", |snapshot| snapshot.live.len() == 3).await;
    assert_eq!(skipped(), (2, 2), "the same garbage is not counted again");
    writer.put("garbage", "other garbage").await;
    until_health(&watch, "changed garbage counts again", |health| {
        health.zookeeper.skipped_total == 3
    })
    .await;
    writer.put("garbage", "10.0.0.7:4222").await;
    until(&watch, "four live", |snapshot| snapshot.live.len() == 4).await;
    assert_eq!(skipped(), (1, 3));
}

#[tokio::test]
async fn children_above_the_limit_are_ignored_and_counted() {
    let server = ZooKeeper::start().await;
    Writer::to(&server).await.put_many("n", 12).await;
    let mut config = config(server.hosts());
    config.nodes_max = 10;
    let watch = watch(config).unwrap();
    until(&watch, "ten live", |snapshot| snapshot.live.len() == 10).await;
    assert_eq!(watch.health().zookeeper.over_limit, 2);
}

#[tokio::test]
async fn new_children_above_the_limit_do_not_displace_known_nodes() {
    let (server, writer) = started().await;
    writer.put("z", "z:1").await;
    let mut config = config(server.hosts());
    config.nodes_max = 10;
    config.zookeeper.as_mut().unwrap().audit_ms = 1_000;
    let watch = watch(config).unwrap();
    until_live(&watch, &["z:1"]).await;
    writer.put_many("n", 20).await;
    until_health(&watch, "eleven are ignored", |health| {
        health.zookeeper.over_limit == 11
    })
    .await;
    assert_eq!(watch.snapshot().live.len(), 10);
    assert!(live(&watch.snapshot()).contains(&"z:1".to_owned()));
}

#[tokio::test]
async fn a_record_above_the_limit_is_read_once_it_is_small() {
    let (server, writer) = started().await;
    writer.put("a", &"[".repeat(100_000)).await;
    let watch = watch(config(server.hosts())).unwrap();
    until_health(&watch, "the record is skipped", |health| {
        health.zookeeper.skipped == 1
    })
    .await;
    writer.put("a", "a:1").await;
    in_time(until_live(&watch, &["a:1"]).await);
    writer.put("a", &"[".repeat(100_000)).await;
    in_time(
        until_health(&watch, "it is skipped again", |health| {
            health.zookeeper.skipped == 1
        })
        .await,
    );
    assert_eq!(watch.health().zookeeper.skipped_total, 2);
}

#[tokio::test]
async fn a_change_that_no_watch_reports_is_found_by_the_audit() {
    let (server, writer) = started().await;
    writer.put("a", "a:1").await;
    let mut config = config(server.hosts());
    let zookeeper = config.zookeeper.as_mut().unwrap();
    zookeeper.audit_ms = 1_000;
    zookeeper.digest_auth = Some("reader:secret".into());
    // No watch reports a change of an ACL. The audit finds the record when it becomes readable.
    let path = znode("b");
    writer.create(&path, "b:1", open()).await.unwrap();
    let change_acl = async |acl| writer.zookeeper.set_acl(&path, acl, None).await.unwrap();
    let admin = Acl::new(Permission::ADMIN, "world", "anyone");
    change_acl(vec![only_other(Permission::ALL), admin]).await;
    let watch = watch(config).unwrap();
    until_live(&watch, &["a:1"]).await;
    change_acl(open()).await;
    until_live(&watch, &["a:1", "b:1"]).await;
}
