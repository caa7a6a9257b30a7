//! Connections at the mesh's port that do not belong to the mesh are refused with a reason, and slow nodes are tolerated. Clients
//! notice neither.

use std::collections::VecDeque;
use std::time::Duration;

use e2e::{Ledger, Mesh, RawClient, Receipts, ServerKind, TIMEOUT, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const REFUSED: Duration = Duration::from_secs(5);

/// Starts three nodes, of which `outsider` has the flags `other_flags`. Checks that the other two form a cluster without a route to it, and
/// that all three log `reason`.
async fn is_refused(outsider: usize, other_flags: &[&str], flags: &[&str], reason: &str) {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.sync_timeout_ms", 2000)
        .describe();
    for (index, node) in mesh.nodes.iter_mut().enumerate() {
        let flags = if index == outsider { other_flags } else { flags };
        let address = node.cluster_address().to_string();
        for flag in flags {
            node.add_flags(&[&flag.replace("ADDRESS", &address)]);
        }
    }
    let members: Vec<usize> = (0..3).filter(|index| *index != outsider).collect();
    for node in &mut mesh.nodes {
        node.launch();
    }
    for node in &mut mesh.nodes {
        node.wait_until_ready().await;
    }
    mesh.wait_until_linked(&members).await;
    for index in [0, 1, 2] {
        let line = mesh.nodes[index].process().wait_for_line(reason, REFUSED).await;
        assert!(line.text.contains("ERROR"), "{line:?}");
    }
    mesh.wait_until_linked(&[outsider]).await;

    // A publish on one of the two reaches the other one and not the outsider.
    let mut clients = Vec::new();
    for node in &mesh.nodes {
        clients.push(node.subscriber("a").await);
    }
    clients[members[0]].publish("a", "hi").await;
    for member in &members {
        clients[*member].expect_message("1", "a", "hi").await;
    }
    clients[members[0]].flush().await;
    assert!(clients[outsider].flush().await.is_empty());
    mesh.wait_until_agreed_among(&members).await;
    // Not even a short-lived route was made. It would have passed messages.
    for index in members {
        let name = format!("linked with n{}", outsider + 1);
        mesh.nodes[index].process().assert_no_line(&name);
    }
    let process = mesh.nodes[outsider].process();
    process.assert_no_line("linked with");
}

/// Checks that a node is refused whether its name is the lowest or the highest: of two nodes the one with the lower name decides which
/// of their routes stays.
async fn is_refused_with_any_name(other_flags: &[&str], flags: &[&str], reason: &str) {
    tokio::join!(
        is_refused(0, other_flags, flags, reason),
        is_refused(2, other_flags, flags, reason)
    );
}

const PASSWORD: &[&str] = &["--cluster", "nats://u:p@ADDRESS"];
const WRONG_PASSWORD: &[&str] = &["--cluster", "nats://u:wrong@ADDRESS"];
const REFUSED_PASSWORD: &str = "user or password of the cluster are wrong";

cases! {
    is_refused_with_any_name =>
    a_node_with_another_cluster_name_is_refused(&["--cluster_name", "other"], &[], "the clusters' names differ");
    a_node_with_a_wrong_password_is_refused(WRONG_PASSWORD, PASSWORD, REFUSED_PASSWORD);
    a_node_without_a_password_is_refused(&[], PASSWORD, REFUSED_PASSWORD);
}

#[tokio::test]
async fn nodes_with_the_right_password_form_one_cluster() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    for node in &mut mesh.nodes {
        let url = format!("nats://u:p@{}", node.cluster_address());
        node.add_flags(&["--cluster", &url]);
    }
    mesh.start_all().await;
    mesh.wait_until_agreed().await;
}

/// No retry of such a route can succeed.
#[tokio::test]
async fn a_route_to_the_wrong_port_of_a_node_or_to_a_nats_server_is_logged_as_an_error() {
    let (node, other) = tokio::join!(
        Mesh::start(ServerKind::Standin, 1),
        Mesh::start(ServerKind::NatsServer, 1)
    );
    let (node, other) = (&node.nodes[0], &other.nodes[0]);
    for (address, words) in [
        (node.address(), &["the port for clients", "--cluster"][..]),
        (
            other.address(),
            &[
                "it is the port for clients of a NATS server",
                "is not a mesh node",
                "--cluster",
            ],
        ),
        (
            other.cluster_address(),
            &["it is the port for routes of a nats-server", "is not a mesh node"],
        ),
    ] {
        let mut mesh = Mesh::builder(ServerKind::Standin, 1).describe();
        mesh.nodes[0].add_flags(&["--routes", &format!("nats://{address}")]);
        mesh.nodes[0].restart().await;
        let line = mesh.nodes[0].logs(words[0]).await;
        for word in words.iter().chain(&["ERROR", &address.to_string()]) {
            assert!(line.contains(word), "{word} is missing in {line}");
        }
    }
}

