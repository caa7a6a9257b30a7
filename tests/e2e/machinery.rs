//! Tests of the harness around real peers, for faults that no other test would notice: processes and registrations must end in
//! time, networks must really fail, receipts must notice every fault.

use e2e::{
    Lan, Ledger, Links, Mesh, Program, Publishing, RawClient, Receipts, Receiving, Record, ServerKind,
    TIMEOUT, ZooKeeper, eventually,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Much longer than a message takes on these networks.
const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_process_is_gone_when_it_is_dropped() {
    let mut sleeper = Program::new("sh")
        .args(["-c", "echo here; echo there >&2; exec sleep 1000"])
        .start("sleeper");
    sleeper.wait_for_line("here", TIMEOUT).await;
    sleeper.wait_for_line("there", TIMEOUT).await;
    let proc_folder = format!("/proc/{}", sleeper.pid());
    assert!(std::path::Path::new(&proc_folder).exists());
    assert!(sleeper.figures().resident_kib > 0);
    drop(sleeper);
    assert!(!std::path::Path::new(&proc_folder).exists());
}

#[tokio::test]
async fn a_process_has_every_variable_that_its_test_sets() {
    let mut printer = Program::new("env").env("NATS_URL", "nats://here").start("env");
    printer.wait_for_line("NATS_URL=nats://here", TIMEOUT).await;
}

#[tokio::test]
async fn zookeeper_holds_registrations_as_long_as_their_session() {
    let zookeeper = ZooKeeper::start().await;
    let mut operator = zookeeper.registrar().await;
    let address: SocketAddr = ([127, 0, 0, 1], 4222).into();
    let mut node = zookeeper.registrar().await;
    node.announce(Record::Plain, "n1", address).await;
    assert_eq!(operator.get("/standin/nodes/n1").await, "127.0.0.1:4222");
    node.close().await;
    assert_eq!(operator.children("/standin/nodes").await, [""; 0]);

    let mut node = zookeeper.registrar().await;
    node.announce(Record::Plain, "n1", address).await;
    drop(node);
    assert_eq!(
        operator.children("/standin/nodes").await,
        ["n1"],
        "the ephemeral znode stays until the session timeout"
    );
    eventually("the session of the dead node times out", TIMEOUT, async || {
        operator.children("/standin/nodes").await.is_empty()
    })
    .await;
}

/// Other tests wait for routes and interest with the help of HTTP pages, which change from version to version.
#[tokio::test]
async fn a_mesh_of_real_nodes_is_complete_after_its_start_a_kill_a_freeze_and_a_new_node() {
    let mut mesh = Mesh::start(ServerKind::NatsServer, 3).await;
    let mut subscriber = mesh.nodes[0].client().await;
    subscriber
        .send("SUB a 1\r\nSUB a 2\r\nSUB a q 3\r\nSUB a q 4\r\nUNSUB 2\r\n")
        .await;
    subscriber.flush().await;
    mesh.wait_until_agreed().await;
    let here = Links::read(mesh.nodes[0].http()).await.expect("pages");
    let there = Links::read(mesh.nodes[2].http()).await.expect("pages");
    let known = there.to(&here.id).expect("a route");
    assert_eq!((&*known.name, known.interest), ("n1", 2), "{known:?}");

    let before = mesh.nodes[1].figures();
    assert!(
        before.threads > 1 && before.open_files > 8 && before.resident_kib > 1000,
        "{before:?}"
    );
    mesh.nodes[1].kill();
    assert_eq!(mesh.nodes[1].figures().threads, 0);
    assert_eq!(mesh.answering(), [0, 2]);
    mesh.wait_until_whole().await;
    mesh.nodes[1].restart().await;
    mesh.wait_until_agreed().await;
    let mut publisher = mesh.nodes[1].client().await;
    publisher.publish("a", "hi").await;
    subscriber.read_until("MSG").await;

    mesh.nodes[1].freeze().await;
    assert_eq!(mesh.answering(), [0, 2]);
    mesh.wait_until_agreed().await;
    mesh.nodes[1].thaw();
    assert!(mesh.nodes[2].stop(TIMEOUT).await.success());
    let new_node = mesh.start_one_more().await;
    assert_eq!((new_node, mesh.answering()), (3, vec![0, 1, 3]));
    mesh.wait_until_whole().await;
}

#[tokio::test]
async fn receipts_show_lost_duplicated_reordered_and_unknown_messages() {
    let mut mesh = Mesh::builder(ServerKind::NatsServer, 2).seeded().start().await;
    let subscriber = mesh.nodes[1].subscriber("flow.*").await;
    mesh.wait_until_agreed().await;
    let receiving = Receiving::start(subscriber, "the subscriber");
    let flow = |name: &str, client: RawClient| {
        Publishing::start(client, name, &format!("flow.{name}"), Duration::from_millis(1))
    };
    let flows = [
        flow("x", mesh.nodes[0].client().await),
        flow("y", mesh.nodes[1].client().await),
    ];
    eventually("both have published", TIMEOUT, async || {
        flows.iter().all(|flow| flow.count() > 20) && receiving.count() > 20
    })
    .await;
    let mut ledger = Ledger::new();
    for flow in flows {
        ledger.add(&flow.stop().await.1);
    }
    let (mut subscriber, mut receipts) = receiving.stop().await;
    receipts.gather(&mut subscriber, &ledger, TIMEOUT).await;
    receipts.assert_whole(&ledger);
    assert_eq!(receipts.total(), ledger.total());

    // One message is lost, one is received twice and the second time late, and one was never published.
    let mut publisher = mesh.nodes[1].client().await;
    let (first, second, third) = (ledger.next("z"), ledger.next("z"), ledger.next("z"));
    for payload in [&*first, &second, &first, "z 9"] {
        publisher.publish("flow.z", payload).await;
    }
    publisher.flush().await;
    let mut bad = Receipts::new("the same subscriber");
    bad.add(&receipts);
    bad.take_all(&subscriber.flush().await);
    let entry = |number| vec![("z".to_owned(), number)];
    assert_eq!(third, "z 3");
    assert_eq!(bad.missing(&ledger), entry(3));
    assert_eq!(bad.repeated(), entry(1));
    assert_eq!(bad.disordered(), entry(1));
    assert_eq!(bad.unknown(&ledger), entry(9));
}

/// Connects host `from` to host `to`, and returns both ends.
async fn socket(lan: &Lan, from: usize, to: usize) -> (TcpStream, TcpStream) {
    let listener = listener(lan, to);
    let address = listener.local_addr().expect("bound");
    let (near, far) = tokio::join!(lan.host(from).connect(address), listener.accept());
    (near.expect("the cable works"), far.expect("accepted").0)
}

fn listener(lan: &Lan, host: usize) -> TcpListener {
    lan.host(host).listen(0).expect("a free port of the host")
}

async fn arrives(from: &mut TcpStream, to: &mut TcpStream, wait: Duration) -> bool {
    from.write_all(b"x").await.expect("the kernel takes it");
    let mut byte = [0];
    match timeout(wait, to.read_exact(&mut byte)).await {
        Ok(read) => read.map(|count| count == 1).expect("no reset"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_partition_drops_everything_between_hosts_until_it_heals() {
    let mut lan = Lan::new(3);
    let (mut a, mut b) = socket(&lan, 0, 1).await;
    let (mut c, mut d) = socket(&lan, 2, 1).await;
    assert!(arrives(&mut a, &mut b, TIMEOUT).await && arrives(&mut b, &mut a, TIMEOUT).await);
    lan.partition(&[&[0], &[1, 2]]);
    assert!(!arrives(&mut a, &mut b, SILENCE).await && !arrives(&mut b, &mut a, SILENCE).await);
    assert!(
        arrives(&mut c, &mut d, TIMEOUT).await,
        "hosts of one group reach each other"
    );
    assert!(
        timeout(
            SILENCE,
            lan.host(0)
                .connect(listener(&lan, 2).local_addr().expect("bound"))
        )
        .await
        .is_err(),
        "not even a refusal"
    );
    lan.heal();
    let mut byte = [0];
    for half in [&mut a, &mut b] {
        timeout(TIMEOUT, half.read_exact(&mut byte))
            .await
            .expect("what was sent during the partition arrives")
            .expect("no reset");
    }
    assert!(arrives(&mut a, &mut b, TIMEOUT).await);

    // A host in none of the groups reaches both.
    lan.partition(&[&[0], &[2]]);
    assert!(arrives(&mut a, &mut b, TIMEOUT).await && arrives(&mut c, &mut d, TIMEOUT).await);
    lan.heal();

    // In one direction: everything that 0 sends to 1 is lost, its TCP acks too.
    lan.silence(0, 1);
    assert!(arrives(&mut b, &mut a, TIMEOUT).await, "0 gets what 1 sends");
    assert!(!arrives(&mut a, &mut b, SILENCE).await, "1 gets nothing from 0");
    lan.heal();
    timeout(TIMEOUT, b.read_exact(&mut byte))
        .await
        .expect("works again")
        .expect("no reset");
}

#[tokio::test]
async fn a_cable_is_slow_or_loses_frames_until_it_is_repaired() {
    const DELAY: Duration = Duration::from_millis(50);
    let mut lan = Lan::new(2);
    let (mut a, mut b) = socket(&lan, 0, 1).await;
    lan.slow_all(DELAY, 0.0).await;
    let since = Instant::now();
    assert!(arrives(&mut a, &mut b, TIMEOUT).await && arrives(&mut b, &mut a, TIMEOUT).await);
    assert!(since.elapsed() >= 2 * DELAY, "{:?}", since.elapsed());

    // Large writes: frames that the kernel has not yet split into segments pass as well.
    let much = vec![7; 2_000_000];
    let mut all = vec![0; much.len()];
    let (sent, read) = tokio::join!(a.write_all(&much), timeout(TIMEOUT, b.read_exact(&mut all)));
    sent.expect("sent");
    read.expect("in time").expect("no reset");
    assert!(all == much, "the bytes were changed");

    lan.heal();
    // Frames in flight were lost, so the first round trip may wait for a retransmission.
    eventually("as quick as before", TIMEOUT, async || {
        let since = Instant::now();
        arrives(&mut a, &mut b, TIMEOUT).await
            && arrives(&mut b, &mut a, TIMEOUT).await
            && since.elapsed() < DELAY
    })
    .await;

    // First all frames are lost, then some of them. TCP copes with the latter.
    lan.slow(0, Duration::ZERO, 1.0).await;
    assert!(!arrives(&mut a, &mut b, SILENCE).await);
    lan.slow(0, Duration::ZERO, 0.05).await;
    timeout(TIMEOUT, b.read_exact(&mut [0]))
        .await
        .expect("retransmitted")
        .expect("no reset");
    for _ in 0..20 {
        assert!(arrives(&mut a, &mut b, TIMEOUT).await && arrives(&mut b, &mut a, TIMEOUT).await);
    }
}
