//! A client that moves from node to node gets no message twice or out of order, although its next node may not yet have read
//! the messages that the client already has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use e2e::{
    Ledger, Mesh, Publishing, RawClient, Receipts, Receiving, Relay, ServerKind, Sidecar, TIMEOUT, ZooKeeper,
    eventually,
};
use tokio::task::JoinSet;

/// When the client moves, its next node has unread messages, for other clients of that node.
#[tokio::test]
async fn a_client_that_moves_gets_no_message_twice_from_a_node_that_is_behind() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.flush_timeout_ms", 20_000)
        .start()
        .await;
    let mut others = mesh.nodes[2].client().await;
    let mut before = mesh.nodes[1].client().await;
    for client in [&mut others, &mut before] {
        client.subscribe("all", "1").await;
        client.flush().await;
    }
    let mut after = mesh.nodes[2].client().await;
    after.flush().await;
    let mut publisher = mesh.nodes[0].client().await;
    mesh.nodes[2].freeze().await;

    let mut ledger = Ledger::new();
    ledger.publish(&mut publisher, "p", "all", 20_000).await;
    let mut receipts = Receipts::new("the client that moves");
    receipts.gather(&mut before, &ledger, TIMEOUT).await;
    before.close().await;
    after.send("SUB all 1\r\nPING\r\n").await;
    mesh.nodes[2].thaw();
    receipts.take_all(&after.read_until("PONG").await);
    receipts.assert_whole(&ledger);

    ledger.publish(&mut publisher, "p", "all", 1).await;
    receipts.gather(&mut after, &ledger, TIMEOUT).await;
    receipts.assert_whole(&ledger);
    ledger.reaches(&mut others, "another client of that node").await;
}

