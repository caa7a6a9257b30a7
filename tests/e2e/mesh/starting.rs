//! The start of nodes: together or one after the other, by routes or by ZooKeeper, a node serves nobody before it knows what the
//! clients of the others listen to.

use std::time::{Duration, Instant};

use e2e::{Ledger, Maker, Mesh, MeshNode, PATIENCE, RawClient, Receipts, Registrar, ZooKeeper, eventually};

const PATH: &str = "/standin/nodes";
const ROUNDS: usize = 3;
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
const SYNC_TIMEOUT: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(40);

/// A subscriber on a node that starts, from the first moment that it takes clients.
async fn first_client(node: &mut MeshNode) -> (RawClient, RawClient) {
    node.wait_until_ready().await;
    let mut subscriber = node.client().await;
    subscriber.subscribe("all", "1").await;
    subscriber.flush().await;
    (subscriber, node.client().await)
}

/// All start at the same instant. As soon as each has had a client's subscription, a publish on each reaches them all, without
/// any waiting for the mesh.
async fn start_at_once(mesh: &mut Mesh) {
    mesh.nodes.iter_mut().for_each(MeshNode::launch);
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
        let mut receipts = Receipts::new(format!("the client of node {index}"));
        receipts.gather(subscriber, &ledger, PATIENCE).await;
        receipts.take_all(&subscriber.flush().await);
        receipts.assert_whole(&ledger);
    }
    mesh.wait_until_whole().await;
    mesh.wait_until_agreed().await;
}

#[tokio::test]
async fn nodes_with_routes_that_start_at_the_same_instant_are_whole_before_they_serve() {
    for size in [2, 5] {
        let mut mesh = Mesh::builder(Maker::Ours, size).describe();
        for _ in 0..ROUNDS {
            start_at_once(&mut mesh).await;
            mesh.nodes.iter_mut().for_each(MeshNode::kill);
        }
    }
}

#[tokio::test]
async fn nodes_in_zookeeper_that_start_at_the_same_instant_are_whole_before_they_serve() {
    let zookeeper = ZooKeeper::start().await;
    for size in [2, 5] {
        let mut mesh = Mesh::builder(Maker::Ours, size)
            .zookeeper(zookeeper.hosts(), PATH)
            .describe();
        for _ in 0..ROUNDS {
            start_at_once(&mut mesh).await;
            mesh.nodes.iter_mut().for_each(MeshNode::terminate);
            for node in &mut mesh.nodes {
                assert!(node.process().wait_for_end(PATIENCE).await.success());
            }
        }
    }
}

/// Two that only know a third one, which is not there yet: they are one cluster once it is.
#[tokio::test]
async fn nodes_that_know_one_seed_only_find_each_other_through_it() {
    let mut mesh = Mesh::builder(Maker::Ours, 4).seeded().describe();
    for index in [1, 2, 3] {
        mesh.nodes[index].restart().await;
    }
    mesh.nodes[0].restart().await;
    mesh.wait_until_whole().await;
    // And the seed is not needed any more, not even for one that comes back.
    mesh.nodes[0].kill();
    mesh.wait_until_whole().await;
    mesh.nodes[2].restart().await;
    mesh.wait_until_whole().await;
    mesh.wait_until_agreed().await;
}

/// A node that waits for another one that does not answer is neither registered nor open, then says for whom it did not wait
/// any longer.
#[tokio::test]
async fn a_node_is_closed_and_not_registered_until_it_is_synced_or_its_patience_is_over() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(Maker::Ours, 2)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .describe();
    mesh.nodes[0].restart().await;
    let mut subscriber = mesh.nodes[0].client().await;
    subscriber.subscribe("a", "1").await;
    subscriber.flush().await;
    assert_eq!(registrar.children(PATH).await, ["n1"]);
    mesh.nodes[0].freeze().await;
    let launched = Instant::now();
    mesh.nodes[1].launch();
    eventually("it opens, or registers", PATIENCE, async || {
        mesh.nodes[1].connect().await.is_ok() || registrar.children(PATH).await != ["n1"]
    })
    .await;
    let waited = launched.elapsed();
    assert!(waited >= SYNC_TIMEOUT, "open or registered after {waited:?}");
    let line = mesh.nodes[1]
        .process()
        .wait_for_line("not synced within", PATIENCE)
        .await;
    assert!(
        line.text.contains("WARN") && line.text.contains("1.5s"),
        "{line:?}"
    );
    let awaited = mesh.nodes[0].cluster_address().to_string();
    assert!(
        line.text.contains(&awaited),
        "it names whom it waited for: {line:?}"
    );
    mesh.nodes[1].wait_until_ready().await;
    assert_eq!(registrar.children(PATH).await, ["n1", "n2"]);
    assert_eq!(
        mesh.nodes[1].process().count_lines("not synced within"),
        1,
        "registered, it does not wait for the same node again before it serves"
    );

    mesh.nodes[0].thaw();
    mesh.wait_until_whole().await;
    mesh.wait_until_agreed().await;
    mesh.nodes[1].client().await.publish("a", "hi").await;
    subscriber.expect_message("1", "a", "hi").await;
}

