//! Many clients on a node that dies, faults again and again: what is gone is gone everywhere, quickly, and nothing is left behind.

use std::time::{Duration, Instant};

use e2e::raw::CONNECT_OLD;
use e2e::{Figures, Ledger, Maker, Mesh, PATIENCE, RawClient, Receipts, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const CROWD: usize = 10_000;

/// A client with subjects of its own, and one that all have; returns when all nodes know.
async fn arrive(address: std::net::SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("served");
    let line = format!(
        "{CONNECT_OLD}\r\nSUB crowd.{number} 1\r\nSUB all.* 2\r\nSUB group.{} q 3\r\nPING\r\n",
        number % 10
    );
    stream.write_all(line.as_bytes()).await.expect("taken");
    let mut heard = Vec::new();
    while !heard.windows(6).any(|bytes| bytes == b"PONG\r\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        assert!(read.expect("in time").expect("served") > 0);
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

async fn subscriptions_are(mesh: &Mesh, nodes: &[usize], count: u64, patience: Duration) {
    for node in nodes {
        eventually(
            format!("node {node} knows {count} subscriptions"),
            patience,
            async || mesh.nodes[*node].num_subscriptions().await == Some(count),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_with_a_crowd_on_it_takes_their_interest_along_everywhere_and_at_once() {
    let mut mesh = Mesh::start(Maker::Ours, 3).await;
    let mut watchers = [mesh.nodes[0].client().await, mesh.nodes[1].client().await];
    let survivors: [Figures; 2] = [mesh.nodes[0].figures(), mesh.nodes[1].figures()];
    for round in 1..=3 {
        let crowd = crowd_on(&mesh, 2).await;
        // Each subject of its own, the one of all, ten groups.
        let known = CROWD as u64 + 1 + 10;
        // Each of the crowd has its PONG, so nothing needs to be waited for.
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
        eventually("each message crosses once", PATIENCE, async || {
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
        mesh.wait_until_whole().await;
        mesh.wait_until_agreed().await;
    }
    // And a crowd that dies while its node lives.
    let crowd = crowd_on(&mesh, 2).await;
    for stream in crowd {
        stream.set_zero_linger().expect("a socket");
        drop(stream);
    }
    subscriptions_are(&mesh, &[0, 1, 2], 0, PATIENCE).await;
    mesh.wait_until_agreed().await;
    for (index, before) in survivors.iter().enumerate() {
        is_as_before(&mesh, index, before).await;
    }
}

/// A node takes as much of the machine as it did, but for the memory that the allocator keeps for the next time.
async fn is_as_before(mesh: &Mesh, node: usize, before: &Figures) {
    eventually(
        format!("node {node} is as it was: {before:?}"),
        PATIENCE,
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
        "it keeps memory: {before:?}, now {now:?}"
    );
}

/// Kills, restarts, freezes, orderly ends and newcomers, one after the other: what survives is whole, exact and not grown.
#[tokio::test]
async fn after_many_faults_survivors_agree_and_have_grown_by_nothing() {
    let mut mesh = Mesh::builder(Maker::Ours, 4)
        .setting("cluster.ping_interval_ms", 100)
        .setting("cluster.ping_timeout_ms", 200)
        .start()
        .await;
    let mut subscribers = Vec::new();
    for index in [0, 1] {
        let mut subscriber = mesh.nodes[index].client().await;
        subscriber.subscribe("all", "1").await;
        subscriber.flush().await;
        subscribers.push(subscriber);
    }
    let before = [mesh.nodes[0].figures(), mesh.nodes[1].figures()];
    for round in 0..4 {
        let mut fleeting: RawClient = mesh.nodes[2].client().await;
        fleeting
            .send("SUB all 1\r\nSUB some.* 2\r\nSUB all q 3\r\n")
            .await;
        fleeting.flush().await;
        if round % 2 == 0 {
            mesh.nodes[2].kill();
        } else {
            drop(fleeting);
            assert!(mesh.nodes[2].stop(PATIENCE).await.success());
        }
        let mark = mesh.nodes[0].process().mark();
        mesh.nodes[3].freeze().await;
        mesh.nodes[0]
            .process()
            .wait_for_line_after(mark, "the link with n4 is lost", PATIENCE)
            .await;
        mesh.wait_until_whole().await;
        mesh.wait_until_agreed().await;
        mesh.nodes[2].restart().await;
        mesh.nodes[3].thaw();
        mesh.wait_until_whole().await;
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
        let mut receipts = Receipts::new(format!("subscriber {index}"));
        receipts.gather(subscriber, &ledger, PATIENCE).await;
        receipts.take_all(&subscriber.flush().await);
        receipts.assert_whole(&ledger);
    }
    for (index, before) in before.iter().enumerate() {
        is_as_before(&mesh, index, before).await;
    }
}
