//! Tests with real ZooKeeper servers: sessions, outages, the cache file. Some tests need a child process, which is this binary
//! running the test `a_watching_child_process`.

use std::time::{Duration, Instant};

use crate::zk::child::{child_process, hosts_for_a_child};
use crate::zk::leaks::assert_no_resources_remain;
use crate::zk::*;
use e2e::port::free_port;
use e2e::{ZooKeeper, eventually};
use standin_registry::{Source, SourceState, watch};
use tokio::net::TcpListener;

const CHILD: &str = "zookeeper::a_watching_child_process";

#[tokio::test]
async fn a_zookeeper_that_is_down_at_start_is_used_when_it_starts() {
    let mut server = stopped_server().await;
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Lost).await;
    let error = watch.health().zookeeper.last_error.unwrap();
    assert!(error.contains("cannot connect"), "{error}");
    server.start_again().await;
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    let writer = Writer::to(&server).await;
    writer.put("a", "10.0.0.1:4222").await;
    in_time(until_live(&watch, &["10.0.0.1:4222"]).await);
    assert_eq!(watch.snapshot().live[0].source, Source::ZooKeeper);
}

#[tokio::test]
async fn a_reader_can_wait_for_the_first_answer_even_if_it_is_empty() {
    let mut server = stopped_server().await;
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Lost).await;
    let early = tokio::time::timeout(Duration::ZERO, watch.answered()).await;
    assert!(early.is_err(), "no answer yet");
    server.start_again().await;
    for _ in 0..2 {
        let answered = tokio::time::timeout(TIMEOUT, watch.answered()).await;
        assert!(answered.is_ok(), "ZooKeeper has answered");
    }
    assert!(watch.snapshot().is_empty());
    server.kill();
    until_zookeeper_is(&watch, SourceState::Lost).await;
    tokio::time::timeout(TIMEOUT, watch.answered()).await.unwrap();
    watch.close().await;

    server.start_again().await;
    Writer::to(&server).await.put("a", "a:1").await;
    let second = standin_registry::watch(config(server.hosts())).unwrap();
    tokio::time::timeout(TIMEOUT, second.answered()).await.unwrap();
    let included = live(&second.snapshot());
    assert_eq!(included, ["a:1"], "the snapshot includes the answer");
}

#[tokio::test]
async fn a_restart_within_the_session_timeout_keeps_the_list_and_later_changes_are_seen() {
    let (mut server, _, watch) = watched(&["a:1"]).await;
    for round in 0..3 {
        server.kill();
        until_zookeeper_is(&watch, SourceState::Lost).await;
        assert!(
            live(&watch.snapshot()).contains(&"a:1".to_owned()),
            "the last list is used while ZooKeeper is down"
        );
        server.start_again().await;
        until_zookeeper_is(&watch, SourceState::Healthy).await;
        let writer = Writer::to(&server).await;
        let (name, id) = (format!("r{round}"), format!("r{round}:1"));
        writer.put(&name, &id).await;
        in_time(until(&watch, &id, |snapshot| live(snapshot).contains(&id)).await);
    }
    let sessions = watch.health().zookeeper.sessions_total;
    assert_eq!(sessions, 1, "the session was resumed each time");
}

#[tokio::test]
async fn when_zookeeper_loses_its_data_the_nodes_are_cached_and_the_watch_continues() {
    let (mut server, _writer, watch) = watched(&["a:1", "b:1"]).await;
    server.lose_everything().await;
    until_live(&watch, &[]).await;
    assert_eq!(ids(&watch.snapshot().cached), ["a:1", "b:1"]);
    assert_eq!(watch.snapshot().cached[0].source, Source::Cache);
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    Writer::to(&server).await.put("c", "c:1").await;
    in_time(until_live(&watch, &["c:1"]).await);
    assert!(watch.snapshot().cached.is_empty());
}

