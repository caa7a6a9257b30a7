//! The cluster-wide flush: after SUB, PING, PONG on one node, a publish on any other node reaches the subscriber, also while nodes
//! join and leave. A single server always has this property, and old programs depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use e2e::raw::{CONNECT_NEW, CONNECT_OLD, pub_frame};
use e2e::{Ledger, Mesh, RawClient, Receipts, ServerKind, TIMEOUT};
use tokio::task::{JoinHandle, JoinSet};

/// Minimum number of rounds over the nodes that stay.
const ROUNDS: u64 = 10_000;

/// Minimum number of times that a node joins and leaves meanwhile.
const CHANGES: usize = 8;

/// Number of rounds between a node that has just joined and each other node, in each direction.
const ROUNDS_OF_A_NEW_NODE: u64 = 40;

/// Rounds of: subscribe on one node, get the PONG, and at once publish on another. Every message must arrive, once and in order.
struct Rounds {
    subscriber: RawClient,
    publisher: RawClient,
    name: String,
    ledger: Ledger,
    receipts: Receipts,
}

impl Rounds {
    async fn on(mesh: &Mesh, subscriber: usize, publisher: usize) -> Self {
        let (here, there) = (&mesh.nodes[subscriber], &mesh.nodes[publisher]);
        let name = format!("{}-{}", here.name(), there.name());
        Self {
            subscriber: here.client().await,
            publisher: there.client().await,
            ledger: Ledger::new(),
            receipts: Receipts::new(name.clone()),
            name,
        }
    }

    async fn one(&mut self) {
        let payload = self.ledger.next(&self.name);
        let number = self.ledger.total();
        let subject = format!("{}.{number}", self.name);
        // The subscription ends with its only message, so interest is removed as often as it is added.
        let words = format!("SUB {subject} {number}\r\nUNSUB {number} 1\r\nPING\r\n");
        self.subscriber.send(words).await;
        loop {
            let frame = self.subscriber.read_command().await;
            if frame.verb() == "PONG" {
                break;
            }
            self.receipts.take(&frame);
        }
        self.publisher.publish(&subject, payload).await;
    }

    async fn finish(mut self) -> u64 {
        self.publisher.flush().await;
        self.receipts
            .gather(&mut self.subscriber, &self.ledger, TIMEOUT)
            .await;
        self.receipts.assert_whole(&self.ledger);
        self.subscriber.close().await;
        self.publisher.close().await;
        self.ledger.total()
    }
}

/// Runs rounds on this pair until `over` is set, and counts them.
fn run_until_over(mut rounds: Rounds, over: Arc<AtomicBool>, count: Arc<AtomicU64>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        while !over.load(Relaxed) {
            rounds.one().await;
            count.fetch_add(1, Relaxed);
        }
        rounds.finish().await
    })
}

/// Starts a node. Runs rounds between it and each other node, in both directions, as soon as it is ready. Then stops or kills it.
async fn join_and_leave(mesh: &mut Mesh, new_node: usize, killed: bool) {
    mesh.nodes[new_node].restart().await;
    let mut pairs = Vec::new();
    for other in 0..3 {
        pairs.push(Rounds::on(mesh, new_node, other).await);
        pairs.push(Rounds::on(mesh, other, new_node).await);
    }
    let rounds = pairs.into_iter().map(async |mut rounds| {
        for _ in 0..ROUNDS_OF_A_NEW_NODE {
            rounds.one().await;
        }
        rounds.finish().await
    });
    futures_util::future::join_all(rounds).await;
    if killed {
        mesh.nodes[new_node].kill();
    } else {
        assert!(mesh.nodes[new_node].stop(TIMEOUT).await.success());
    }
}

