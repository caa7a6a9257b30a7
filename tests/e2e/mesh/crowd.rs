//! Many clients on a node that dies, and many faults: all nodes quickly forget the interest of dead nodes and clients, and nothing leaks.

use std::time::{Duration, Instant};

use e2e::raw::CONNECT_OLD;
use e2e::{Figures, Ledger, Mesh, RawClient, ServerKind, TIMEOUT, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const CROWD: usize = 10_000;

/// Connects a client with three subscriptions: its own subject, one common to all, and a queue group. Returns when all nodes have its
/// interest.
async fn arrive(address: std::net::SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let line = format!(
        "{CONNECT_OLD}\r\nSUB crowd.{number} 1\r\nSUB all.* 2\r\nSUB group.{} q 3\r\nPING\r\n",
        number % 10
    );
    stream.write_all(line.as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    while !received.windows(6).any(|bytes| bytes == b"PONG\r\n") {
        let read = timeout(TIMEOUT, stream.read_buf(&mut received)).await;
        assert!(read.expect("in time").expect("connected") > 0);
    }
    stream
}

async fn crowd_on(mesh: &Mesh, node: usize) -> Vec<TcpStream> {
    let mut arriving = JoinSet::new();
    for number in 0..CROWD {
        arriving.spawn(arrive(mesh.nodes[node].address(), number));
    }
    arriving.join_all().await
}

async fn subscriptions_are(mesh: &Mesh, nodes: &[usize], count: u64, timeout: Duration) {
    for node in nodes {
        eventually(
            format!("node {node} knows {count} subscriptions"),
            timeout,
            async || mesh.nodes[*node].num_subscriptions().await == Some(count),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_interest_of_ten_thousand_clients_disappears_everywhere_when_their_node_is_killed() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut watchers = [mesh.nodes[0].client().await, mesh.nodes[1].client().await];
    let survivors: [Figures; 2] = [mesh.nodes[0].figures(), mesh.nodes[1].figures()];
    for round in 1..=3 {
        let crowd = crowd_on(&mesh, 2).await;
        // The subject of each client, the one common to all, and ten groups.
        let known = CROWD as u64 + 1 + 10;
        // Each client has its PONG, so the interest is complete.
        for index in [0, 1] {
            assert_eq!(
                mesh.nodes[index].num_subscriptions().await,
                Some(known),
                "round {round}"
            );
        }
        let before = mesh.nodes[2].messages_from_links().await;
        for watcher in &mut watchers {
            watcher.publish("all.x", "hi").await;
            watcher.flush().await;
        }
        eventually("each message is sent once over the route", TIMEOUT, async || {
            mesh.nodes[2].messages_from_links().await == before + 2
        })
        .await;
        mesh.nodes[2].kill();
        let start = Instant::now();
        subscriptions_are(&mesh, &[0, 1], 0, Duration::from_secs(3)).await;
        eprintln!("{known} subscriptions gone after {:?}", start.elapsed());
        drop(crowd);
        mesh.wait_until_whole().await;
        mesh.nodes[2].restart().await;
        mesh.wait_until_agreed().await;
    }
    // Now the clients die and their node stays.
    let crowd = crowd_on(&mesh, 2).await;
    for stream in crowd {
        stream.set_zero_linger().expect("a socket");
        drop(stream);
    }
    subscriptions_are(&mesh, &[0, 1, 2], 0, TIMEOUT).await;
    mesh.wait_until_agreed().await;
    for (index, before) in survivors.iter().enumerate() {
        uses_no_more_than(&mesh, index, before).await;
    }
}

/// Checks that a node has as many threads as before, no more open files, and not much more memory (the allocator keeps some).
async fn uses_no_more_than(mesh: &Mesh, node: usize, before: &Figures) {
    eventually(
        format!("node {node} uses no more threads and files than before: {before:?}"),
        TIMEOUT,
        async || {
            let now = mesh.nodes[node].figures();
            now.threads == before.threads && now.open_files <= before.open_files
        },
    )
    .await;
    let now = mesh.nodes[node].figures();
    eprintln!("node {node}: {before:?} before, {now:?} after");
    assert!(
        now.resident_kib < before.resident_kib + 16 * 1024,
        "memory grew: {before:?}, now {now:?}"
    );
}

/// The faults are kills, restarts, freezes and orderly stops.
#[tokio::test]
async fn after_many_faults_the_survivors_agree_and_use_no_more_memory_and_files() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 4)
        .setting("cluster.ping_interval_ms", 100)
        .setting("cluster.ping_timeout_ms", 200)
        .start()
        .await;
    let mut subscribers = Vec::new();
    for index in [0, 1] {
        subscribers.push(mesh.nodes[index].subscriber("all").await);
    }
    let before = [mesh.nodes[0].figures(), mesh.nodes[1].figures()];
    for round in 0..4 {
        let mut short_lived: RawClient = mesh.nodes[2].client().await;
        short_lived
            .send("SUB all 1\r\nSUB some.* 2\r\nSUB all q 3\r\n")
            .await;
        short_lived.flush().await;
        if round % 2 == 0 {
            mesh.nodes[2].kill();
        } else {
            drop(short_lived);
            assert!(mesh.nodes[2].stop(TIMEOUT).await.success());
        }
        let mark = mesh.nodes[0].process().mark();
        mesh.nodes[3].freeze().await;
        mesh.nodes[0].logs_after(mark, "the route with n4 is lost").await;
        mesh.wait_until_agreed().await;
        mesh.nodes[2].restart().await;
        mesh.nodes[3].thaw();
        mesh.wait_until_agreed().await;
    }
    let mut ledger = Ledger::new();
    for index in 0..4 {
        let mut publisher = mesh.nodes[index].client().await;
        ledger
            .publish(&mut publisher, &format!("p{index}"), "all", 25)
            .await;
        publisher.flush().await;
        publisher.close().await;
    }
    for (index, subscriber) in subscribers.iter_mut().enumerate() {
        ledger.reaches(subscriber, format!("subscriber {index}")).await;
    }
    for (index, before) in before.iter().enumerate() {
        uses_no_more_than(&mesh, index, before).await;
    }
}