#[tokio::test]
async fn nodes_are_cached_when_zookeeper_is_emptied_by_mistake() {
    let (_server, writer, watch) = watched(&["a:1", "b:1"]).await;
    writer.delete("a").await;
    until_live(&watch, &["b:1"]).await;
    writer.delete("b").await;
    writer.zookeeper.delete(PATH, None).await.unwrap();
    until_live(&watch, &[]).await;
    let cached = ids(&watch.snapshot().cached);
    assert_eq!(
        cached,
        ["a:1", "b:1"],
        "a node that left shortly before is cached too"
    );
    // The missing path is watched.
    writer.put("c", "c:1").await;
    in_time(until_live(&watch, &["c:1"]).await);
}

#[tokio::test]
async fn a_frozen_server_is_abandoned_within_the_session_timeout() {
    let (mut server, _writer, watch) = watched(&["a:1"]).await;
    server.process().freeze().await;
    let taken = until_zookeeper_is(&watch, SourceState::Lost).await;
    assert!(taken < SESSION, "{taken:?}");
    let error = watch.health().zookeeper.last_error.unwrap();
    assert!(error.contains("no answer within"), "{error}");
    assert_eq!(live(&watch.snapshot()), ["a:1"]);
    server.process().thaw();
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    let writer = Writer::to(&server).await;
    writer.put("b", "b:1").await;
    in_time(until_live(&watch, &["a:1", "b:1"]).await);
}

#[tokio::test]
async fn an_expired_session_of_a_frozen_client_is_replaced_and_all_nodes_are_read_again() {
    let (server, writer) = started().await;
    writer.put("a", "a:1").await;
    let mut child = child_process(CHILD, &server.hosts());
    child.wait_for_line("live a:1", TIMEOUT).await;
    child.freeze().await;
    writer.put("b", "b:1").await;
    writer.delete("a").await;
    // The server expires the session of the frozen client. That of the test remains.
    eventually("the frozen session has expired", TIMEOUT, async || {
        connections(&server).await == Some(1)
    })
    .await;
    child.thaw();
    child.wait_for_line("live b:1", TIMEOUT).await;
    writer.put("c", "c:1").await;
    let begun = Instant::now();
    child.wait_for_line("live b:1 c:1", TIMEOUT).await;
    in_time(begun.elapsed());
}

#[tokio::test]
async fn a_server_that_accepts_and_closes_costs_little_cpu_time() {
    const WATCHED: Duration = Duration::from_secs(30);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let child = child_process(CHILD, &listener.local_addr().unwrap().to_string());
    drop(listener.accept().await.unwrap());
    let (begun, cpu_before, mut connects) = (Instant::now(), child.figures().cpu_time, 1);
    while let Ok(accepted) = tokio::time::timeout_at((begun + WATCHED).into(), listener.accept()).await {
        drop(accepted.unwrap());
        connects += 1;
    }
    let share = (child.figures().cpu_time - cpu_before).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("{connects} connects, {share:.4} of a core in {WATCHED:?}");
    assert!(share < 0.05, "{share} of a core");
    assert!(connects < 2 * WATCHED.as_secs(), "{connects} connects");
    assert!(connects > 3, "the connection must be retried");
}

#[tokio::test]
async fn refusing_silent_and_unresolvable_hosts_do_not_prevent_the_use_of_a_good_one() {
    let server = ZooKeeper::start().await;
    Writer::to(&server).await.put("a", "a:1").await;
    // With a full backlog the kernel drops further SYNs, like a firewall.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    silent.listen(0).unwrap();
    let silent_at = silent.local_addr().unwrap().as_socket().unwrap();
    let _full = tokio::net::TcpStream::connect(silent_at).await.unwrap();
    let second = tokio::net::TcpStream::connect(silent_at);
    let second = tokio::time::timeout(Duration::from_millis(300), second).await;
    assert!(
        second.is_err(),
        "the backlog is not full, so the host is not silent"
    );

    let refusing = format!("127.0.0.1:{}", free_port());
    let hosts = format!(
        "{refusing},{silent_at},no-such-host.invalid:2181,{}",
        server.hosts()
    );
    for _ in 0..6 {
        let watch = watch(config(hosts.clone())).unwrap();
        let taken = until_live(&watch, &["a:1"]).await;
        assert!(taken < Duration::from_secs(5), "{taken:?}");
        watch.close().await;
    }
}

