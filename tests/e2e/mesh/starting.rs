//! The start of nodes, together or one after the other, with routes or with ZooKeeper: a node accepts clients only after it has the
//! interest of the other nodes.

use std::time::{Duration, Instant};

use e2e::zookeeper::NODES_PATH;
use e2e::{Ledger, Mesh, Node, RawClient, Registrar, ServerKind, TIMEOUT, ZooKeeper, eventually};

const ROUNDS: usize = 3;
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
const SYNC_TIMEOUT: Duration = Duration::from_millis(1500);
const LONG_TIMEOUT: Duration = Duration::from_secs(40);

/// Connects a subscriber and a publisher to a starting node, as soon as it accepts clients.
async fn first_client(node: &mut Node) -> (RawClient, RawClient) {
    node.wait_until_ready().await;
    let subscriber = node.subscriber("all").await;
    (subscriber, node.client().await)
}

/// Starts all nodes at the same instant. Checks that a publish on each node reaches the subscriber of each, without waiting for the
/// mesh.
async fn start_at_once(mesh: &mut Mesh) {
    mesh.nodes.iter_mut().for_each(Node::launch);
    let mut subscribers = Vec::new();
    let mut publishers = Vec::new();
    let first = futures_util::future::join_all(mesh.nodes.iter_mut().map(first_client)).await;
    for (subscriber, publisher) in first {
        subscribers.push(subscriber);
        publishers.push(publisher);
    }
    let mut ledger = Ledger::new();
    for (index, publisher) in publishers.iter_mut().enumerate() {
        ledger.publish(publisher, &format!("p{index}"), "all", 3).await;
        publisher.flush().await;
    }
    for (index, subscriber) in subscribers.iter_mut().enumerate() {
        ledger
            .reaches(subscriber, format!("the client of node {index}"))
            .await;
    }
    mesh.wait_until_agreed().await;
}

#[tokio::test]
async fn nodes_with_routes_that_start_at_the_same_instant_serve_only_as_a_complete_mesh() {
    for size in [2, 5] {
        let mut mesh = Mesh::builder(ServerKind::Standin, size).describe();
        for _ in 0..ROUNDS {
            start_at_once(&mut mesh).await;
            mesh.nodes.iter_mut().for_each(Node::kill);
        }
    }
}

#[tokio::test]
async fn nodes_in_zookeeper_that_start_at_the_same_instant_serve_only_as_a_complete_mesh() {
    let zookeeper = ZooKeeper::start().await;
    for size in [2, 5] {
        let mut mesh = Mesh::builder(ServerKind::Standin, size)
            .zookeeper(zookeeper.hosts())
            .describe();
        for _ in 0..ROUNDS {
            start_at_once(&mut mesh).await;
            mesh.nodes.iter_mut().for_each(Node::terminate);
            for node in &mut mesh.nodes {
                assert!(node.process().wait_for_end(TIMEOUT).await.success());
            }
        }
    }
}

/// The nodes have only the address of the seed, which starts last.
#[tokio::test]
async fn nodes_with_the_address_of_one_seed_find_each_other_through_it() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 4).seeded().describe();
    for index in [1, 2, 3] {
        mesh.nodes[index].restart().await;
    }
    mesh.nodes[0].restart().await;
    mesh.wait_until_whole().await;
    // The seed is not needed any more, not even by a node that is restarted.
    mesh.nodes[0].kill();
    mesh.wait_until_whole().await;
    mesh.nodes[2].restart().await;
    mesh.wait_until_agreed().await;
}

/// After the timeout the waiting node logs which node did not answer.
#[tokio::test]
async fn a_node_accepts_no_clients_and_is_not_registered_until_it_is_synced_or_sync_timeout_is_over() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .describe();
    mesh.nodes[0].restart().await;
    let mut subscriber = mesh.nodes[0].subscriber("a").await;
    assert_eq!(registrar.children(NODES_PATH).await, ["n1"]);
    mesh.nodes[0].freeze().await;
    let launched = Instant::now();
    mesh.nodes[1].launch();
    eventually(
        "the second node accepts clients or is registered",
        TIMEOUT,
        async || mesh.nodes[1].connect().await.is_ok() || registrar.children(NODES_PATH).await != ["n1"],
    )
    .await;
    let waited = launched.elapsed();
    assert!(
        waited >= SYNC_TIMEOUT,
        "accepts clients or registered after {waited:?}"
    );
    let line = mesh.nodes[1].logs("not synced within").await;
    assert!(line.contains("WARN") && line.contains("1.5s"), "{line}");
    let awaited = mesh.nodes[0].cluster_address().to_string();
    assert!(
        line.contains(&awaited),
        "the line does not name {awaited}: {line}"
    );
    mesh.nodes[1].wait_until_ready().await;
    assert_eq!(registrar.children(NODES_PATH).await, ["n1", "n2"]);
    assert_eq!(
        mesh.nodes[1].process().count_lines("not synced within"),
        1,
        "after its registration it waits for the same node again"
    );

    mesh.nodes[0].thaw();
    mesh.wait_until_agreed().await;
    mesh.nodes[1].client().await.publish("a", "hi").await;
    subscriber.expect_message("1", "a", "hi").await;
}

