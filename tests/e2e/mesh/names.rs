//! Cluster names, clients that connect to the port for nodes, and the addresses in INFO after the last peer died.

use std::time::{Duration, Instant};

use e2e::raw::CONNECT_NEW;
use e2e::{Conversation, Ending, Mesh, RawClient, ServerKind, TIMEOUT};
use serde_json::json;
use tokio::net::TcpStream;

const NO_NAME: [&str; 2] = ["--cluster_name", ""];

async fn cluster_of(mesh: &Mesh, index: usize) -> (String, String) {
    let info = RawClient::connect(mesh.nodes[index].address()).await.info();
    let varz = mesh.nodes[index].http().get_json("/varz").await.expect("a page");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&info["cluster"]), text(&varz["cluster"]["name"]))
}

#[tokio::test]
async fn a_node_without_a_cluster_name_adopts_that_of_the_cluster_it_joins() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    mesh.nodes[0].add_flags(&NO_NAME);
    mesh.nodes[2].add_flags(&NO_NAME);
    // The two nodes without a name join each other first.
    mesh.nodes[0].restart().await;
    mesh.nodes[2].restart().await;
    mesh.wait_until_whole().await;
    assert_eq!(cluster_of(&mesh, 0).await, (String::new(), String::new()));
    let mut client = RawClient::open_with(mesh.nodes[0].address(), CONNECT_NEW).await;
    mesh.nodes[1].restart().await;
    mesh.wait_until_agreed().await;
    for index in 0..3 {
        assert_eq!(cluster_of(&mesh, index).await, ("mesh".into(), "mesh".into()));
    }
    client.send("PING\r\n").await;
    let frames = client.read_until("PONG").await;
    let named = frames
        .iter()
        .any(|frame| frame.verb() == "INFO" && frame.json()["cluster"] == "mesh");
    assert!(named, "{frames:?}");

    // An adopted name counts as much as a configured one.
    let outsider = mesh.add();
    mesh.nodes[outsider].add_flags(&["--cluster_name", "other"]);
    mesh.nodes[outsider].restart().await;
    for index in [0, 2, outsider] {
        let process = mesh.nodes[index].process();
        let line = process.wait_for_line("the clusters' names differ", TIMEOUT).await;
        for name in ["\"mesh\"", "\"other\""] {
            assert!(line.text.contains(name), "{line:?}");
        }
    }
    mesh.wait_until_linked(&[0, 1, 2]).await;
    mesh.wait_until_linked(&[outsider]).await;
}

#[tokio::test]
async fn a_node_without_a_cluster_name_and_with_routes_to_two_clusters_joins_one() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    mesh.nodes[0].add_flags(&["--cluster_name", "east"]);
    mesh.nodes[1].add_flags(&NO_NAME);
    mesh.nodes[2].add_flags(&["--cluster_name", "west"]);
    for node in &mut mesh.nodes {
        node.launch();
    }
    for node in &mut mesh.nodes {
        node.wait_until_ready().await;
    }
    let line = mesh.nodes[1].logs("cluster name taken over").await;
    let (joined, other) = if line.contains("east") { (0, 2) } else { (2, 0) };
    mesh.nodes[1].logs("the clusters' names differ").await;
    mesh.wait_until_linked(&[1, joined]).await;
    mesh.wait_until_linked(&[other]).await;
}

/// Checks that INFO lists the node's own address after the last peer died. Without the list a client would keep the address
/// of the dead node.
async fn lists_itself(kind: ServerKind) {
    let mut mesh = Mesh::builder(kind, 2).describe();
    mesh.nodes[0].restart().await;
    let own = json!([mesh.nodes[0].address().to_string()]);
    let alone = RawClient::connect(mesh.nodes[0].address()).await.info();
    assert!(alone["connect_urls"].is_null(), "{kind:?}: {alone}");
    mesh.nodes[1].restart().await;
    mesh.wait_until_whole().await;
    let mut client = RawClient::open_with(mesh.nodes[0].address(), CONNECT_NEW).await;
    mesh.nodes[1].kill();
    let since = Instant::now();
    loop {
        let frame = client.read_command().await;
        if frame.verb() == "INFO" && frame.json()["connect_urls"] == own {
            break;
        }
        assert!(since.elapsed() < TIMEOUT, "{kind:?}: {frame:?}");
    }
    let late = RawClient::connect(mesh.nodes[0].address()).await.info();
    assert_eq!(late["connect_urls"], own, "{kind:?}");
}

#[tokio::test]
async fn when_the_last_peer_dies_the_node_lists_itself_as_nats_server_does() {
    tokio::join!(
        lists_itself(ServerKind::Standin),
        lists_itself(ServerKind::NatsServer)
    );
}

#[tokio::test]
async fn a_client_at_the_port_for_nodes_gets_an_error_with_the_port_for_clients() {
    let mut mesh = Mesh::start(ServerKind::Standin, 2).await;
    let error = format!(
        "-ERR 'attempted to connect to route port; clients connect to {}'\r\n",
        mesh.nodes[0].address()
    );
    let open = async || {
        let stream = TcpStream::connect(mesh.nodes[0].cluster_address()).await;
        Conversation::new("misdirected client", stream.expect("the server listens"))
    };
    // Some libraries send first. Most wait for INFO, for at least two seconds.
    let mut eager = open().await;
    eager.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await;
    let mut patient = open().await;
    patient.set_timeout(Duration::from_millis(1900));
    for client in [&mut eager, &mut patient] {
        client.expect(&error).await;
        assert_eq!(client.expect_end().await, Ending::Closed);
    }
    mesh.nodes[0]
        .logs("a NATS client connected to the port for other nodes")
        .await;
    mesh.wait_until_whole().await;
}