#[test]
fn no_resources_remain_after_the_end_of_a_watch() {
    let folder = tempfile::tempdir().unwrap();
    assert_no_resources_remain(
        "zookeeper::no_resources_remain_after_the_end_of_a_watch",
        async |hosts, waits_for_the_end| {
            let mut config = config(hosts);
            config.dns = vec!["localhost:4222".parse().unwrap()];
            config.cache_file = Some(folder.path().join("cache.json"));
            let watch = watch(config).unwrap();
            until_health(&watch, "the first attempt has ended", |health| {
                health.zookeeper.state != SourceState::Connecting
            })
            .await;
            if waits_for_the_end {
                watch.close().await;
            } else {
                drop(watch);
            }
        },
    );
}

#[tokio::test]
async fn a_cold_start_with_zookeeper_down_uses_the_cache_file() {
    let mut server = ZooKeeper::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(server.hosts());
    config.cache_file = Some(folder.path().join("cache.json"));
    config.fixed = vec!["nats://old:4222".parse().unwrap()];
    let writer = Writer::to(&server).await;
    let record = r#"{"v":1,"id":"n1","client":"a:1","zone":"z"}"#;
    writer.put("n1", record).await;
    let warm = watch(config.clone()).unwrap();
    until_live(&warm, &["n1"]).await;
    let info = "INFO {\"server_id\":\"x\"}";
    warm.remember_info(info.into());
    warm.close().await;
    server.kill();

    let cold = watch(config.clone()).unwrap();
    let first = cold.snapshot();
    assert!(first.live.is_empty());
    assert_eq!(ids(&first.cached), ["n1"]);
    assert_eq!(ids(&first.fixed), ["old:4222"]);
    assert_eq!(&*first.cached[0].zone, "z");
    assert_eq!(cold.remembered_info().as_deref(), Some(info));
    server.start_again().await;
    until_live(&cold, &["n1"]).await;
    assert!(cold.snapshot().cached.is_empty());
    cold.close().await;

    std::fs::write(folder.path().join("cache.json"), "{ damaged").unwrap();
    let damaged = watch(config).unwrap();
    assert!(damaged.snapshot().cached.is_empty());
    assert!(damaged.health().cache_error.unwrap().contains("damaged"));
    until_live(&damaged, &["n1"]).await;
    until_health(&damaged, "the file is replaced", |health| {
        health.cache_error.is_none()
    })
    .await;
}

#[tokio::test]
async fn new_settings_take_effect_without_losing_the_last_list() {
    let (first, _writer, watch) = watched(&["a:1"]).await;
    let mut second = stopped_server().await;
    let mut wrong = config(first.hosts());
    wrong.zookeeper.as_mut().unwrap().session_timeout_ms = 1;
    assert_eq!(watch.reconfigure(wrong).unwrap_err().kind(), "setting");
    let mut moved = config(second.hosts());
    moved.fixed = vec!["old:4222".parse().unwrap()];
    watch.reconfigure(moved).unwrap();
    until(&watch, "the fixed node is known", |snapshot| {
        !snapshot.fixed.is_empty()
    })
    .await;
    until_zookeeper_is(&watch, SourceState::Lost).await;
    assert_eq!(live(&watch.snapshot()), ["a:1"]);
    second.start_again().await;
    Writer::to(&second).await.put("b", "b:1").await;
    until_live(&watch, &["b:1"]).await;
}

/// Not a test, but the child process of a test. Does nothing without the environment variable.
#[tokio::test]
async fn a_watching_child_process() {
    let Some(hosts) = hosts_for_a_child() else { return };
    let mut watch = watch(config(hosts)).unwrap();
    loop {
        // The test runner may have written the beginning of a line.
        println!("\nlive {}", live(&watch.snapshot()).join(" "));
        watch.changed().await;
    }
}