/// The record and the routes of the killed process still exist when the node starts again.
#[tokio::test]
async fn a_node_killed_and_started_again_at_once_is_registered_and_has_its_routes_within_seconds() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .zookeeper(zookeeper.hosts())
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis())
        .start()
        .await;
    for _ in 0..2 {
        let before = run_of(&mut registrar, "n2").await;
        mesh.nodes[1].kill();
        let start = Instant::now();
        mesh.nodes[1].restart().await;
        eventually("the record is of the present run", TIMEOUT, async || {
            let now = run_of(&mut registrar, "n2").await;
            now != before && !now.is_empty()
        })
        .await;
        mesh.wait_until_agreed().await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
    }
    // It stays registered when ZooKeeper has expired the sessions of the killed processes.
    let own = run_of(&mut registrar, "n2").await;
    let expired = Instant::now() + SESSION_TIMEOUT + Duration::from_secs(2);
    while Instant::now() < expired {
        assert_eq!(
            run_of(&mut registrar, "n2").await,
            own,
            "an expired session removed the new record"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the `run` of a record, which is new at each start of its node; empty if the node is not registered.
async fn run_of(registrar: &mut Registrar, id: &str) -> String {
    let record = registrar.get(&format!("{NODES_PATH}/{id}")).await;
    let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
    record["run"].as_str().unwrap_or_default().to_owned()
}

/// The interest does not fit into the buffers between the two nodes.
#[tokio::test]
async fn a_new_node_has_tens_of_megabytes_of_interest_before_it_serves() {
    const SUBJECTS: usize = 250_000;
    let mut mesh = Mesh::builder(ServerKind::Standin, 2).describe();
    mesh.nodes[0].restart().await;
    let mut subscriber = mesh.nodes[0].client().await;
    let tail = "x".repeat(90);
    for piece in (0..SUBJECTS).step_by(10_000) {
        let lines = (piece..piece + 10_000).map(|number| format!("SUB many.{number}.{tail} {number}\r\n"));
        subscriber.send(lines.collect::<String>()).await;
        subscriber.flush().await;
    }
    mesh.nodes[1].restart().await;
    assert_eq!(mesh.nodes[1].num_subscriptions().await, Some(SUBJECTS as u64));
    let process = mesh.nodes[1].process();
    process.assert_no_line("not synced within");
    let subject = format!("many.{}.{tail}", SUBJECTS - 1);
    mesh.nodes[1].client().await.publish(&subject, "hi").await;
    subscriber
        .expect_message(&(SUBJECTS - 1).to_string(), &subject, "hi")
        .await;
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_waits_for_others_exits_with_0() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.sync_timeout_ms", 60_000)
        .describe();
    mesh.nodes[0].restart().await;
    mesh.nodes[0].freeze().await;
    mesh.nodes[1].launch();
    mesh.nodes[1].logs("Listening for route connections").await;
    assert!(mesh.nodes[1].stop(TIMEOUT).await.success());
    assert_eq!(registrar.children(NODES_PATH).await, ["n1"]);
    mesh.nodes[1].process().assert_no_line("Server is ready");
}

/// Components on a refused node would reach no other node.
#[tokio::test]
async fn a_node_that_the_registered_nodes_refuse_is_not_registered_and_ends_with_the_reason() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 4)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .describe();
    for (index, node) in mesh.nodes.iter_mut().enumerate() {
        let password = if index == 2 { "wrong" } else { "right" };
        let url = format!("nats://u:{password}@{}", node.cluster_address());
        node.add_flags(&["--cluster", &url]);
    }
    mesh.nodes[3].add_flags(&["--cluster_name", "other"]);
    for index in [0, 1] {
        mesh.nodes[index].restart().await;
    }
    for (index, reason) in [
        (2, "user or password of the cluster are wrong"),
        (3, "the clusters' names differ"),
    ] {
        mesh.nodes[index].launch();
        let process = mesh.nodes[index].process();
        assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(69));
        let line = process.wait_for_line("cannot join the mesh", TIMEOUT).await;
        assert!(line.text.contains(reason), "{line:?}");
        process.assert_no_line("Listening for client connections");
        assert_eq!(registrar.children(NODES_PATH).await, ["n1", "n2"]);
    }
    mesh.wait_until_agreed().await;
}

/// With an open port, a client would wait for INFO as long as the node waits for ZooKeeper.
#[tokio::test]
async fn the_port_for_clients_stays_closed_while_another_session_holds_the_nodes_znode() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 1)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.sync_timeout_ms", LONG_TIMEOUT.as_millis())
        .describe();
    registrar.put_ephemeral(&format!("{NODES_PATH}/n1"), "{}").await;
    mesh.nodes[0].launch();
    mesh.nodes[0]
        .logs("a session without a record of ours holds it")
        .await;
    assert!(mesh.nodes[0].connect().await.is_err(), "the port is open");
    registrar.delete(&format!("{NODES_PATH}/n1")).await;
    mesh.nodes[0].wait_until_ready().await;
    assert_eq!(registrar.children(NODES_PATH).await, ["n1"]);
}
