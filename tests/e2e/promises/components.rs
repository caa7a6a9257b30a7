//! Components that are too many, too slow, or gone at once, and their effect on others.

use super::scene::{Scene, nothing_else, session};
use e2e::conversation::Conversation;
use e2e::raw::{CONNECT_OLD, msg_frame};
use e2e::{Node, RawClient, ScriptedNode, ServerKind, Sidecar, TIMEOUT, eventually};
use std::io::Write;
use std::time::Duration;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_component_that_connects_and_closes_leaves_no_connection_to_the_node_and_counts_as_no_error() {
    let mut scene = Scene::start().await;
    for _ in 0..10 {
        let (client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        client.close().await;
        node.expect_end().await;
    }
    for _ in 0..10 {
        // This one does not wait for INFO.
        let probe = TcpStream::connect(scene.address)
            .await
            .expect("the sidecar listens");
        drop(probe);
    }
    scene.counted("standin_sessions_total", 20.0).await;
    scene.counted("standin_sessions", 0.0).await;
    for quiet in [
        "standin_client_errors_total",
        "standin_node_errors_total",
        "standin_failovers_total",
    ] {
        scene.counted(quiet, 0.0).await;
    }
}

#[tokio::test]
async fn a_component_that_never_reads_uses_bounded_memory_and_is_closed() {
    const PENDING_BYTES: usize = 65536;
    const READ_BYTES: usize = 256 * 1024;
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "1"),
    ];
    let (scene, client, mut node) = session(&settings).await;
    let flood = msg_frame("1", "a", vec![b'x'; 1000]).repeat(64 * 1024);
    let written = node.send_until_blocked(&flood, Duration::from_millis(200)).await;
    assert!(written < flood.len(), "the node was not blocked");
    let held = scene.metrics().await.value("standin_buffered_bytes") as usize;
    assert!(held <= PENDING_BYTES + READ_BYTES, "{held} bytes held");
    scene
        .counted("standin_sessions_closed_total{reason=component_slow}", 1.0)
        .await;
    node.read_to_end().await;
    drop(client);
    scene.counted("standin_buffered_bytes", 0.0).await;
}

