//! The registry against real ZooKeeper servers: what the session's thread promises, each promise once. The
//! child processes that some tests need are this binary again, in the role of `a_watching_child_process`.

use std::time::{Duration, Instant};

use crate::zk::child::{ChildProcess, hosts_for_a_child};
use crate::zk::leaks::nothing_is_left_behind;
use crate::zk::*;
use nix::sys::signal::Signal;
use standin_registry::{Source, SourceState, watch};
use tokio::net::TcpListener;

/// The promise: a change reaches the snapshot within this of ZooKeeper knowing it.
const PROMISED: Duration = Duration::from_secs(1);
const CHILD: &str = "zookeeper::a_watching_child_process";

#[tokio::test]
async fn a_zookeeper_that_is_down_at_start_is_found_when_it_comes() {
    let mut server = Server::new();
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Lost).await;
    assert!(
        watch
            .health()
            .zookeeper
            .last_error
            .unwrap()
            .contains("cannot connect")
    );
    server.start().await;
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    let writer = server.writer().await;
    writer.put("a", "10.0.0.1:4222").await;
    assert!(until_live(&watch, &["10.0.0.1:4222"]).await < PROMISED);
    assert_eq!(watch.snapshot().live[0].source, Source::ZooKeeper);
    watch.close().await;
}

#[tokio::test]
async fn a_reader_can_wait_for_the_first_answer_an_empty_one_too() {
    let mut server = Server::new();
    let watch = watch(config(server.hosts())).unwrap();
    until_zookeeper_is(&watch, SourceState::Lost).await;
    let early = tokio::time::timeout(Duration::ZERO, watch.answered()).await;
    assert!(early.is_err(), "nobody has answered yet");
    server.start().await;
    for _ in 0..2 {
        let answered = tokio::time::timeout(PATIENCE, watch.answered()).await;
        assert!(answered.is_ok(), "the second time at once");
    }
    assert!(watch.snapshot().is_empty());
    server.kill().await;
    until_zookeeper_is(&watch, SourceState::Lost).await;
    tokio::time::timeout(PATIENCE, watch.answered()).await.unwrap();
    watch.close().await;

    server.start().await;
    server.writer().await.put("a", "a:1").await;
    let second = standin_registry::watch(config(server.hosts())).unwrap();
    tokio::time::timeout(PATIENCE, second.answered()).await.unwrap();
    assert_eq!(live(&second.snapshot()), ["a:1"], "what was answered is shown");
    second.close().await;
}

#[tokio::test]
async fn a_restart_within_the_session_keeps_the_list_and_then_shows_what_changed_meanwhile() {
    let mut server = Server::started().await;
    server.writer().await.put("a", "a:1").await;
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["a:1"]).await;
    for round in 0..3 {
        server.kill().await;
        until_zookeeper_is(&watch, SourceState::Lost).await;
        assert!(
            live(&watch.snapshot()).contains(&"a:1".to_owned()),
            "the last list counts while ZooKeeper is lost"
        );
        server.start().await;
        until_zookeeper_is(&watch, SourceState::Healthy).await;
        let writer = server.writer().await;
        let (name, id) = (format!("r{round}"), format!("r{round}:1"));
        writer.put(&name, &id).await;
        let taken = until(&watch, &id, |snapshot| live(snapshot).contains(&id)).await;
        assert!(taken < PROMISED, "{taken:?} right after a reconnect");
    }
    assert_eq!(watch.health().zookeeper.sessions_total, 1, "each time continued");
    watch.close().await;
}

#[tokio::test]
async fn wiped_data_move_the_nodes_to_the_cached_list_and_the_watch_goes_on() {
    let mut server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    writer.put("b", "b:1").await;
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["a:1", "b:1"]).await;
    server.kill().await;
    server.wipe();
    server.start().await;
    until_live(&watch, &[]).await;
    assert_eq!(ids(&watch.snapshot().cached), ["a:1", "b:1"]);
    assert_eq!(watch.snapshot().cached[0].source, Source::Cache);
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    server.writer().await.put("c", "c:1").await;
    assert!(until_live(&watch, &["c:1"]).await < PROMISED);
    assert!(watch.snapshot().cached.is_empty());
    watch.close().await;
}

