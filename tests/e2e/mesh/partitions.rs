//! Nodes on separate hosts, and a network that fails: partitions, silence in one direction, delay, loss, and a ZooKeeper that one
//! node cannot reach.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use e2e::{
    Lan, Ledger, Links, Mesh, MeshBuilder, Publishing, RawClient, Receiving, ServerKind, ZooKeeper,
    eventually,
};

const LONG_TIMEOUT: Duration = Duration::from_secs(30);

fn builder(size: usize) -> MeshBuilder {
    Mesh::builder(ServerKind::Standin, size)
        .setting("cluster.ping_interval_ms", 200)
        .setting("cluster.ping_timeout_ms", 600)
        .setting("cluster.redial_ms_max", 500)
        .setting("cluster.connect_timeout_ms", 500)
}

/// Connects a subscriber to `all` on each node.
async fn subscribers(mesh: &Mesh) -> Vec<RawClient> {
    let mut all = Vec::new();
    for node in &mesh.nodes {
        all.push(node.subscriber("all").await);
    }
    all
}

/// Publishes on node `from`. Checks that the subscriber of each node in `to` gets each message once and in order, and that those of
/// `others` get nothing.
async fn reaches(mesh: &Mesh, subscribers: &mut [RawClient], from: usize, to: &[usize], others: &[usize]) {
    let mut publisher = mesh.nodes[from].client().await;
    let mut ledger = Ledger::new();
    ledger
        .publish(&mut publisher, &format!("n{from}"), "all", 20)
        .await;
    publisher.flush().await;
    for index in to {
        ledger
            .reaches(&mut subscribers[*index], format!("the client of node {index}"))
            .await;
    }
    for index in others {
        let frames = subscribers[*index].flush().await;
        assert!(frames.is_empty(), "node {index} received {frames:?}");
    }
}

#[tokio::test]
async fn both_sides_of_a_partition_serve_their_clients_and_are_one_mesh_after_it() {
    let mut lan = Lan::new(4);
    let mut mesh = builder(4).start_across(&lan).await;
    let mut subscribers = subscribers(&mesh).await;
    let before: Vec<_> = mesh.nodes.iter().map(|node| node.figures()).collect();
    for round in 0..2 {
        lan.partition(&[&[0, 1], &[2, 3]]);
        mesh.wait_until_agreed_among(&[0, 1]).await;
        mesh.wait_until_agreed_among(&[2, 3]).await;
        reaches(&mesh, &mut subscribers, 0, &[0, 1], &[2, 3]).await;
        reaches(&mesh, &mut subscribers, 3, &[2, 3], &[0, 1]).await;
        // Interest that begins or ends during the partition is known after it.
        let node = if round == 0 { 1 } else { 2 };
        let mut client = mesh.nodes[node].subscriber("meanwhile").await;
        let short_lived = mesh.nodes[node].subscriber("gone").await;
        short_lived.close().await;

        lan.heal();
        mesh.wait_until_agreed().await;
        for from in 0..4 {
            reaches(&mesh, &mut subscribers, from, &[0, 1, 2, 3], &[]).await;
        }
        mesh.nodes[3 - node]
            .client()
            .await
            .publish("meanwhile", "hi")
            .await;
        client.expect_message("1", "meanwhile", "hi").await;
    }
    eventually("threads and open files are as before", LONG_TIMEOUT, async || {
        let now = mesh.nodes.iter().map(|node| node.figures());
        now.zip(&before)
            .all(|(now, before)| now.threads == before.threads && now.open_files <= before.open_files + 2)
    })
    .await;
}