/// The sidecar always has bytes of the component to read, so the session is never idle.
#[tokio::test]
async fn a_component_that_sends_all_the_time_and_never_reads_is_closed() {
    let nodes = [Node::start(ServerKind::Standin, &[]).await];
    let sidecar = Sidecar::builder()
        .nodes(&nodes)
        .setting("session.component_stall_secs", 1)
        .start()
        .await;
    let mut component = std::net::TcpStream::connect(sidecar.address()).expect("the sidecar listens");
    let hello = b"CONNECT {\"verbose\":false}\r\nSUB big 1\r\n";
    component.write_all(hello).expect("the component sends");
    let flood = "UNSUB 9\r\n".repeat(10_000);
    let sending = std::thread::spawn(move || while component.write_all(flood.as_bytes()).is_ok() {});
    let mut publisher = nodes[0].client().await;
    eventually("the subscription is on the node", TIMEOUT, async || {
        nodes[0].num_subscriptions().await == Some(1)
    })
    .await;
    for _ in 0..40 {
        publisher.publish("big", vec![b'x'; 1_000_000]).await;
    }
    eventually("the component is closed", TIMEOUT, async || sending.is_finished()).await;
    // The session is counted when its sockets are closed.
    let closed = "standin_sessions_closed_total{reason=component_slow}";
    eventually("the session is counted", TIMEOUT, async || {
        sidecar.metric(closed).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn components_over_the_limit_are_refused_until_another_one_leaves() {
    let (mut scene, client, mut node) = session(&[("limits.connections_max", "1")]).await;
    let stream = TcpStream::connect(scene.address)
        .await
        .expect("the sidecar listens");
    let mut refused = Conversation::new("component over the limit", stream);
    // No `-ERR` is sent: some client libraries would stop for good, although another component may leave soon.
    refused.expect_end().await;
    client.close().await;
    node.expect_end().await;
    scene.counted("standin_sessions", 0.0).await;
    let (mut client, mut node) = scene.open().await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn the_death_of_one_sessions_node_does_not_move_another_session() {
    let mut scene = Scene::start().await;
    let (mut one, node_of_one) = scene.open().await;
    let (mut other, mut node_of_other) = scene.open().await;
    node_of_one.reset();
    let mut node_of_one = scene.next_node("").await;
    // The other session only checks with a PING that its node is alive.
    node_of_other.answer_ping().await;
    nothing_else(&mut other, &mut node_of_other).await;
    nothing_else(&mut one, &mut node_of_one).await;
    assert_eq!(scene.node.accepted(), 3);
}

#[tokio::test]
async fn a_second_connect_is_passed_on_to_the_node() {
    let (_scene, mut client, mut node) = session(&[]).await;
    client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("PING\r\nPING\r\n").await;
    node.send("PONG\r\nPONG\r\n").await;
    client.expect_line("PONG").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_component_that_reads_again_within_component_stall_secs_gets_every_message() {
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "30"),
    ];
    let (_scene, mut client, mut node) = session(&settings).await;
    let flood: Vec<u8> = (0..32 * 1024)
        .flat_map(|n| msg_frame("1", "a", format!("{n:01000}")))
        .collect();
    let written = node.send_until_blocked(&flood, Duration::from_millis(200)).await;
    assert!(written < flood.len(), "the node was not blocked");
    let rest = flood[written..].to_vec();
    let sending = tokio::spawn(async move {
        node.send(rest).await;
        node
    });
    client.expect_commands(&flood).await;
    let mut node = sending.await.expect("the node has sent all");
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn messages_that_a_slow_component_has_not_read_survive_the_nodes_death() {
    let (mut scene, mut client, mut node) = session(&[("session.component_stall_secs", "30")]).await;
    // More than the socket holds, less than the sidecar may keep.
    let flood: Vec<u8> = (0..8 * 1024)
        .flat_map(|n| msg_frame("1", "a", format!("{n:01000}")))
        .collect();
    node.send(&flood).await;
    node.close().await;
    let mut node = scene.next_node("").await;
    node.send(msg_frame("1", "a", "next")).await;
    client
        .expect_commands([flood, msg_frame("1", "a", "next")].concat())
        .await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_node_is_not_judged_silent_while_the_component_does_not_read() {
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "30"),
        ("health.probe_interval_ms", "500"),
        ("health.probe_timeout_ms", "500"),
    ];
    let (mut scene, mut client, mut node) = session(&settings).await;
    let flood = msg_frame("1", "a", vec![b'x'; 1000]).repeat(32 * 1024);
    let written = node.send_until_blocked(&flood, Duration::from_millis(500)).await;
    assert!(written < flood.len(), "the node was not blocked");
    scene.node.expect_no_connection(Duration::from_millis(1500)).await;
    scene.counted("standin_failovers_total", 0.0).await;
    client.listen_for(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_component_that_connects_and_closes_logs_no_warning() {
    let mut node = ScriptedNode::start().await;
    let mut sidecar = Sidecar::builder().upstream([node.url()]).start().await;
    let serving = tokio::spawn(async move {
        loop {
            let mut connection = node.accept().await;
            tokio::spawn(async move { connection.read_to_end().await });
        }
    });
    for _ in 0..10 {
        drop(RawClient::connect(sidecar.address()).await);
        let probe = TcpStream::connect(sidecar.address()).await;
        drop(probe.expect("the sidecar listens"));
    }
    eventually("all sessions are over", TIMEOUT, async || {
        let metrics = sidecar.metrics().await;
        // The harness connected in the same way while it waited for the sidecar to listen.
        metrics.value("standin_sessions_total") > 20.0 && metrics.value("standin_sessions") < 1.0
    })
    .await;
    serving.abort();
    let lines = sidecar.process().lines();
    let loud = lines.iter().filter(|line| {
        [" WARN ", " ERROR "]
            .iter()
            .any(|level| line.text.contains(level))
    });
    let loud: Vec<_> = loud.collect();
    assert!(loud.is_empty(), "{loud:?}");
}

#[tokio::test]
async fn a_component_that_does_not_speak_nats_gets_an_error_and_is_closed() {
    let mut scene = Scene::start().await;
    for sent in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
        "\r\n\r\n",
    ] {
        let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        client.send(sent).await;
        node.answer_ping().await;
        client.expect_line("-ERR 'Unknown Protocol Operation'").await;
        client.expect_end().await;
        node.expect_end().await;
    }
}

#[tokio::test]
async fn a_component_with_a_control_line_over_the_limit_gets_an_error_and_is_closed() {
    let mut scene = Scene::start().await;
    for line_end in ["", "\r\n"] {
        let (mut client, mut node) = scene.open().await;
        client.send(format!("SUB {} 1{line_end}", "x".repeat(5000))).await;
        node.answer_ping().await;
        client.expect_line("-ERR 'maximum control line exceeded'").await;
        client.expect_end().await;
        node.expect_end().await;
    }
}
