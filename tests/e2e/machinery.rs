//! Tests of the harness around real peers: started, killed, frozen, cut off, and gone at the end.

use e2e::raw::CONNECT_NEW;
use e2e::{Cluster, NetnsPair, Program, RawClient, Record, ZooKeeper, eventually};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_process_is_gone_when_it_is_dropped() {
    let mut sleeper = Program::new("sh")
        .args(["-c", "echo here; echo there >&2; exec sleep 1000"])
        .start("sleeper");
    sleeper.wait_for_line("here", TIMEOUT).await;
    sleeper.wait_for_line("there", TIMEOUT).await;
    let proc_folder = format!("/proc/{}", sleeper.pid());
    assert!(std::path::Path::new(&proc_folder).exists());
    assert!(sleeper.resident_kib() > 0);
    drop(sleeper);
    assert!(!std::path::Path::new(&proc_folder).exists());
}

#[tokio::test]
async fn zookeeper_holds_registrations_as_long_as_their_session() {
    let mut zookeeper = ZooKeeper::start().await;
    // This session survives a restart of the server also on a busy machine. Without maxSessionTimeout the server would grant 10 s.
    let mut operator = zookeeper.registrar_with_timeout(Duration::from_secs(60)).await;
    let mut node = zookeeper.registrar().await;
    let address: SocketAddr = ([127, 0, 0, 1], 4222).into();
    for (id, record) in [
        ("plain", Record::Plain),
        ("nerve", Record::Nerve),
        ("curator", Record::Curator),
    ] {
        node.announce(record, id, address).await;
    }
    assert_eq!(
        operator.children("/standin/nodes").await,
        ["curator", "nerve", "plain"]
    );
    assert_eq!(operator.get("/standin/nodes/plain").await, "127.0.0.1:4222");
    node.withdraw("plain").await;
    assert_eq!(operator.children("/standin/nodes").await, ["curator", "nerve"]);

    node.close().await;
    assert_eq!(operator.children("/standin/nodes").await, [""; 0]);

    let mut node = zookeeper.registrar().await;
    node.announce(Record::Own, "n1", address).await;
    node.crash();
    assert_eq!(
        operator.children("/standin/nodes").await,
        ["n1"],
        "the ephemeral znode stays until the session timeout"
    );
    eventually("the crashed session times out", TIMEOUT, async || {
        operator.children("/standin/nodes").await.is_empty()
    })
    .await;

    operator.put("/standin/nodes/kept", "1.2.3.4:4222").await;
    zookeeper.kill();
    zookeeper.start_again().await;
    eventually(
        "the session and its data are there after a restart",
        TIMEOUT,
        async || operator.children("/standin/nodes").await == ["kept"],
    )
    .await;
    operator.wipe().await;
    assert_eq!(operator.children("/standin/nodes").await, [""; 0]);
}

#[tokio::test]
async fn zookeeper_that_lost_everything_starts_empty() {
    let mut zookeeper = ZooKeeper::start().await;
    zookeeper
        .registrar()
        .await
        .put("/standin/nodes/n1", "127.0.0.1:4222")
        .await;
    zookeeper.lose_everything().await;
    assert_eq!(
        zookeeper.registrar().await.children("/standin/nodes").await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_cluster_passes_messages_and_survives_a_kill_and_a_freeze() {
    let mut cluster = Cluster::start(3).await;
    let mut subscriber = RawClient::open(cluster.nodes[0].address()).await;
    subscriber.subscribe("a", "1").await;
    subscriber.flush().await;

    cluster.kill(1);
    assert!(
        tokio::net::TcpStream::connect(cluster.nodes[1].address())
            .await
            .is_err(),
        "a killed node accepted a connection"
    );
    cluster.restart(1).await;
    let mut publisher = RawClient::open_with(cluster.nodes[1].address(), CONNECT_NEW).await;
    eventually("the restarted node has the interest", TIMEOUT, async || {
        publisher.publish("a", "x").await;
        publisher.flush().await;
        !subscriber.flush().await.is_empty()
    })
    .await;

    cluster.nodes[1].process().freeze().await;
    publisher.send("PING\r\n").await;
    publisher.expect_silence(Duration::from_millis(300)).await;
    cluster.nodes[1].process().thaw();
    publisher.expect_line("PONG").await;

    cluster.nodes[1].enter_lame_duck();
    publisher.read_until("INFO").await;
}

#[tokio::test]
async fn a_connection_over_a_cut_cable_is_silent_and_works_after_the_repair() {
    let machines = NetnsPair::new();
    let mut cluster = Cluster::builder(1).inside(&machines.far).start().await;
    let address = cluster.nodes[0].address();
    let mut stream = machines.near.connect(address).await.expect("the cable works");
    let mut buffer = vec![0; 4096];
    let count = stream.read(&mut buffer).await.expect("INFO");
    assert!(buffer[..count].starts_with(b"INFO "));

    machines.cut();
    stream
        .write_all(b"CONNECT {}\r\nPING\r\n")
        .await
        .expect("the kernel takes it");
    let silent = timeout(Duration::from_millis(400), stream.read(&mut buffer)).await;
    assert!(silent.is_err(), "something arrived over a cut cable");
    machines.heal();
    timeout(TIMEOUT, stream.read(&mut buffer))
        .await
        .expect("retransmitted")
        .expect("the cable works");
    assert!(cluster.nodes[0].process().is_running());
}
