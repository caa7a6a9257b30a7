//! Choice of a session's node: nodes that cannot be used, are in lame duck mode or have just failed are avoided.

use super::scene::{Scene, die, nothing_else, pass, session};
use e2e::raw::{CONNECT_OLD, msg_frame};
use e2e::{Ending, NodeConnection, RawClient, ScriptedNode, TIMEOUT, eventually};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Checks that a component is served although the first connection to the node is useless. `useless` plays that connection.
async fn is_served_after(
    scene: &mut Scene,
    useless: impl AsyncFnOnce(&mut ScriptedNode) -> Option<NodeConnection>,
) {
    let serving = async {
        let _kept = useless(&mut scene.node).await;
        let (mut node, _) = scene.node.accept_session().await;
        node.answer_ping().await;
        node
    };
    let address = scene.address;
    let (mut client, mut node) = tokio::join!(RawClient::open(address), serving);
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_node_that_accepts_and_sends_nothing_is_skipped() {
    let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "100")]).await;
    is_served_after(&mut scene, async |node| Some(node.accept_silently().await)).await;
}

#[tokio::test]
async fn a_node_that_stops_in_the_middle_of_its_info_is_skipped() {
    let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "100")]).await;
    is_served_after(&mut scene, async |node| {
        let mut connection = node.accept_silently().await;
        connection.send("INFO {\"server_id\":\"half").await;
        Some(connection)
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_a_usable_nats_node_is_skipped() {
    for sent in [
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
            connection.send(sent).await;
            Some(connection)
        })
        .await;
    }
}

/// Returns an INFO that names this many nodes.
fn info_with_nodes(count: usize) -> String {
    let urls: Vec<String> = (0..count)
        .map(|number| format!("\"10.{}.{}:4222\"", number / 256, number % 256))
        .collect();
    format!("INFO {{\"connect_urls\":[{}]}}\r\n", urls.join(","))
}

#[tokio::test]
async fn a_node_whose_info_is_too_large_or_too_deep_is_skipped_at_once() {
    let megabytes = "x".repeat(16 << 20);
    for sent in [
        format!("INFO {{\"a\":{}\r\n", "[".repeat(60_000)),
        info_with_nodes(100_000),
        format!("INFO {megabytes}"),
        megabytes,
    ] {
        let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "60000")]).await;
        is_served_after(&mut scene, async |node| {
            let mut connection = node.accept_silently().await;
            connection.send_until_blocked(sent, Duration::from_secs(1)).await;
            Some(connection)
        })
        .await;
    }
}