#[tokio::test]
async fn connections_that_are_not_nodes_do_no_harm_at_the_port_for_nodes() {
    let mut mesh = Mesh::start(ServerKind::Standin, 2).await;
    let before = mesh.nodes[0].figures();
    let mut subscriber = mesh.nodes[1].subscriber("a").await;
    let address = mesh.nodes[0].cluster_address();
    let inputs: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT {\"verbose\":false}\r\nPING\r\n",
        b"INFO {\"server_id\":\"x\",\"cluster\":\"mesh\"}\r\nCONNECT {}\r\nRS+ $G a\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 100_000],
        b"",
        b"S",
    ];
    let mut silent = Vec::new();
    for input in inputs {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        // Fails if the node closes before it has read everything.
        let _ = stream.write_all(input).await;
        silent.push(stream);
    }
    for stream in &mut silent {
        let mut received = Vec::new();
        let end = timeout(TIMEOUT, stream.read_to_end(&mut received)).await;
        assert!(end.is_ok(), "the connection was not closed");
    }
    let mut publisher = mesh.nodes[0].client().await;
    publisher.publish("a", "hi").await;
    subscriber.expect_message("1", "a", "hi").await;
    publisher.close().await;
    mesh.wait_until_agreed().await;
    eventually("all files are closed", TIMEOUT, async || {
        mesh.nodes[0].figures().open_files <= before.open_files
    })
    .await;
}

/// There are always more silent connections than the limit on pending handshakes, and new ones replace old ones.
#[tokio::test]
async fn a_crowd_of_silent_connections_does_not_keep_a_node_out_of_the_mesh() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 2).describe();
    mesh.nodes[0].restart().await;
    let address = mesh.nodes[0].cluster_address();
    let crowding = tokio::spawn(async move {
        let mut crowd = VecDeque::new();
        loop {
            crowd.push_back(TcpStream::connect(address).await.expect("the server listens"));
            if crowd.len() > 300 {
                crowd.pop_front();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let process = mesh.nodes[0].process();
    process
        .wait_for_line("too many pending handshakes", TIMEOUT)
        .await;
    mesh.nodes[1].restart().await;
    mesh.wait_until_agreed().await;
    mesh.nodes[1].process().assert_no_line("not synced within");
    crowding.abort();
    let lines = mesh.nodes[0].process().count_lines("too many pending handshakes");
    assert_eq!(lines, 1, "logged once a minute");
}

#[tokio::test]
async fn a_node_with_its_own_address_among_its_routes_makes_no_route_to_itself() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 2).describe();
    let all: Vec<String> = mesh
        .nodes
        .iter()
        .map(|node| format!("nats://{}", node.cluster_address()))
        .collect();
    // The first node's address by host name too. The node recognizes this one as its own only after it has connected.
    let by_name = all[0].replace("127.0.0.1", "localhost");
    for node in &mut mesh.nodes {
        node.add_flags(&["--routes", &format!("{},{by_name}", all.join(","))]);
    }
    mesh.start_all().await;
    let mut client = mesh.nodes[0].subscriber("a").await;
    client.publish("a", "hi").await;
    client.expect_message("1", "a", "hi").await;
    assert!(client.flush().await.is_empty(), "received twice");
    mesh.wait_until_agreed().await;
    let process = mesh.nodes[0].process();
    assert!(
        !process.has_line("ERROR") && !process.has_line("linked with n1"),
        "{}",
        process.tail()
    );
}

/// One node is frozen while others publish to its clients as fast as they can.
#[tokio::test]
async fn a_node_that_reads_nothing_costs_the_others_bounded_memory_and_does_not_delay_their_clients() {
    const PENDING: usize = 4 << 20;
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.max_pending", PENDING)
        .setting("cluster.ping_timeout_ms", 60_000)
        .start()
        .await;
    let mut far = mesh.nodes[2].subscriber("load").await;
    let mut near = mesh.nodes[0].subscriber("local").await;
    mesh.wait_until_agreed().await;
    let before = mesh.nodes[0].figures().resident_kib;
    mesh.nodes[2].freeze().await;

    let mut loader = mesh.nodes[0].client().await;
    let mut publisher = mesh.nodes[1].client().await;
    let mut ledger = Ledger::new();
    let mut receipts = Receipts::new("the client of another node");
    let load = e2e::raw::pub_frame("load", vec![b'x'; 60_000]);
    for _ in 0..60 {
        for _ in 0..20 {
            loader.send(&load).await;
        }
        ledger.publish(&mut publisher, "p", "local", 10).await;
        receipts.gather(&mut near, &ledger, Duration::from_secs(3)).await;
        let grown = mesh.nodes[0].figures().resident_kib.saturating_sub(before);
        assert!(grown < 40 * 1024, "memory grew by {grown} KiB");
    }
    receipts.assert_whole(&ledger);
    mesh.nodes[0].logs("the route with n3 is lost").await;

    mesh.nodes[2].thaw();
    mesh.wait_until_agreed().await;
    // Messages sent to the frozen node before may arrive or not. Messages published from now on arrive once.
    publisher.publish("load", "after").await;
    let mut copies = 0;
    eventually("the message after the thaw", TIMEOUT, async || {
        let frames = far.frames_for(Duration::from_millis(20)).await;
        copies += frames.iter().filter(|frame| frame.payload() == b"after").count();
        copies > 0
    })
    .await;
    reaches(&mut loader, &mut far).await;
    assert_eq!(copies, 1);
}

async fn reaches(publisher: &mut RawClient, subscriber: &mut RawClient) {
    publisher.publish("load", "end").await;
    subscriber.expect_message("1", "load", "end").await;
}