#[tokio::test]
async fn after_sub_ping_pong_a_publish_on_any_node_arrives_ten_thousand_times_while_nodes_join_and_leave() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut pairs = Vec::new();
    for (here, there) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let rounds = Rounds::on(&mesh, here, there).await;
        pairs.push(run_until_over(rounds, Arc::clone(&over), Arc::clone(&count)));
    }
    let new_nodes = [mesh.add(), mesh.add()];
    let mut changes = 0;
    while changes < CHANGES || count.load(Relaxed) < ROUNDS {
        join_and_leave(&mut mesh, new_nodes[changes % 2], changes % 4 < 2).await;
        changes += 1;
        assert!(!pairs.iter().any(JoinHandle::is_finished), "a pair has failed");
    }
    over.store(true, Relaxed);
    let mut rounds = 0;
    for pair in pairs {
        rounds += pair.await.expect("every message arrived once");
    }
    eprintln!(
        "{rounds} rounds over nodes that stayed, none missed, while a node joined and left {changes} times"
    );
    mesh.wait_until_agreed().await;
}

/// Sends `frames` and a PING, and returns the time until the PONG.
async fn pong_after(client: &mut RawClient, frames: &str) -> Duration {
    client.send(frames).await;
    let start = Instant::now();
    client.flush().await;
    start.elapsed()
}

#[tokio::test]
async fn a_frozen_node_delays_one_pong_of_each_other_node_by_the_flush_timeout() {
    const FLUSH_TIMEOUT: Duration = Duration::from_millis(1200);
    const QUICK: Duration = Duration::from_millis(600);
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.flush_timeout_ms", FLUSH_TIMEOUT.as_millis())
        // The route to the frozen node stays open.
        .setting("cluster.ping_timeout_ms", 60_000)
        .start()
        .await;
    let mut here = [mesh.nodes[0].client().await, mesh.nodes[0].client().await];
    let mut there = mesh.nodes[1].client().await;
    let mut frozen = mesh.nodes[2].client().await;
    mesh.nodes[2].freeze().await;

    let (first, second) = here.split_at_mut(1);
    let (delayed, not_delayed) = tokio::join!(pong_after(&mut first[0], "SUB a 1\r\n"), async {
        pong_after(&mut second[0], "PUB nobody 0\r\n\r\n").await
    });
    assert!(
        delayed >= FLUSH_TIMEOUT - Duration::from_millis(20),
        "{delayed:?}"
    );
    assert!(delayed < FLUSH_TIMEOUT + QUICK, "{delayed:?}");
    assert!(
        not_delayed < QUICK,
        "a client without a change of interest has waited: {not_delayed:?}"
    );
    mesh.nodes[0].logs("did not confirm a change of interest").await;
    for number in 2..20 {
        for client in &mut here {
            let pong = pong_after(client, &format!("SUB a.{number} {number}\r\n")).await;
            assert!(pong < QUICK, "delayed again: {pong:?}");
        }
    }
    // Each node waits once for the frozen one. New interest still reaches the other live nodes.
    let delayed = pong_after(&mut there, "SUB b 1\r\n").await;
    assert!(delayed < FLUSH_TIMEOUT + QUICK, "{delayed:?}");
    here[0].publish("b", "hi").await;
    there.expect_message("1", "b", "hi").await;
    mesh.wait_until_agreed().await;

    mesh.nodes[2].thaw();
    mesh.wait_until_agreed().await;
    frozen.publish("b", "thawed").await;
    there.expect_message("1", "b", "thawed").await;
    assert!(there.flush().await.is_empty(), "received twice");

    // The thawed node takes part in the flush again: after a PONG it has the interest.
    here[0].send("SUB late 99\r\n").await;
    here[0].flush().await;
    frozen.publish("late", "x").await;
    here[0].expect_message("99", "late", "x").await;
}

/// The frozen node does not ack the SUB of a new client in time. The messages that it sends later to the client's node, for older clients
/// there, must reach the new client too.
#[tokio::test]
async fn after_its_pong_a_client_gets_every_message_even_of_a_node_that_was_frozen() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.flush_timeout_ms", 200)
        .setting("cluster.ping_timeout_ms", 60_000)
        .start()
        .await;
    let mut others = mesh.nodes[2].subscriber("all").await;
    let mut publishers = Vec::new();
    for _ in 0..4 {
        publishers.push(mesh.nodes[0].client().await);
    }
    for _ in 0..5 {
        mesh.nodes[0].freeze().await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(mesh.nodes[2].subscriber("all").await);
        }
        let mut ledger = Ledger::new();
        for (number, publisher) in publishers.iter_mut().enumerate() {
            let name = format!("p{number}");
            ledger.publish(publisher, &name, "all", 50).await;
        }
        mesh.nodes[0].thaw();
        for client in clients.iter_mut().chain([&mut others]) {
            ledger.reaches(client, "a client that has its PONG").await;
        }
        for publisher in &mut publishers {
            publisher.flush().await;
        }
    }
}