/// Moves a client from one node to the other, each time after a few messages, until `moves` has reached `enough`.
async fn move_on(mesh: Arc<Mesh>, name: String, moves: Arc<AtomicU64>, enough: u64) -> Receipts {
    let mut receipts = Receipts::new(name);
    let mut client = mesh.nodes[1].client().await;
    client.subscribe("load.*", "1").await;
    for at in (1..=2).cycle().skip(1) {
        let mut next = mesh.nodes[at].client().await;
        let target = receipts.total() + 1 + moves.load(Relaxed) % 40;
        while receipts.total() < target {
            let frame = client.read_command().await;
            receipts.take(&frame);
        }
        if moves.fetch_add(1, Relaxed) >= enough {
            break;
        }
        next.subscribe("load.*", "1").await;
        client.close().await;
        client = next;
    }
    receipts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_move_all_the_time_under_load_get_no_message_twice_or_out_of_order() {
    const MOVERS: usize = 4;
    const MOVES: u64 = 2000;
    const EVERY: Duration = Duration::from_micros(500);
    let mesh = Arc::new(Mesh::start(ServerKind::Standin, 3).await);
    // Other clients on both nodes get the same messages.
    let mut others = Vec::new();
    for node in &mesh.nodes[1..] {
        let other = node.subscriber("load.*").await;
        others.push(Receiving::start(other, "another client"));
    }
    let mut publishing = Vec::new();
    for number in 0..3 {
        let (name, subject) = (format!("p{number}"), format!("load.{number}"));
        let publisher = mesh.nodes[0].client().await;
        publishing.push(Publishing::start(publisher, &name, &subject, EVERY));
    }
    let moves = Arc::new(AtomicU64::new(0));
    let mut moving = JoinSet::new();
    for number in 0..MOVERS {
        let name = format!("client {number}, which moves,");
        moving.spawn(move_on(Arc::clone(&mesh), name, Arc::clone(&moves), MOVES));
    }
    let all = moving.join_all().await;
    let mut ledger = Ledger::new();
    for publishing in publishing {
        ledger.add(&publishing.stop().await.1);
    }
    for receipts in &all {
        receipts.assert_no_more(&ledger);
    }
    for other in others {
        other.has_all(&ledger).await;
    }
    let got: u64 = all.iter().map(Receipts::total).sum();
    eprintln!(
        "{} published, {got} received in {} moves",
        ledger.total(),
        moves.load(Relaxed)
    );
}

/// Returns the argument of the next MOVE.
async fn next_step(client: &mut RawClient) -> serde_json::Value {
    loop {
        let frame = client.read_frame().await;
        if frame.verb() == "MOVE" {
            return frame.json();
        }
    }
}

/// The number of a move comes from the client. Clients of two nodes may have the same, by intent.
#[tokio::test]
async fn clients_that_leave_two_nodes_with_the_same_number_at_the_same_time_block_no_move() {
    const TIMES: u64 = 40;
    let mesh = Mesh::start(ServerKind::Standin, 3).await;
    for time in 0..TIMES {
        let mut clients = [mesh.nodes[0].client().await, mesh.nodes[1].client().await];
        let runs = clients
            .each_ref()
            .map(|client| client.info()["server_id"].as_str().map(str::to_owned));
        let leave = |to: &Option<String>| {
            let to = to.as_deref().expect("a run");
            format!("MOVE {{\"step\":\"leave\",\"id\":\"{time:032x}\",\"to\":\"{to}\"}}\r\n")
        };
        let [one, other] = &mut clients;
        tokio::join!(one.send(leave(&runs[1])), other.send(leave(&runs[0])));
        for client in &mut clients {
            assert_eq!(next_step(client).await["step"], "left", "{time}");
        }
    }
}

#[tokio::test]
async fn a_client_cannot_arrive_twice_at_the_same_time() {
    let mesh = Mesh::start(ServerKind::Standin, 2).await;
    let from = mesh.nodes[0].client().await.info()["server_id"].clone();
    let mut client = mesh.nodes[1].client().await;
    for id in 1..3 {
        let arrive = format!("MOVE {{\"step\":\"arrive\",\"id\":\"{id:032x}\",\"from\":{from}}}\r\n");
        client.send(arrive).await;
    }
    assert_eq!(
        next_step(&mut client).await["why"],
        "another move of the client is not over"
    );
    client.send("SUB a 1\r\nPING\r\n").await;
    assert_eq!(next_step(&mut client).await["step"], "ready");
}

/// Starts the nodes, a sidecar that does not learn of the third one, and a component. Returns the component's node too.
async fn beside_a_third_node(mesh: &mut Mesh) -> (Sidecar, RawClient, SocketAddr) {
    mesh.nodes[2].add_flags(&["--no_advertise"]);
    mesh.start_all().await;
    let sidecar = Sidecar::builder().nodes(&mesh.nodes[..2]).start().await;
    let mut component = RawClient::open(sidecar.address()).await.subscribed("own").await;
    component.flush().await;
    let node = sidecar.wait_for_node_of_session().await;
    (sidecar, component, node)
}

/// Starts subscribers of `load`: one on each node, and `behind` behind the sidecar.
async fn subscribers(mesh: &mut Mesh, sidecar: &Sidecar, behind: usize) -> Vec<Receiving> {
    let mut receiving = Vec::new();
    for (index, node) in mesh.nodes.iter().enumerate() {
        let name = format!("subscriber {index}");
        receiving.push(Receiving::start(node.subscriber("load").await, &name));
    }
    for _ in 0..behind {
        let client = RawClient::open(sidecar.address()).await.subscribed("load").await;
        receiving.push(Receiving::start(client, "a subscriber behind the sidecar"));
    }
    mesh.wait_until_agreed().await;
    receiving
}

/// Tells the sidecar that its sessions are to leave a node.
async fn drain(sidecar: &Sidecar, node: SocketAddr) {
    let page = format!("/nodez/{node}/drain");
    assert_eq!(sidecar.http().post(&page, "").await.expect("an answer").0, 200);
}

async fn wait_for_messages(receiving: &Receiving, more: u64) {
    let target = receiving.count() + more;
    eventually("messages pass while the node is frozen", TIMEOUT, async || {
        receiving.count() > target
    })
    .await;
}

async fn wait_until_left(sidecar: &Sidecar, node: SocketAddr) {
    eventually("the sessions have moved", TIMEOUT, async || {
        let nodes = sidecar.session_nodes().await;
        nodes.iter().all(|on| on.is_some_and(|on| on != node))
    })
    .await;
}

/// Asserts that each subscriber has got each message once and in order.
async fn have_all(receiving: Vec<Receiving>, ledger: &Ledger) {
    for receiving in receiving {
        let (mut client, mut receipts) = receiving.stop().await;
        receipts.gather(&mut client, ledger, TIMEOUT).await;
        receipts.assert_whole(ledger);
    }
}

/// A node that has no part in the move is frozen when all nodes know the subscriptions on the next node, and before it makes the cut. The
/// component publishes on, and no message is lost, repeated or reordered when the node thaws.
#[tokio::test]
async fn s13_a_component_publishes_on_while_a_frozen_node_delays_its_move() {
    let zookeeper = ZooKeeper::start().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.ping_interval_ms", 10_000)
        .describe();
    let mut relays = Vec::new();
    for node in &mut mesh.nodes {
        let relay = Relay::start(node.cluster_address(), Duration::from_millis(150)).await;
        node.set("cluster.advertise", relay.address());
        relays.push(relay);
    }
    let (sidecar, publisher, old) = beside_a_third_node(&mut mesh).await;
    let receiving = subscribers(&mut mesh, &sidecar, 1).await;
    let publishing = Publishing::start(publisher, "p", "load", Duration::from_millis(1));

    let before = mesh.nodes[2].num_subscriptions().await;
    drain(&sidecar, old).await;
    eventually(
        "the third node knows the next node's subscriptions",
        TIMEOUT,
        async || mesh.nodes[2].num_subscriptions().await > before,
    )
    .await;
    mesh.nodes[2].freeze().await;
    // More messages than pass before the sidecar sends `leave` to the present node.
    wait_for_messages(&receiving[0], 900).await;
    let nodes = sidecar.session_nodes().await;
    assert!(nodes.contains(&Some(old)), "the session has moved already");
    mesh.nodes[2].thaw();
    wait_until_left(&sidecar, old).await;
    let (mut publisher, mut ledger) = publishing.stop().await;
    ledger.publish(&mut publisher, "last", "load", 1).await;
    have_all(receiving, &ledger).await;
}

/// A node that has no part in the move is frozen when the move begins, for longer than two attempts to move take. It also has a publisher,
/// whose messages wait in the node meanwhile.
#[tokio::test]
async fn s13_a_move_waits_for_a_frozen_node_that_thaws() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.ping_interval_ms", 10_000)
        .describe();
    let (sidecar, publisher, old) = beside_a_third_node(&mut mesh).await;
    let receiving = subscribers(&mut mesh, &sidecar, 2).await;
    let every = Duration::from_millis(2);
    let other = mesh.nodes[2].client().await;
    let publishing = [
        Publishing::start(publisher, "p", "load", every),
        Publishing::start(other, "f", "load", every),
    ];

    mesh.nodes[2].freeze().await;
    let nodes = sidecar.session_nodes().await;
    drain(&sidecar, old).await;
    wait_for_messages(&receiving[0], 700).await;
    assert_eq!(sidecar.session_nodes().await, nodes, "a session has not waited");
    mesh.nodes[2].thaw();
    wait_until_left(&sidecar, old).await;
    let mut ledger = Ledger::new();
    for publishing in publishing {
        let (mut client, own) = publishing.stop().await;
        client.flush().await;
        ledger.add(&own);
    }
    have_all(receiving, &ledger).await;
}