#[tokio::test]
async fn a_zookeeper_emptied_by_mistake_erases_nothing() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    writer.put("b", "b:1").await;
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["a:1", "b:1"]).await;
    writer.delete("a").await;
    until_live(&watch, &["b:1"]).await;
    writer.delete("b").await;
    writer.zookeeper.delete(PATH, None).await.unwrap();
    until_live(&watch, &[]).await;
    assert_eq!(
        ids(&watch.snapshot().cached),
        ["a:1", "b:1"],
        "who was there shortly before the end too"
    );
    writer.put("c", "c:1").await;
    assert!(
        until_live(&watch, &["c:1"]).await < PROMISED,
        "the path is watched for its return"
    );
    watch.close().await;
}

#[tokio::test]
async fn a_frozen_server_is_given_up_within_the_session_timeout() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["a:1"]).await;
    server.signal(Signal::SIGSTOP);
    let taken = until_zookeeper_is(&watch, SourceState::Lost).await;
    assert!(taken < Duration::from_millis(4_000), "{taken:?}");
    assert_eq!(live(&watch.snapshot()), ["a:1"]);
    server.signal(Signal::SIGCONT);
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    let writer = server.writer().await;
    writer.put("b", "b:1").await;
    assert!(until_live(&watch, &["a:1", "b:1"]).await < PROMISED);
    watch.close().await;
}

#[tokio::test]
async fn an_expired_session_of_a_frozen_client_is_replaced_and_all_is_read_again() {
    let server = Server::started().await;
    let writer = server.writer().await;
    writer.put("a", "a:1").await;
    let mut child = ChildProcess::start(CHILD, &server.hosts());
    child.until("live a:1").await;
    child.signal(Signal::SIGSTOP);
    writer.put("b", "b:1").await;
    writer.delete("a").await;
    // The test's own client stays, the frozen one is expired by the server.
    eventually("the frozen session has expired", async || {
        server.connections().await == Some(1)
    })
    .await;
    child.signal(Signal::SIGCONT);
    child.until("live b:1").await;
    writer.put("c", "c:1").await;
    let taken = child.until("live b:1 c:1").await;
    assert!(taken < PROMISED, "{taken:?}");
}

#[tokio::test]
async fn a_member_that_accepts_and_closes_costs_next_to_nothing() {
    const WATCHED: Duration = Duration::from_secs(30);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let child = ChildProcess::start(CHILD, &listener.local_addr().unwrap().to_string());
    drop(listener.accept().await.unwrap());
    let (begun, cpu_before, mut connects) = (Instant::now(), child.cpu(), 1);
    while let Ok(accepted) = tokio::time::timeout_at((begun + WATCHED).into(), listener.accept()).await {
        drop(accepted.unwrap());
        connects += 1;
    }
    let share = (child.cpu() - cpu_before).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!(
        "{connects} connects, {:.2} % of a core in {WATCHED:?}",
        share * 100.0
    );
    assert!(share < 0.05, "{share} of a core");
    assert!(connects < 2 * WATCHED.as_secs(), "{connects} connects");
    assert!(connects > 3, "it has to be tried again");
}

#[tokio::test]
async fn dead_silent_and_unresolvable_hosts_do_not_keep_it_from_the_good_one() {
    let server = Server::started().await;
    server.writer().await.put("a", "a:1").await;
    // A full backlog: the kernel drops further SYNs, as a firewall would.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    silent.listen(0).unwrap();
    let silent_at = silent.local_addr().unwrap().as_socket().unwrap();
    let _full = tokio::net::TcpStream::connect(silent_at).await.unwrap();
    let refused = tokio::time::timeout(
        Duration::from_millis(300),
        tokio::net::TcpStream::connect(silent_at),
    )
    .await;
    assert!(
        refused.is_err(),
        "the backlog is not full, the test would show nothing"
    );

    let dead = format!("127.0.0.1:{}", free_port());
    let hosts = format!("{dead},{silent_at},no-such-host.invalid:2181,{}", server.hosts());
    for _ in 0..6 {
        let watch = watch(config(hosts.clone())).unwrap();
        let taken = until_live(&watch, &["a:1"]).await;
        assert!(taken < Duration::from_secs(5), "{taken:?}");
        watch.close().await;
    }
}