#[tokio::test]
async fn a_route_that_is_silent_in_one_direction_ends_on_both_sides_and_others_stay() {
    let mut lan = Lan::new(3);
    let mut mesh = builder(3).start_across(&lan).await;
    let mut subscribers = subscribers(&mesh).await;
    lan.silence(0, 1);
    for (one, other) in [(0, "n2"), (1, "n1")] {
        eventually(
            format!("node {one} has no route to {other}"),
            LONG_TIMEOUT,
            async || {
                let links = Links::read(mesh.nodes[one].http()).await;
                links.is_some_and(|links| links.peers().all(|peer| peer.name != other))
            },
        )
        .await;
    }
    // The third node has routes to both, and passes nothing on between them.
    reaches(&mesh, &mut subscribers, 2, &[0, 1, 2], &[]).await;
    reaches(&mesh, &mut subscribers, 0, &[0, 2], &[1]).await;
    reaches(&mesh, &mut subscribers, 1, &[1, 2], &[0]).await;
    lan.heal();
    mesh.wait_until_agreed().await;
    for from in 0..3 {
        reaches(&mesh, &mut subscribers, from, &[0, 1, 2], &[]).await;
    }
}

/// Publishes from one node to another over this network, and checks that no message is lost.
async fn nothing_is_lost(mesh: &mut Mesh, subject: &str, count: u64) {
    let subscriber = mesh.nodes[1].subscriber(subject).await;
    // When packets are lost, the subscriber's flush may time out before all nodes have the interest.
    mesh.wait_until_agreed().await;
    let publisher = mesh.nodes[0].client().await;
    let receiving = Receiving::start(subscriber, "the subscriber");
    let publishing = Publishing::start(publisher, "p", subject, Duration::from_millis(1));
    eventually("enough messages are received", LONG_TIMEOUT, async || {
        receiving.count() >= count
    })
    .await;
    let (_, ledger) = publishing.stop().await;
    receiving.has_all(&ledger).await;
    mesh.wait_until_agreed().await;
}

#[tokio::test]
async fn over_a_slow_or_lossy_network_every_message_arrives_and_routes_stay_open() {
    const DELAY: Duration = Duration::from_millis(50);
    let mut lan = Lan::new(3);
    // The timeouts are the defaults: such a network needs no settings.
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).start_across(&lan).await;
    lan.slow_all(DELAY, 0.0).await;
    for number in 0..5 {
        let mut subscriber = mesh.nodes[number % 3].client().await;
        let start = Instant::now();
        subscriber.subscribe("far", "1").await;
        subscriber.flush().await;
        let pong = start.elapsed();
        // A flush needs one round trip to the other nodes, so a faster PONG would be wrong.
        assert!(pong >= 2 * DELAY && pong < Duration::from_millis(450), "{pong:?}");
        mesh.nodes[(number + 1) % 3]
            .client()
            .await
            .publish("far", "hi")
            .await;
        subscriber.expect_message("1", "far", "hi").await;
    }
    nothing_is_lost(&mut mesh, "slow", 300).await;
    lan.heal();
    lan.slow_all(Duration::from_millis(1), 0.05).await;
    nothing_is_lost(&mut mesh, "lossy", 300).await;
    lan.heal();
    for node in &mut mesh.nodes {
        let process = node.process();
        process.assert_no_line("is lost");
    }
}

#[tokio::test]
async fn a_node_that_cannot_reach_zookeeper_stays_in_the_mesh_and_is_registered_again_later() {
    let mut lan = Lan::new(4);
    let zookeeper = ZooKeeper::start_on(lan.host(3)).await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = builder(3)
        .zookeeper(zookeeper.hosts())
        .setting("nodes.zookeeper_session_timeout_ms", 4000)
        .start_across(&lan)
        .await;
    let mut subscribers = subscribers(&mesh).await;
    lan.partition(&[&[3], &[2]]);
    registrar.until_registered(&["n1", "n2"]).await;
    mesh.wait_until_whole().await;
    for from in 0..3 {
        reaches(&mesh, &mut subscribers, from, &[0, 1, 2], &[]).await;
    }
    lan.heal();
    registrar.until_registered(&["n1", "n2", "n3"]).await;
    mesh.wait_until_agreed().await;
    for node in &mut mesh.nodes {
        let process = node.process();
        process.assert_no_line("the route with");
    }
}

