//! A node that was stopped for a while and goes on: what came in meanwhile counts, unless who sent it has given the node up.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Maker, Mesh, MeshNode, PATIENCE, RawClient, Sidecar, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const LONG: Duration = Duration::from_secs(30);
/// As long as a sidecar takes to give a node up, about.
const FREEZE: Duration = Duration::from_secs(1);
const NO_ECHO: &str = r#"CONNECT {"verbose":false,"pedantic":false,"echo":false}"#;

/// Connects to a node that cannot take the connection now, and publishes.
async fn publish_unheard(address: SocketAddr, payload: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the system takes connections");
    let bytes = format!(
        "CONNECT {{\"verbose\":false}}\r\nPUB news {}\r\n{payload}\r\n",
        payload.len()
    );
    stream.write_all(bytes.as_bytes()).await.expect("a socket");
    stream
}

/// What a client was sent until now, sorted.
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
async fn what_connections_sent_before_they_were_reset_is_not_delivered_and_what_was_closed_in_order_is() {
    let mut mesh = Mesh::start(Maker::Ours, 1).await;
    let node = &mut mesh.nodes[0];
    let mut subscriber = node.client().await;
    subscriber.subscribe("news", "1").await;
    subscriber.flush().await;
    // One component on two connections, as a sidecar moves it: it does not want its own messages back.
    let mut moved_from = RawClient::open_with(node.address(), NO_ECHO).await;
    let mut moved_to = RawClient::open_with(node.address(), NO_ECHO).await;
    moved_to.subscribe("news", "1").await;
    moved_to.flush().await;
    let mut given_up = Vec::new();
    for _ in 0..20 {
        given_up.push(node.client().await);
    }
    let mut closed = node.client().await;
    let mut stays = node.client().await;
    // Past its first PING nothing but the reset itself tells the node that a client is gone.
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
    let never_taken = publish_unheard(node.address(), "old").await;
    never_taken.set_zero_linger().expect("a socket");
    drop(never_taken);
    closed.publish("news", "closed").await;
    closed.close().await;
    drop(publish_unheard(node.address(), "closed at once").await);
    stays.publish("news", "new").await;
    tokio::time::sleep(FREEZE).await;
    node.thaw();

    eventually("only who stays is there", LONG, async || {
        node.varz("connections").await == Some(3)
    })
    .await;
    stays.flush().await;
    let wanted = ["closed", "closed at once", "new"];
    assert_eq!(payloads(&mut subscriber).await, wanted);
    assert_eq!(payloads(&mut moved_to).await, wanted);
    node.process()
        .wait_for_line("worker was paused; connections reset meanwhile are closed", LONG)
        .await;
}

#[tokio::test]
async fn what_a_client_resets_behind_its_last_message_is_delivered_by_a_node_that_was_not_stopped() {
    let mesh = Mesh::start(Maker::Ours, 1).await;
    let node = &mesh.nodes[0];
    let mut subscriber = node.client().await;
    subscriber.subscribe("news", "1").await;
    subscriber.flush().await;
    for round in 0..50 {
        let mut careless = node.client().await;
        careless.publish("news", round.to_string()).await;
        careless.reset();
        subscriber.expect_message("1", "news", &round.to_string()).await;
    }
}

#[tokio::test]
async fn what_a_node_sent_before_it_gave_up_the_link_is_not_delivered() {
    let mut mesh = Mesh::builder(Maker::Ours, 2)
        .setting("cluster.ping_interval_ms", 200)
        .setting("cluster.ping_timeout_ms", 600)
        .setting("cluster.redial_ms_max", 500)
        .start()
        .await;
    let mut subscriber = mesh.nodes[1].client().await;
    subscriber.subscribe("news", "1").await;
    subscriber.flush().await;
    mesh.wait_until_agreed().await;
    let mut publisher = mesh.nodes[0].client().await;
    for round in 0..3 {
        mesh.nodes[1].freeze().await;
        for _ in 0..100 {
            publisher.publish("news", format!("old {round}")).await;
        }
        publisher.flush().await;
        mesh.wait_until_linked(&[0]).await;
        eventually("the link is given up", LONG, async || {
            mesh.nodes[0].varz("routes").await == Some(0)
        })
        .await;
        mesh.nodes[1].thaw();
        mesh.wait_until_whole().await;
        mesh.wait_until_agreed().await;
        publisher.publish("news", format!("new {round}")).await;
        subscriber
            .expect_message("1", "news", &format!("new {round}"))
            .await;
    }
}

/// What a component said to a frozen node behind a sidecar was counted as lost when the sidecar gave that node up.
#[tokio::test]
async fn s12_a_node_that_thaws_delivers_nothing_that_a_sidecar_has_counted_as_lost() {
    let mut mesh = Mesh::start(Maker::Ours, 2).await;
    let sidecar = Sidecar::builder()
        .upstream(mesh.nodes.iter().map(MeshNode::url))
        .start()
        .await;
    let mut publisher = RawClient::open(sidecar.address()).await;
    publisher.flush().await;
    let address = e2e::found("the session has a node", PATIENCE, async || {
        sidecar.node_of_session().await
    })
    .await;
    let frozen = usize::from(mesh.nodes[1].address() == address);
    let mut subscriber = mesh.nodes[1 - frozen].client().await;
    subscriber.subscribe("a", "1").await;
    subscriber.flush().await;
    mesh.wait_until_agreed().await;

    mesh.nodes[frozen].freeze().await;
    for _ in 0..5 {
        publisher.publish("a", "old").await;
    }
    eventually("the sidecar has given the node up", PATIENCE, async || {
        sidecar.node_of_session().await == Some(mesh.nodes[1 - frozen].address())
    })
    .await;
    publisher.publish("a", "new").await;
    publisher.flush().await;
    subscriber.set_patience(PATIENCE);
    subscriber.expect_message("1", "a", "new").await;
    let lost = sidecar.metrics().await.value("standin_lost_total", &[]);
    assert_eq!(lost as usize, 5, "what was sent to the frozen node is counted");
    mesh.nodes[frozen].thaw();
    mesh.wait_until_whole().await;
    publisher.publish("a", "last").await;
    publisher.flush().await;
    subscriber.expect_message("1", "a", "last").await;
}