#[test]
fn nothing_is_left_behind_when_it_is_dropped_or_closed() {
    let folder = tempfile::tempdir().unwrap();
    nothing_is_left_behind(
        "zookeeper::nothing_is_left_behind_when_it_is_dropped_or_closed",
        async |hosts, is_closed| {
            let mut config = config(hosts);
            config.dns = vec!["localhost:4222".parse().unwrap()];
            config.cache_file = Some(folder.path().join("cache.json"));
            let watch = watch(config).unwrap();
            until_health(&watch, "asked", |health| {
                health.zookeeper.state != SourceState::Connecting
            })
            .await;
            if is_closed {
                watch.close().await;
            } else {
                drop(watch);
            }
        },
    );
}

#[tokio::test]
async fn a_cold_start_with_zookeeper_down_serves_from_the_cache_file() {
    let mut server = Server::started().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(server.hosts());
    config.cache_file = Some(folder.path().join("cache.json"));
    config.fixed = vec!["nats://old:4222".parse().unwrap()];
    let writer = server.writer().await;
    writer
        .put("n1", r#"{"v":1,"id":"n1","client":"a:1","zone":"z"}"#)
        .await;
    let warm = watch(config.clone()).unwrap();
    until_live(&warm, &["n1"]).await;
    warm.remember_info("INFO {\"server_id\":\"x\"}".into());
    warm.close().await;
    server.kill().await;

    let cold = watch(config.clone()).unwrap();
    let first = cold.snapshot();
    assert_eq!(
        (live(&first), ids(&first.cached), ids(&first.fixed)),
        (vec![], vec!["n1".into()], vec!["old:4222".into()])
    );
    assert_eq!(&*first.cached[0].zone, "z");
    assert_eq!(
        cold.remembered_info().as_deref(),
        Some("INFO {\"server_id\":\"x\"}")
    );
    server.start().await;
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
    damaged.close().await;
}

#[tokio::test]
async fn new_settings_are_taken_over_without_losing_the_last_good_list() {
    let (first, second) = (Server::started().await, Server::new());
    first.writer().await.put("a", "a:1").await;
    let watch = watch(config(first.hosts())).unwrap();
    until_live(&watch, &["a:1"]).await;
    let mut wrong = config(first.hosts());
    wrong.zookeeper.as_mut().unwrap().session_timeout_ms = 1;
    assert_eq!(watch.reconfigure(wrong).unwrap_err().kind(), "setting");
    let mut moved = config(second.hosts());
    moved.fixed = vec!["old:4222".parse().unwrap()];
    watch.reconfigure(moved).unwrap();
    until(&watch, "the fixed one is known", |snapshot| {
        !snapshot.fixed.is_empty()
    })
    .await;
    until_zookeeper_is(&watch, SourceState::Lost).await;
    assert_eq!(live(&watch.snapshot()), ["a:1"]);
    let mut second = second;
    second.start().await;
    second.writer().await.put("b", "b:1").await;
    until_live(&watch, &["b:1"]).await;
    watch.close().await;
}

/// Not a test but the role of the child process; without the variable there is nothing to do.
#[tokio::test]
async fn a_watching_child_process() {
    let Some(hosts) = hosts_for_a_child() else { return };
    let mut watch = watch(config(hosts)).unwrap();
    loop {
        // The test runner may have begun a line.
        println!("\nlive {}", live(&watch.snapshot()).join(" "));
        watch.changed().await;
    }
}
