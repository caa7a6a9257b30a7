//! A node that was frozen and continues: it delivers what it received meanwhile, unless the sender has given up the connection.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Mesh, RawClient, ServerKind, Sidecar, TIMEOUT, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const LONG_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the gap after which a worker counts as paused.
const FREEZE: Duration = Duration::from_secs(1);
const NO_ECHO: &str = r#"CONNECT {"verbose":false,"pedantic":false,"echo":false}"#;

/// Connects to a frozen node, and publishes.
async fn publish_to_frozen(address: SocketAddr, payload: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the kernel accepts connections");
    let bytes = format!(
        "CONNECT {{\"verbose\":false}}\r\nPUB news {}\r\n{payload}\r\n",
        payload.len()
    );
    stream.write_all(bytes.as_bytes()).await.expect("a socket");
    stream
}

/// Returns the payloads that a client has received until now, sorted.
async fn payloads(client: &mut RawClient) -> Vec<String> {
    let frames = client.flush().await;
    let mut payloads: Vec<String> = frames
        .iter()
        .map(|frame| String::from_utf8_lossy(frame.payload()).into_owned())
        .collect();
    payloads.sort();
    payloads
}

#[tokio::test]
async fn a_thawed_node_delivers_messages_of_closed_connections_and_none_of_reset_ones() {
    let mut mesh = Mesh::start(ServerKind::Standin, 1).await;
    let node = &mut mesh.nodes[0];
    let mut subscriber = node.subscriber("news").await;
    // Two connections of one component, both without echo: the one that its sidecar has left, and the one that it has moved to.
    let mut moved_from = RawClient::open_with(node.address(), NO_ECHO).await;
    let mut moved_to = RawClient::open_with(node.address(), NO_ECHO)
        .await
        .subscribed("news")
        .await;
    let mut given_up = Vec::new();
    for _ in 0..20 {
        given_up.push(node.client().await);
    }
    let mut closed = node.client().await;
    let mut stays = node.client().await;
    // After the first PING the node writes nothing to these clients, so only the reset shows the node that they are gone.
    for client in given_up.iter_mut().chain([&mut moved_from]) {
        assert_eq!(client.read_frame().await.verb(), "PING");
        client.send("PONG\r\n").await;
    }

    node.freeze().await;
    moved_from.publish("news", "own").await;
    moved_from.reset();
    for mut client in given_up {
        client.publish("news", "old").await;
        client.reset();
    }
    let never_accepted = publish_to_frozen(node.address(), "old").await;
    never_accepted.set_zero_linger().expect("a socket");
    drop(never_accepted);
    closed.publish("news", "closed").await;
    closed.close().await;
    drop(publish_to_frozen(node.address(), "closed at once").await);
    stays.publish("news", "new").await;
    tokio::time::sleep(FREEZE).await;
    node.thaw();

    eventually("only the open connections remain", LONG_TIMEOUT, async || {
        node.varz("connections").await == Some(3)
    })
    .await;
    stays.flush().await;
    let expected = ["closed", "closed at once", "new"];
    assert_eq!(payloads(&mut subscriber).await, expected);
    assert_eq!(payloads(&mut moved_to).await, expected);
    node.logs("worker was paused; connections reset meanwhile are closed")
        .await;
}

#[tokio::test]
async fn a_node_that_was_not_frozen_delivers_the_last_message_before_a_reset() {
    let mesh = Mesh::start(ServerKind::Standin, 1).await;
    let node = &mesh.nodes[0];
    let mut subscriber = node.subscriber("news").await;
    for round in 0..50 {
        let mut client = node.client().await;
        client.publish("news", round.to_string()).await;
        client.reset();
        subscriber.expect_message("1", "news", &round.to_string()).await;
    }
}

#[tokio::test]
async fn a_thawed_node_delivers_nothing_of_a_node_that_has_closed_the_route() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 2)
        .setting("cluster.ping_interval_ms", 200)
        .setting("cluster.ping_timeout_ms", 600)
        .setting("cluster.redial_ms_max", 500)
        .start()
        .await;
    let mut subscriber = mesh.nodes[1].subscriber("news").await;
    mesh.wait_until_agreed().await;
    let mut publisher = mesh.nodes[0].client().await;
    for round in 0..3 {
        mesh.nodes[1].freeze().await;
        for _ in 0..100 {
            publisher.publish("news", format!("old {round}")).await;
        }
        publisher.flush().await;
        mesh.wait_until_linked(&[0]).await;
        eventually("the route is closed", LONG_TIMEOUT, async || {
            mesh.nodes[0].varz("routes").await == Some(0)
        })
        .await;
        mesh.nodes[1].thaw();
        mesh.wait_until_agreed().await;
        publisher.publish("news", format!("new {round}")).await;
        subscriber
            .expect_message("1", "news", &format!("new {round}"))
            .await;
    }
}

/// When the sidecar left the frozen node, it counted as lost what its component had sent to that node.
#[tokio::test]
async fn s12_a_thawed_node_delivers_nothing_that_a_sidecar_has_counted_as_lost() {
    let mut mesh = Mesh::start(ServerKind::Standin, 2).await;
    let sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let mut publisher = RawClient::open(sidecar.address()).await;
    publisher.flush().await;
    let address = sidecar.wait_for_node_of_session().await;
    let frozen = usize::from(mesh.nodes[1].address() == address);
    let mut subscriber = mesh.nodes[1 - frozen].subscriber("a").await;
    mesh.wait_until_agreed().await;

    mesh.nodes[frozen].freeze().await;
    for _ in 0..5 {
        publisher.publish("a", "old").await;
    }
    eventually("the sidecar has left the node", TIMEOUT, async || {
        sidecar.node_of_session().await == Some(mesh.nodes[1 - frozen].address())
    })
    .await;
    publisher.publish("a", "new").await;
    publisher.flush().await;
    subscriber.set_timeout(TIMEOUT);
    subscriber.expect_message("1", "a", "new").await;
    let lost = sidecar.metric("standin_lost_total").await;
    assert_eq!(lost as usize, 5, "messages sent to the frozen node");
    mesh.nodes[frozen].thaw();
    mesh.wait_until_whole().await;
    publisher.publish("a", "last").await;
    publisher.flush().await;
    subscriber.expect_message("1", "a", "last").await;
}
