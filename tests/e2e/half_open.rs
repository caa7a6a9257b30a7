//! Nodes that fail without a reset or an end of stream: the sidecar finds out by their silence, within the probe times. And nodes
//! that close only their sending half: they send nothing more and still read.

use crate::site::{Site, component_of, is_served};
use e2e::sidecar::SidecarBuilder;
use e2e::{Lan, Library, Mesh, Netns, RawClient, Record, ServerKind, Sidecar, ZooKeeper, eventually};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PROBE_INTERVAL: Duration = Duration::from_millis(400);
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);

/// Time for the move itself, on a busy test machine.
const ALLOWANCE: Duration = Duration::from_millis(500);

fn quick_probes(sidecar: SidecarBuilder) -> SidecarBuilder {
    let (interval, timeout) = (
        PROBE_INTERVAL.as_millis() as u64,
        PROBE_TIMEOUT.as_millis() as u64,
    );
    sidecar
        .setting("health.probe_interval_ms", interval)
        .setting("health.probe_timeout_ms", timeout)
}

#[tokio::test]
async fn a_frozen_node_is_left_within_the_probe_times() {
    let mut site = Site::start_with(Record::Plain, 3, quick_probes).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    let frozen = site.node_of_session().await.expect("the session has a node");
    site.cluster.nodes[frozen].process().freeze().await;
    let since = Instant::now();
    site.session_moved_from(frozen).await;
    let silence = since.elapsed();
    assert!(
        silence < PROBE_INTERVAL + PROBE_TIMEOUT + ALLOWANCE,
        "it took {silence:?}"
    );
    is_served(&mut component, "moved").await;
}

/// One ZooKeeper host is behind a cut cable, where SYNs are lost and nothing answers.
#[tokio::test]
async fn nodes_are_found_although_a_zookeeper_host_does_not_answer_syn() {
    let mut lan = Lan::new(2);
    let zookeeper = ZooKeeper::start_on(lan.host(0)).await;
    let cluster = Mesh::builder(ServerKind::NatsServer, 1).start_across(&lan).await;
    let mut registrar = zookeeper.registrar().await;
    registrar
        .announce(Record::Plain, "n1", cluster.nodes[0].address())
        .await;
    lan.partition(&[&[0], &[1]]);
    let dead = SocketAddr::new(lan.host(1).address(), 2181);
    // Hosts are tried in random order. Some of the six rounds begin with a dead one.
    for round in 0..6 {
        let sidecar = Sidecar::builder()
            .inside(lan.host(0))
            .setting("nodes.zookeeper", format!("{dead},{},{dead}", zookeeper.hosts()))
            .start()
            .await;
        eventually(
            format!("the node is found, round {round}"),
            Duration::from_secs(10),
            async || sidecar.nodes().await["total"] == 1,
        )
        .await;
    }
}

#[tokio::test]
async fn a_node_behind_a_cut_cable_is_left_within_the_probe_times() {
    let mut lan = Lan::new(2);
    let cluster = Mesh::builder(ServerKind::NatsServer, 2).start_across(&lan).await;
    let sidecar = quick_probes(Sidecar::builder())
        .inside(lan.host(0))
        .nodes(&cluster.nodes)
        .start()
        .await;
    let mut clients = sessions_on_both_nodes(lan.host(0), &sidecar).await;
    for client in &mut clients {
        client.subscribe("own", "1").await;
        client.flush().await;
    }

    lan.partition(&[&[0], &[1]]);
    let since = Instant::now();
    eventually(
        "all sessions are on the near node",
        Duration::from_secs(20),
        async || {
            sidecar
                .session_nodes()
                .await
                .iter()
                .all(|node| *node == Some(cluster.nodes[0].address()))
        },
    )
    .await;
    let silence = since.elapsed();
    assert!(
        silence < PROBE_INTERVAL + PROBE_TIMEOUT + ALLOWANCE,
        "it took {silence:?}"
    );

    let (first, others) = clients.split_first_mut().expect("there are clients");
    first.publish("own", "moved").await;
    first.expect_message("1", "own", "moved").await;
    for client in others {
        client.expect_message("1", "own", "moved").await;
    }
}

/// Connects components inside the near host until each node has a session.
async fn sessions_on_both_nodes(near: &Netns, sidecar: &Sidecar) -> Vec<RawClient> {
    let mut clients = Vec::new();
    eventually("both nodes have a session", Duration::from_secs(20), async || {
        let stream = near.connect(sidecar.address()).await;
        clients.push(RawClient::open_over(stream.expect("the sidecar listens")).await);
        let mut nodes = sidecar.session_nodes().await;
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len() == 2 && !nodes.contains(&None)
    })
    .await;
    clients
}

/// A relay in front of a node. It can close the direction from the node alone: what the sidecar sends still arrives.
struct HalfCloser {
    address: SocketAddr,
    closed: watch::Sender<bool>,
}

impl HalfCloser {
    async fn in_front_of(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (closed, _) = watch::channel(false);
        let sender = closed.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((sidecar, _)) = listener.accept().await else {
                    return;
                };
                // While closed, the relay sends this many bytes to a new connection before the end: the end comes within INFO,
                // after INFO, or after the first answers.
                let bytes_max = [0, 1, 100, 300, 420, 600][number % 6];
                tokio::spawn(pass(sidecar, node, sender.subscribe(), bytes_max));
            }
        });
        Self { address, closed }
    }

    fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

async fn pass(sidecar: TcpStream, node: SocketAddr, mut closed: watch::Receiver<bool>, bytes_max: usize) {
    let Ok(node) = TcpStream::connect(node).await else {
        return;
    };
    let (mut from_sidecar, mut to_sidecar) = sidecar.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_sidecar, &mut to_node).await;
        let _ = to_node.shutdown().await;
    };
    let down = async {
        if *closed.borrow() {
            let _ = tokio::io::copy(&mut (&mut from_node).take(bytes_max as u64), &mut to_sidecar).await;
        } else {
            tokio::select! {
                _ = tokio::io::copy(&mut from_node, &mut to_sidecar) => {}
                _ = closed.changed() => {}
            }
        }
        let _ = to_sidecar.shutdown().await;
        // The node keeps sending, and the bytes are dropped.
        let _ = tokio::io::copy(&mut from_node, &mut tokio::io::sink()).await;
    };
    tokio::join!(up, down);
}

#[tokio::test]
async fn every_session_leaves_a_node_that_closes_its_sending_half() {
    let cluster = Mesh::start(ServerKind::NatsServer, 3).await;
    let mut relays = Vec::new();
    for node in &cluster.nodes {
        relays.push(HalfCloser::in_front_of(node.address()).await);
    }
    let sidecar = Sidecar::builder()
        .upstream(relays.iter().map(HalfCloser::url))
        .setting("nodes.gossip", false)
        .start()
        .await;
    let mut clients = Vec::new();
    for number in 0..12 {
        let client = RawClient::open(sidecar.address())
            .await
            .subscribed(&format!("own.{number}"))
            .await;
        clients.push(client);
    }
    for round in 0..9 {
        let closed = &relays[round % 3].closed;
        closed.send_replace(true);
        for client in &mut clients {
            client.send("PING\r\n").await;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                client.read_command().await.verb(),
                "PONG",
                "component {number}, round {round}"
            );
            client.publish(&format!("own.{number}"), round.to_string()).await;
            client
                .expect_message("1", &format!("own.{number}"), &round.to_string())
                .await;
        }
        closed.send_replace(false);
    }
}