/// Sends one byte at a time until the sidecar closes the connection.
async fn trickle(connection: &mut NodeConnection) {
    let began = Instant::now();
    while connection.ending().is_none() {
        assert!(began.elapsed() < TIMEOUT, "the sidecar still reads");
        connection.send_until_blocked("x", TIMEOUT).await;
        connection.listen_for(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_that_sends_one_byte_at_a_time_is_skipped() {
    let mut scene = Scene::with(&[("dial.handshake_timeout_ms", "300")]).await;
    is_served_after(&mut scene, async |node| {
        let mut connection = node.accept_silently().await;
        connection.send("INFO ").await;
        trickle(&mut connection).await;
        None
    })
    .await;
}

#[tokio::test]
async fn a_node_that_answers_connect_with_garbage_or_one_byte_at_a_time_is_left() {
    for sent in ["GARBAGE\r\n", "MSG a 1 1000\r\n", "INFO {\"a\":1"] {
        let times = [
            ("dial.handshake_timeout_ms", "300"),
            ("health.probe_interval_ms", "150"),
            ("health.probe_timeout_ms", "150"),
        ];
        let mut scene = Scene::with(&times).await;
        is_served_after(&mut scene, async |node| {
            let mut connection = node.accept().await;
            assert_eq!(connection.read_frame().await.verb(), "CONNECT");
            connection.send(sent).await;
            trickle(&mut connection).await;
            None
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_sends_garbage_in_a_session_is_left_and_the_component_gets_none_of_it() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let many = info_with_nodes(100_000);
    // An INFO that cannot be read changes nothing.
    node.send(format!("INFO {{\"a\":{}\r\n", "[".repeat(60_000)))
        .await;
    nothing_else(&mut client, &mut node).await;
    for garbage in [
        "GARBAGE\r\n",
        "MSG a\r\n",
        "MSG a 1 2\r\nxyz\r\n",
        "MSG a 1 99999999999\r\n",
        "\u{0}",
        &many,
    ] {
        let whole = msg_frame("1", "a", "whole");
        let sent = [&whole[..], garbage.as_bytes(), &whole].concat();
        // The sidecar may close before it has read all.
        node.send_until_blocked(sent, Duration::from_secs(1)).await;
        client.expect(&whole).await;
        node = scene.next_node("").await;
        nothing_else(&mut client, &mut node).await;
    }
    scene
        .counted("standin_failovers_total{cause=protocol_error}", 6.0)
        .await;
}

#[tokio::test]
async fn an_info_that_arrives_byte_by_byte_is_accepted() {
    let mut scene = Scene::start().await;
    let info = format!("INFO {}\r\n", scene.node.info_mut());
    let serving = async {
        let mut node = scene.node.accept_silently().await;
        for byte in info.as_bytes().chunks(1) {
            node.send(byte).await;
            tokio::task::yield_now().await;
        }
        node.handshake().await;
        node.answer_ping().await;
        node
    };
    let (mut client, mut node) = tokio::join!(RawClient::open(scene.address), serving);
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_frame_after_info_in_the_same_packet_is_processed() {
    let mut scene = Scene::start().await;
    let greeting = format!("INFO {}\r\nPING\r\n", scene.node.info_mut());
    let serving = async {
        let mut node = scene.node.accept_silently().await;
        node.send(greeting).await;
        node.expect_line("PONG").await;
        node.handshake().await;
        node.answer_ping().await;
        node
    };
    let (mut client, mut node) = tokio::join!(RawClient::open(scene.address), serving);
    nothing_else(&mut client, &mut node).await;
}

/// Starts two nodes. The second does not listen yet, so the first node serves the component.
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

/// Accepts the session on this connection, and expects exactly the commands `replayed`.
async fn takes_over(mut node: NodeConnection, replayed: &str) -> NodeConnection {
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect(replayed).await;
    node.answer_ping().await;
    node
}

async fn a_lame_duck_is_left_in_order(policy: &str) {
    let (mut scene, mut second) = two_nodes(policy).await;
    let (mut client, mut node) = scene.open().await;
    second.listen_again().await;
    pass(&mut client, &mut node, "SUB a 1\r\nPUB a 1\r\n1\r\n").await;
    let mut info = scene.node.info_mut().clone();
    info["ldm"] = true.into();
    node.inform(&info).await;

    // The next node learns the subscription while the old node still delivers.
    let next = second.accept().await;
    let mut next = takes_over(next, "SUB a 1\r\n").await;
    node.send(msg_frame("1", "a", "1")).await;
    client.expect(msg_frame("1", "a", "1")).await;
    next.send(msg_frame("1", "a", "1")).await;
    next.answer_ping().await;
    // The old node gets only one more PING, and everything that it still sends is passed on.
    node.expect_line("PING").await;
    client.send("PUB a 1\r\n2\r\nPING\r\n").await;
    node.send(msg_frame("1", "a", "2")).await;
    client.expect(msg_frame("1", "a", "2")).await;
    node.pong().await;
    node.expect_end().await;
    // What the component has got from the old node, it does not get again.
    next.send(msg_frame("1", "a", "2")).await;
    next.send(msg_frame("1", "a", "3")).await;
    client.expect(msg_frame("1", "a", "3")).await;
    next.answer_ping().await;
    next.expect("PUB a 1\r\n2\r\nPING\r\n").await;
    next.pong().await;
    client.expect_line("PONG").await;
    // The sidecar asks whether more copies may come.
    next.answer_ping().await;
    nothing_else(&mut client, &mut next).await;
    for in_doubt in ["standin_in_doubt_total", "standin_resent_total"] {
        scene.counted(in_doubt, 0.0).await;
    }
    scene
        .counted("standin_failovers_total{cause=lame_duck}", 1.0)
        .await;
}

cases! {
    a_lame_duck_is_left_in_order =>
    a_lame_duck_is_left_without_losing_a_publish("'drop'");
    a_lame_duck_is_left_without_sending_a_publish_twice("'resend'");
}

#[tokio::test]
async fn a_lame_duck_is_kept_while_there_is_no_other_node() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let mut info = scene.node.info_mut().clone();
    scene.node.stop_listening();
    info["ldm"] = true.into();
    node.inform(&info).await;
    pass(&mut client, &mut node, "PUB a 1\r\n1\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn a_lame_duck_that_dies_before_it_is_left_is_replaced() {
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
async fn a_node_that_failed_is_not_dialled_during_its_cooldown() {
    let mut failed = ScriptedNode::start().await;
    let node = ScriptedNode::start().await;
    failed.stop_listening();
    let upstream = format!("['{}', '{}']", node.url(), failed.url());
    let cooling = [
        ("choice.cooldown_base_ms", "60000"),
        ("choice.cooldown_max_ms", "60000"),
    ];
    let settings = [&cooling[..], &[("nodes.upstream", &upstream[..])]].concat();
    let mut scene = Scene::around(node, &settings).await;
    // Nodes are chosen at random, so the failed one is chosen sooner or later. The other one then serves the component.
    let mut kept = Vec::new();
    while scene
        .metrics()
        .await
        .value("standin_node_dials_total{result=connect}")
        < 1.0
    {
        assert!(kept.len() < 100, "the failed node was never chosen");
        kept.push(scene.open().await);
    }
    failed.listen_again().await;
    for _ in 0..20 {
        kept.push(scene.open().await);
    }
    failed.expect_no_connection(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn sessions_are_spread_over_all_nodes_at_random() {
    let (first, mut second) = (ScriptedNode::start().await, ScriptedNode::start().await);
    let upstream = format!("['{}', '{}']", first.url(), second.url());
    let mut scene = Scene::around(first, &[("nodes.upstream", &upstream)]).await;
    let mut components = Vec::new();
    for _ in 0..40 {
        let connecting = RawClient::connect(scene.address);
        let serving = async {
            tokio::select! {
                node = scene.node.accept() => node,
                node = second.accept() => node,
            }
        };
        components.push(tokio::join!(connecting, serving));
    }
    let shares = (scene.node.accepted(), second.accepted());
    assert_eq!(shares.0 + shares.1, 40);
    // A fair choice falls below this once in about 670 million runs.
    assert!(shares.0 >= 3 && shares.1 >= 3, "{shares:?}");
}

#[tokio::test]
async fn a_node_that_dies_before_the_component_sends_connect_is_replaced_unnoticed() {
    for ending in [Ending::Closed, Ending::Reset] {
        let mut scene = Scene::start().await;
        let (mut client, first) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        die(first, ending).await;
        die(scene.node.accept().await, ending).await;
        let mut node = scene.node.accept().await;
        client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
        node.handshake().await;
        node.answer_ping().await;
        client.expect_line("PONG").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn a_node_whose_first_info_says_lame_duck_is_left() {
    let (mut scene, mut second) = two_nodes("'drop'").await;
    scene.node.info_mut()["ldm"] = true.into();
    let (mut client, mut node) = scene.open().await;
    second.listen_again().await;
    let next = second.accept().await;
    node.answer_ping().await;
    let mut next = takes_over(next, "").await;
    node.expect_end().await;
    nothing_else(&mut client, &mut next).await;
}

#[tokio::test]
async fn a_sidecar_that_is_listed_as_a_node_does_not_become_its_own_component() {
    let mut scene = Scene::with(&[("nodes.gossip", "true"), ("choice.cooldown_max_ms", "100")]).await;
    let own = scene.address.to_string();
    scene.node.info_mut()["connect_urls"] = vec![own.clone()].into();
    let (mut client, node) = scene.open().await;
    eventually("the sidecar is listed as a node", TIMEOUT, async || {
        scene.node_names().await.contains(&own)
    })
    .await;
    scene.node.stop_listening();
    node.reset();
    eventually("the sidecar has dialled itself", TIMEOUT, async || {
        scene
            .metrics()
            .await
            .value("standin_node_dials_total{result=own}")
            >= 1.0
    })
    .await;
    client.expect_silence(Duration::from_millis(200)).await;
    let sessions = scene.metrics().await.value("standin_sessions_total");
    assert!(sessions <= 4.0, "it kept dialling itself: {sessions} sessions");
    scene.counted("standin_sessions", 1.0).await;
    scene.node.listen_again().await;
    let (mut node, _) = scene.node.accept_session().await;
    nothing_else(&mut client, &mut node).await;
}

/// Returns a listener whose backlog is full, so that it neither accepts nor refuses, like a host behind a firewall.
async fn unresponsive() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (listener, waiting)
}

#[tokio::test]
async fn a_new_component_is_not_delayed_by_addresses_that_do_not_answer_a_syn() {
    const NAMED: usize = 6;
    let mut silent = Vec::new();
    for _ in 0..NAMED {
        silent.push(unresponsive().await);
    }
    let named: Vec<String> = silent
        .iter()
        .map(|(listener, _)| listener.local_addr().expect("an address").to_string())
        .collect();
    let mut scene = Scene::with(&[("nodes.gossip", "true")]).await;
    scene.node.info_mut()["connect_urls"] = named.clone().into();
    let mut kept = vec![scene.open().await];
    eventually("the silent addresses are known", TIMEOUT, async || {
        scene.node_names().await.len() == 1 + NAMED
    })
    .await;
    let began = Instant::now();
    for _ in 0..10 {
        kept.push(scene.open().await);
    }
    // One dial of a silent address alone takes a second.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // Silent addresses in the settings have the same rank as the live node, which is dialled in parallel with them.
    let upstream: Vec<String> = named
        .iter()
        .map(|address| format!("'nats://{address}'"))
        .collect();
    let node = ScriptedNode::start().await;
    let upstream = format!("[{}, '{}']", upstream.join(", "), node.url());
    let mut scene = Scene::around(node, &[("nodes.upstream", &upstream)]).await;
    let began = Instant::now();
    kept.push(scene.open().await);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