#[tokio::test]
async fn a_node_frozen_for_longer_than_the_ping_timeout_loses_its_routes_and_joins_again() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.ping_interval_ms", 200)
        .setting("cluster.ping_timeout_ms", 500)
        .start()
        .await;
    let mut subscriber = mesh.nodes[2].subscriber("a").await;
    mesh.wait_until_agreed().await;
    mesh.nodes[2].freeze().await;
    for index in [0, 1] {
        mesh.nodes[index].logs("the route with n3 is lost").await;
    }
    let mut here = mesh.nodes[0].client().await;
    here.send("SUB b 1\r\n").await;
    here.flush().await;
    mesh.wait_until_agreed().await;
    assert_eq!(
        mesh.nodes[1].num_subscriptions().await,
        Some(1),
        "the interest of the frozen node is still there"
    );

    mesh.nodes[2].thaw();
    mesh.wait_until_agreed().await;
    let mut publisher = mesh.nodes[1].client().await;
    let mut ledger = Ledger::new();
    ledger.publish(&mut publisher, "p", "a", 50).await;
    ledger
        .reaches(&mut subscriber, "the client of the frozen node")
        .await;
}

/// Clients leave a node in lame duck mode after such a PONG.
#[tokio::test]
async fn a_pong_of_a_lame_duck_node_follows_every_message_that_was_in_flight_to_it() {
    const MESSAGES: usize = 20_000;
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut subscriber = RawClient::open_with(mesh.nodes[1].address(), CONNECT_NEW)
        .await
        .subscribed("all")
        .await;
    let mut publishers = [mesh.nodes[0].client().await, mesh.nodes[2].client().await];
    mesh.nodes[1].freeze().await;
    let mut messages = Vec::new();
    for number in 0..MESSAGES {
        messages.extend(pub_frame("all", format!("{number:0200}")));
    }
    for publisher in &mut publishers {
        publisher.send(&messages).await;
        publisher.flush().await;
    }
    mesh.nodes[1].terminate();
    mesh.nodes[1].thaw();
    let mut before = subscriber.read_until("INFO").await;
    subscriber.send("PING\r\n").await;
    before.extend(subscriber.read_until("PONG").await);
    let came = before.iter().filter(|frame| frame.verb() == "MSG").count();
    assert_eq!(came, MESSAGES * publishers.len(), "the rest came after the PONG");
}

/// Answers requests until its client ends.
fn answer(mut responder: RawClient) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let frame = responder.read_command().await;
            let text = String::from_utf8_lossy(frame.bytes()).into_owned();
            let reply = text.split(' ').nth(3).expect("a request's reply");
            responder.publish(reply, "answer").await;
        }
    })
}

/// The request is sent together with CONNECT and SUB, without a PING, and the answer may be quick.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_of_each_connection_is_answered_by_another_node() {
    const REQUESTS: usize = 4000;
    const AT_ONCE: usize = 20;
    let mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut answering = Vec::new();
    for node in &mesh.nodes[1..] {
        let responder = node.subscriber(&format!("ask.{}", node.name())).await;
        answering.push(answer(responder));
    }
    let address = mesh.nodes[0].address();
    let names: Vec<String> = mesh.nodes[1..]
        .iter()
        .map(|node| node.name().to_owned())
        .collect();
    let mut asking = JoinSet::new();
    for first in 0..AT_ONCE {
        let name = names[first % names.len()].clone();
        asking.spawn(async move {
            for number in (first..REQUESTS).step_by(AT_ONCE) {
                let mut client = RawClient::connect(address).await;
                let inbox = format!("inbox.{number}");
                let words = format!("{CONNECT_OLD}\r\nSUB {inbox} 1\r\nPUB ask.{name} {inbox} 2\r\nhi\r\n");
                client.send(words).await;
                client.expect_message("1", &inbox, "answer").await;
                client.close().await;
            }
        });
    }
    asking.join_all().await;
    answering.iter().for_each(JoinHandle::abort);
}