/// A node that is started again while it is still thought to be alive waits for no ghost, and nobody waits for it for long.
#[tokio::test]
async fn a_node_killed_and_started_again_at_once_is_registered_and_linked_within_seconds() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(Maker::Ours, 3)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis())
        .start()
        .await;
    for _ in 0..2 {
        let before = run_of(&mut registrar, "n2").await;
        mesh.nodes[1].kill();
        let start = Instant::now();
        mesh.nodes[1].restart().await;
        eventually("it is registered as what it is now", PATIENCE, async || {
            let now = run_of(&mut registrar, "n2").await;
            now != before && !now.is_empty()
        })
        .await;
        mesh.wait_until_whole().await;
        mesh.wait_until_agreed().await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
    }
    // And it stays so when ZooKeeper has given the ghosts' sessions up.
    let own = run_of(&mut registrar, "n2").await;
    let given_up = Instant::now() + SESSION_TIMEOUT + Duration::from_secs(2);
    while Instant::now() < given_up {
        assert_eq!(run_of(&mut registrar, "n2").await, own, "the ghost took it along");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The life of the node that this registration is of; empty when there is none.
async fn run_of(registrar: &mut Registrar, id: &str) -> String {
    let record = registrar.get(&format!("{PATH}/{id}")).await;
    let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
    record["run"].as_str().unwrap_or_default().to_owned()
}

/// More than fits into the buffers on the way, so that it is told as fast as the newcomer takes it.
#[tokio::test]
async fn a_newcomer_knows_tens_of_megabytes_of_interest_before_it_serves() {
    const SUBJECTS: usize = 250_000;
    let mut mesh = Mesh::builder(Maker::Ours, 2).describe();
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
    assert!(!process.has_line("not synced within"), "{}", process.tail());
    let subject = format!("many.{}.{tail}", SUBJECTS - 1);
    mesh.nodes[1].client().await.publish(&subject, "hi").await;
    subscriber
        .expect_message(&(SUBJECTS - 1).to_string(), &subject, "hi")
        .await;
}

#[tokio::test]
async fn a_node_that_is_stopped_while_it_waits_for_others_ends_in_order() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(Maker::Ours, 2)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("cluster.sync_timeout_ms", 60_000)
        .describe();
    mesh.nodes[0].restart().await;
    mesh.nodes[0].freeze().await;
    mesh.nodes[1].launch();
    mesh.nodes[1]
        .process()
        .wait_for_line("Listening for route connections", PATIENCE)
        .await;
    assert!(mesh.nodes[1].stop(PATIENCE).await.success());
    assert_eq!(registrar.children(PATH).await, ["n1"]);
    assert!(!mesh.nodes[1].process().has_line("Server is ready"));
}

/// The nodes that are registered refuse it, so it would be an island: components that took it would hear nobody.
#[tokio::test]
async fn a_node_that_the_registered_ones_refuse_is_not_registered_and_ends_with_the_reason() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(Maker::Ours, 4)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .describe();
    for (index, node) in mesh.nodes.iter_mut().enumerate() {
        let password = if index == 2 { "wrong" } else { "right" };
        let url = format!("nats://u:{password}@{}", node.cluster_address());
        node.flags.extend(["--cluster".to_owned(), url]);
    }
    mesh.nodes[3]
        .flags
        .extend(["--cluster_name", "other"].map(str::to_owned));
    for index in [0, 1] {
        mesh.nodes[index].restart().await;
    }
    for (index, reason) in [
        (2, "user or password of the cluster are wrong"),
        (3, "the clusters' names differ"),
    ] {
        mesh.nodes[index].launch();
        let process = mesh.nodes[index].process();
        assert_eq!(process.wait_for_end(PATIENCE).await.code(), Some(69));
        let line = process.wait_for_line("cannot join the mesh", PATIENCE).await;
        assert!(line.text.contains(reason), "{line:?}");
        assert!(!process.has_line("Listening for client connections"));
        assert_eq!(registrar.children(PATH).await, ["n1", "n2"]);
    }
    mesh.wait_until_whole().await;
    mesh.wait_until_agreed().await;
}

/// Whoever connects is not left waiting for a word while the registry keeps the node waiting.
#[tokio::test]
async fn the_client_port_stays_closed_while_somebody_else_has_the_node_s_place_in_the_registry() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(Maker::Ours, 1)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("cluster.sync_timeout_ms", LONG.as_millis())
        .describe();
    registrar.put_ephemeral(&format!("{PATH}/n1"), "{}").await;
    mesh.nodes[0].launch();
    mesh.nodes[0]
        .process()
        .wait_for_line("a session holds it", PATIENCE)
        .await;
    assert!(mesh.nodes[0].connect().await.is_err(), "it is open");
    registrar.delete(&format!("{PATH}/n1")).await;
    mesh.nodes[0].wait_until_ready().await;
    assert_eq!(registrar.children(PATH).await, ["n1"]);
}
