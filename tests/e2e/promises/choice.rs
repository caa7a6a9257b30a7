//! Nodes that are no good, nodes that are about to go, and components that are too many, too slow, or gone at once.

use super::scene::{Scene, nothing_else};
use e2e::conversation::Conversation;
use e2e::raw::{CONNECT_OLD, msg_frame};
use e2e::{NodeConnection, RawClient, ScriptedNode};
use std::time::Duration;
use tokio::net::TcpStream;

/// A component gets its session although the first node is no good: `no_good` says what that one does.
async fn is_served_after(
    scene: &mut Scene,
    no_good: impl AsyncFnOnce(&mut ScriptedNode) -> Option<NodeConnection>,
) {
    let serving = async {
        let _kept = no_good(&mut scene.node).await;
        let (mut node, _) = scene.node.accept_session().await;
        node.expect_line("PING").await;
        node.pong().await;
        node
    };
    let address = scene.address;
    let (mut client, mut node) = tokio::join!(RawClient::open(address), serving);
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_node_that_accepts_and_says_nothing_is_passed_over() {
    let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "100")]).await;
    is_served_after(&mut scene, async |node| Some(node.accept_silently().await)).await;
}

#[tokio::test]
async fn a_node_that_stops_in_the_middle_of_its_info_is_passed_over() {
    let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "100")]).await;
    is_served_after(&mut scene, async |node| {
        let mut connection = node.accept_silently().await;
        connection.send("INFO {\"server_id\":\"half").await;
        Some(connection)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_none_is_passed_over() {
    for said in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "220 mail.example ESMTP\r\n",
        "\u{0}\u{1}\u{2}\u{3}",
        "INFO no json\r\n",
        "INFO {\"tls_required\":true}\r\n",
        "-ERR 'maximum connections exceeded'\r\n",
        "\r\n",
    ] {
        let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "500")]).await;
        is_served_after(&mut scene, async |node| {
            let mut connection = node.accept_silently().await;
            connection.send(said).await;
            Some(connection)
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_sends_garbage_in_the_middle_of_a_session_is_left_unseen() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = scene.open().await;
    for garbage in [
        "GARBAGE\r\n",
        "MSG a\r\n",
        "MSG a 1 2\r\nxyz\r\n",
        "MSG a 1 99999999999\r\n",
        "\u{0}",
    ] {
        let whole = msg_frame("1", "a", "whole");
        node.send([&whole[..], garbage.as_bytes(), &whole].concat()).await;
        client.expect(&whole).await;
        node = scene.next_node("").await;
        nothing_else(&mut client, &mut node).await;
    }
    scene
        .counted("standin_failovers_total", &[("cause", "protocol_error")], 5.0)
        .await;
}

#[tokio::test]
async fn info_in_single_bytes_is_taken() {
    let mut scene = Scene::start().await;
    let info = format!("INFO {}\r\n", scene.node.info_mut());
    let serving = async {
        let mut node = scene.node.accept_silently().await;
        for byte in info.as_bytes().chunks(1) {
            node.send(byte).await;
            tokio::task::yield_now().await;
        }
        node.handshake().await;
        node.expect_line("PING").await;
        node.pong().await;
        node
    };
    let (mut client, mut node) = tokio::join!(RawClient::open(scene.address), serving);
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn what_comes_behind_info_in_the_same_packet_is_taken() {
    let mut scene = Scene::start().await;
    let greeting = format!("INFO {}\r\nPING\r\n", scene.node.info_mut());
    let serving = async {
        let mut node = scene.node.accept_silently().await;
        node.send(greeting).await;
        node.expect_line("PONG").await;
        node.handshake().await;
        node.expect_line("PING").await;
        node.pong().await;
        node
    };
    let (mut client, mut node) = tokio::join!(RawClient::open(scene.address), serving);
    nothing_else(&mut client, &mut node).await;
}

/// Two nodes; the component is on the first, and the second is there to move to.
async fn two_nodes(policy: &str) -> (Scene, ScriptedNode) {
    let first = ScriptedNode::start().await;
    let mut second = ScriptedNode::start().await;
    second.stop_listening();
    let upstream = format!("['{}', '{}']", first.url(), second.url());
    let scene = Scene::around(
        first,
        &[("nodes.upstream", &upstream), ("publish.in_doubt", policy)],
    )
    .await;
    (scene, second)
}

/// The node behind this connection takes the session over, and is told this.
async fn takes_over(mut node: NodeConnection, replayed: &str) -> NodeConnection {
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect(replayed).await;
    node.expect_line("PING").await;
    node.pong().await;
    node
}

async fn is_left_in_order(policy: &str) {
    let (mut scene, mut second) = two_nodes(policy).await;
    let (mut client, mut node) = scene.open().await;
    second.listen_again().await;
    client.send("SUB a 1\r\nPUB a 1\r\n1\r\n").await;
    node.expect("SUB a 1\r\nPUB a 1\r\n1\r\n").await;
    let mut info = scene.node.info_mut().clone();
    info["ldm"] = true.into();
    node.inform(&info).await;

    // The old node gets nothing more but a PING, and all that it still has to say is heard.
    let next = second.accept().await;
    node.expect_line("PING").await;
    client.send("PUB a 1\r\n2\r\nPING\r\n").await;
    node.send(msg_frame("1", "a", "1")).await;
    client.expect(msg_frame("1", "a", "1")).await;
    node.pong().await;
    let mut next = takes_over(next, "SUB a 1\r\n").await;
    node.expect_end().await;
    next.expect("PUB a 1\r\n2\r\nPING\r\n").await;
    next.pong().await;
    client.expect_line("PONG").await;
    nothing_else(&mut client, &mut next).await;
    scene.counted("standin_in_doubt_total", &[], 0.0).await;
    scene
        .counted("standin_failovers_total", &[("cause", "lame_duck")], 1.0)
        .await;
}

#[tokio::test]
async fn a_node_about_to_go_is_kept_while_there_is_no_other() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = scene.open().await;
    let mut info = scene.node.info_mut().clone();
    scene.node.stop_listening();
    info["ldm"] = true.into();
    node.inform(&info).await;
    client.send("PUB a 1\r\n1\r\n").await;
    node.expect("PUB a 1\r\n1\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_node_about_to_go_that_dies_before_it_is_left_is_moved_from_all_the_same() {
    let (mut scene, mut second) = two_nodes("'drop'").await;
    let (mut client, mut node) = scene.open().await;
    let mut info = scene.node.info_mut().clone();
    info["ldm"] = true.into();
    node.inform(&info).await;
    second.listen_again().await;
    let next = second.accept().await;
    node.expect_line("PING").await;
    scene.node.stop_listening();
    node.reset();
    let mut next = takes_over(next, "").await;
    nothing_else(&mut client, &mut next).await;
}

#[tokio::test]
async fn a_bare_connect_and_close_ends_the_nodes_connection_too_and_is_no_error() {
    let mut scene = Scene::start().await;
    for _ in 0..10 {
        let (client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        client.close().await;
        node.expect_end().await;
    }
    for _ in 0..10 {
        // One that does not even wait for INFO.
        let probe = TcpStream::connect(scene.address)
            .await
            .expect("the sidecar listens");
        drop(probe);
    }
    scene.counted("standin_sessions_total", &[], 20.0).await;
    scene.counted("standin_sessions", &[], 0.0).await;
    for quiet in [
        "standin_client_errors_total",
        "standin_node_errors_total",
        "standin_failovers_total",
    ] {
        scene.counted(quiet, &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_component_that_never_reads_costs_bounded_memory_and_is_closed() {
    const PENDING_BYTES: usize = 65536;
    const READ_BYTES: usize = 256 * 1024;
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "1"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (client, mut node) = scene.open().await;
    let flood = msg_frame("1", "a", vec![b'x'; 1000]).repeat(64 * 1024);
    let written = node.send_until_blocked(&flood, Duration::from_millis(200)).await;
    assert!(written < flood.len(), "the node was not held back");
    let held = scene.metrics().await.value("standin_buffered_bytes", &[]) as usize;
    assert!(held <= PENDING_BYTES + READ_BYTES, "{held} bytes held");
    scene
        .counted(
            "standin_sessions_closed_total",
            &[("reason", "component_slow")],
            1.0,
        )
        .await;
    node.read_to_end().await;
    drop(client);
    scene.counted("standin_buffered_bytes", &[], 0.0).await;
}

#[tokio::test]
async fn components_over_the_limit_are_refused_and_taken_again_when_there_is_room() {
    let mut scene = Scene::with(&[("limits.connections_max", "1")]).await;
    let (client, mut node) = scene.open().await;
    let stream = TcpStream::connect(scene.address)
        .await
        .expect("the sidecar listens");
    let mut refused = Conversation::new("component over the limit", stream);
    refused.expect_line("-ERR 'maximum connections exceeded'").await;
    refused.expect_end().await;
    client.close().await;
    node.expect_end().await;
    scene.counted("standin_sessions", &[], 0.0).await;
    let (mut client, mut node) = scene.open().await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn one_sessions_dead_node_is_nothing_to_another_session() {
    let mut scene = Scene::start().await;
    let (mut one, node_of_one) = scene.open().await;
    let (mut other, mut node_of_other) = scene.open().await;
    node_of_one.reset();
    let mut node_of_one = scene.next_node("").await;
    nothing_else(&mut other, &mut node_of_other).await;
    nothing_else(&mut one, &mut node_of_one).await;
    assert_eq!(scene.node.accepted(), 3);
}

#[tokio::test]
async fn a_second_connect_is_laid_over_the_first() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = scene.open().await;
    client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("PING\r\nPING\r\n").await;
    node.send("PONG\r\nPONG\r\n").await;
    client.expect_line("PONG").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_component_that_reads_again_before_its_time_is_up_misses_nothing() {
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "30"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (mut client, mut node) = scene.open().await;
    let flood: Vec<u8> = (0..32 * 1024)
        .flat_map(|n| msg_frame("1", "a", format!("{n:01000}")))
        .collect();
    let written = node.send_until_blocked(&flood, Duration::from_millis(200)).await;
    assert!(written < flood.len(), "the node was not held back");
    let rest = flood[written..].to_vec();
    let sending = tokio::spawn(async move {
        node.send(rest).await;
        node
    });
    client.expect(&flood).await;
    let mut node = sending.await.expect("the node has sent all");
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn messages_that_a_slow_component_has_not_read_survive_the_nodes_death() {
    let mut scene = Scene::with(&[("session.component_stall_secs", "30")]).await;
    let (mut client, mut node) = scene.open().await;
    // More than the socket holds, less than the sidecar may keep.
    let flood: Vec<u8> = (0..8 * 1024)
        .flat_map(|n| msg_frame("1", "a", format!("{n:01000}")))
        .collect();
    node.send(&flood).await;
    node.close().await;
    let mut node = scene.next_node("").await;
    node.send(msg_frame("1", "a", "next")).await;
    client.expect([flood, msg_frame("1", "a", "next")].concat()).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_node_is_not_taken_for_silent_while_the_component_is_the_one_who_does_not_read() {
    let settings = [
        ("session.component_pending_bytes_max", "65536"),
        ("session.component_stall_secs", "30"),
        ("health.probe_interval_ms", "100"),
        ("health.probe_timeout_ms", "100"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (mut client, mut node) = scene.open().await;
    let flood = msg_frame("1", "a", vec![b'x'; 1000]).repeat(32 * 1024);
    let written = node.send_until_blocked(&flood, Duration::from_millis(500)).await;
    assert!(written < flood.len(), "the node was not held back");
    scene.node.expect_no_connection(Duration::from_millis(500)).await;
    scene.counted("standin_failovers_total", &[], 0.0).await;
    client.listen_for(Duration::from_millis(1)).await;
}