/// Subscriptions of the clients of three nodes: subject and queue group.
const SUBSCRIPTIONS: [&[(&str, &str)]; 3] = [
    &[
        ("same", ""),
        ("same", ""),
        ("same", ""),
        ("a", ""),
        ("work", "q"),
        ("work", "q"),
    ],
    &[("same", ""), ("b.*", ""), ("work", "q")],
    &[("c.>", ""), ("work", "q"), ("work", "r")],
];

/// Returns the number that `/subsz` of node `index` must show. Each subscription of the node's own clients counts. Equal subscriptions
/// (same subject and queue group) on one other node count as one. So the nodes of a complete mesh may show different numbers.
fn counted(index: usize) -> u64 {
    let others = SUBSCRIPTIONS
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index);
    let known = others.map(|(_, all)| all.iter().collect::<HashSet<_>>().len());
    (SUBSCRIPTIONS[index].len() + known.sum::<usize>()) as u64
}

/// Connects a client to each node and makes the [`SUBSCRIPTIONS`].
async fn subscribed_clients(mesh: &Mesh) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for (node, subscriptions) in mesh.nodes.iter().zip(SUBSCRIPTIONS) {
        let mut client = node.client().await;
        for (sid, (subject, queue)) in subscriptions.iter().enumerate() {
            client.send(format!("SUB {subject} {queue} {sid}\r\n")).await;
        }
        client.flush().await;
        clients.push(client);
    }
    clients
}

/// Waits until each node counts the [`SUBSCRIPTIONS`] in addition to its number in `before`, read before the clients connected.
async fn until_counted(mesh: &Mesh, before: &[u64]) {
    for (index, before) in before.iter().enumerate() {
        let wanted = before + counted(index);
        let what = format!("node {index} counts {wanted}");
        eventually(what, LONG_TIMEOUT, async || {
            mesh.nodes[index].num_subscriptions().await == Some(wanted)
        })
        .await;
    }
}

/// Makes and ends subscriptions in every way, on each node.
async fn churn(mesh: &Mesh) {
    for node in &mesh.nodes {
        let mut client = node.client().await;
        client
            .send("SUB same 1\r\nSUB meanwhile 2\r\nSUB work q 3\r\nSUB work s 4\r\nSUB once 5\r\nUNSUB 5 1\r\n")
            .await;
        client.send("UNSUB 1\r\nUNSUB 3\r\nPUB once 2\r\nhi\r\n").await;
        client.expect_message("5", "once", "hi").await;
        client.flush().await;
        client.close().await;
    }
}

#[tokio::test]
async fn after_partitions_the_number_of_subscriptions_on_each_node_is_exact() {
    let mut lan = Lan::new(3);
    let mut mesh = builder(3).start_across(&lan).await;
    let _clients = subscribed_clients(&mesh).await;
    until_counted(&mesh, &[0; 3]).await;
    for (alone, pair) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        lan.partition(&[&[alone], &pair]);
        churn(&mesh).await;
        mesh.wait_until_linked(&[alone]).await;
        mesh.wait_until_linked(&pair).await;
        churn(&mesh).await;
        lan.heal();
        churn(&mesh).await;
        mesh.wait_until_whole().await;
        until_counted(&mesh, &[0; 3]).await;
        mesh.wait_until_agreed().await;
    }
}

#[tokio::test]
async fn nats_server_counts_the_subscriptions_of_a_cluster_in_the_same_way() {
    let mesh = Mesh::start(ServerKind::NatsServer, 3).await;
    let mut before = Vec::new();
    for node in &mesh.nodes {
        before.push(node.num_subscriptions().await.expect("a page"));
    }
    let _clients = subscribed_clients(&mesh).await;
    until_counted(&mesh, &before).await;
}
