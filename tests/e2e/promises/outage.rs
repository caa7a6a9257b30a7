//! Promise S10: no node can be reached, and the component stays connected.

use super::scene::{Scene, die, nothing_else, pass, session};
use e2e::raw::{CONNECT_NEW, msg_frame, pub_frame};
use e2e::{Ending, NodeConnection, RawClient, TIMEOUT, eventually};
use std::sync::Arc;
use std::time::Duration;

fn publish(number: usize) -> Vec<u8> {
    pub_frame("a", format!("{number:01000}"))
}

#[tokio::test]
async fn s10_what_a_component_sends_in_an_outage_arrives_once_and_in_order_after_it() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nUNSUB 1 7\r\n").await;
    for round in 0..3 {
        scene.node.stop_listening();
        node.reset();
        let sent = format!(
            "SUB b.{round} b{round}\r\nPUB b 1\r\n1\r\nPUB b 1\r\n2\r\nUNSUB b{round}\r\nPUB b 1\r\n3\r\n"
        );
        client.send(&sent).await;
        client.expect_silence(Duration::from_millis(100)).await;
        scene.node.listen_again().await;
        node = scene.next_node("SUB a 1\r\nUNSUB 1 7\r\n").await;
        node.expect(&sent).await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s10_a_full_buffer_blocks_the_component_and_nothing_is_lost() {
    const BUFFER_BYTES: usize = 65536;
    let (mut scene, mut client, node) = session(&[("session.buffer_bytes", &BUFFER_BYTES.to_string())]).await;
    scene.node.stop_listening();
    node.reset();
    // More than the sockets in between can hold.
    let total = 32 * 1024;
    let all: Vec<u8> = (0..total).flat_map(publish).collect();
    let written = client.send_until_blocked(&all, Duration::from_millis(300)).await;
    assert!(written < all.len(), "the component was not blocked");
    let held = scene.metrics().await.value("standin_buffered_bytes") as usize;
    assert_eq!(held, BUFFER_BYTES, "bytes held");

    scene.node.listen_again().await;
    let sending = tokio::spawn(async move {
        client.send(&all[written..]).await;
        client
    });
    let mut node = scene.next_node("").await;
    for number in 0..total {
        node.expect_frame(publish(number)).await;
    }
    let mut client = sending.await.expect("the component has sent all");
    nothing_else(&mut client, &mut node).await;
    scene.counted("standin_buffered_bytes", 0.0).await;
}

#[tokio::test]
async fn s10_an_outage_longer_than_outage_secs_closes_the_component_and_losses_are_counted() {
    let (mut scene, mut client, node) = session(&[("session.outage_secs", "1")]).await;
    scene.node.stop_listening();
    node.reset();
    client.send("PUB a 0\r\n\r\nPING\r\n").await;
    assert_eq!(client.expect_end().await, Ending::Closed);
    scene
        .counted("standin_sessions_closed_total{reason=outage}", 1.0)
        .await;
    scene
        .counted("standin_client_errors_total{kind=outage}", 1.0)
        .await;
    scene.counted("standin_lost_total{reason=abandoned}", 1.0).await;
    scene.counted("standin_sessions", 0.0).await;
}

/// The loss of the node is not a failed dial: the node must be dialled before the component is closed.
#[tokio::test]
async fn s10_with_outage_secs_0_only_a_failed_dial_of_the_only_node_closes_the_component() {
    let (mut scene, mut client, node) = session(&[("session.outage_secs", "0")]).await;
    node.reset();
    let mut node = scene.next_node("").await;
    nothing_else(&mut client, &mut node).await;
    scene.node.stop_listening();
    node.reset();
    assert_eq!(client.expect_end().await, Ending::Closed);
}

/// npm nats 0.2.9 never reconnects after a reset (see `error_texts`), and the kernel resets a socket that is closed with unread
/// bytes.
#[tokio::test]
async fn s10_a_component_with_more_to_send_than_the_buffer_holds_is_closed_without_a_reset() {
    let settings = [("session.outage_secs", "2"), ("session.buffer_bytes", "4096")];
    let (mut scene, mut client, node) = session(&settings).await;
    let all: Vec<u8> = (0..20_000).flat_map(publish).collect();
    scene.node.stop_listening();
    node.reset();
    let sent = client.send_until_blocked(&all, Duration::from_millis(200)).await;
    let partly_unread = 100_000..all.len();
    assert!(
        partly_unread.contains(&sent),
        "{sent} bytes sent, but the sidecar must leave some unread"
    );
    assert_eq!(client.expect_end().await, Ending::Closed);
}

/// Checks that the sidecar closes the component after `outage_secs`, although nodes accept connections again and again. `keeps` says
/// whether a node then keeps the connection open and silent, or closes it.
async fn outage_is_not_extended(settings: &[(&str, &str)], keeps: bool) {
    let (mut scene, mut client, node) = session(settings).await;
    node.reset();
    let accepting = async {
        let mut kept = Vec::new();
        loop {
            let node = scene.node.accept().await;
            if keeps {
                kept.push(node);
            } else {
                node.close().await;
            }
        }
    };
    let waiting = async {
        client.expect_end().await;
    };
    tokio::select! {
        () = accepting => {}
        () = waiting => {}
    }
}

// The timeout is longer than `SERVES_AFTER`, after which a node that has answered counts as one that has served.
const LONG_HANDSHAKE: &[(&str, &str)] = &[
    ("session.outage_secs", "3"),
    ("dial.handshake_timeout_ms", "1200"),
];

cases! {
    outage_is_not_extended =>
    s10_nodes_that_die_before_they_accept_the_session_do_not_extend_the_outage(&[("session.outage_secs", "1")], false);
    s10_a_node_that_sends_info_and_never_answers_does_not_extend_the_outage(LONG_HANDSHAKE, true);
}

#[tokio::test]
async fn s10_several_short_outages_do_not_add_up_to_a_long_one() {
    let (mut scene, mut client, mut node) = session(&[("session.outage_secs", "2")]).await;
    for _ in 0..4 {
        scene.node.stop_listening();
        node.reset();
        client.expect_silence(Duration::from_millis(600)).await;
        scene.node.listen_again().await;
        node = scene.next_node("").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s10_a_component_that_connects_in_an_outage_gets_the_last_info_and_is_served_after_it() {
    let mut scene = Scene::with(&[("session.info_wait_ms", "20")]).await;
    scene.node.info_mut()["max_payload"] = 12_345.into();
    let (first, mut node) = scene.open().await;
    first.close().await;
    node.expect_end().await;
    scene.node.stop_listening();

    let mut client = RawClient::connect(scene.address).await;
    assert_eq!(client.info()["max_payload"], 12_345);
    assert_eq!(client.info()["port"], scene.address.port());
    client
        .send(format!("{CONNECT_NEW}\r\nSUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n"))
        .await;
    client.expect_silence(Duration::from_millis(100)).await;
    scene.node.listen_again().await;
    let mut node = scene.next_node("").await;
    node.expect("SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n").await;
    node.pong().await;
    client.expect_line("PONG").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s10_a_component_that_connects_before_the_first_node_gets_an_info_and_is_served_later() {
    let mut scene = Scene::with(&[("session.info_wait_ms", "20")]).await;
    scene.node.stop_listening();
    let mut old = RawClient::connect(scene.address).await;
    let mut new = RawClient::connect(scene.address).await;
    assert_eq!(old.info()["max_payload"], 1_048_576);
    assert_eq!(old.info()["port"], scene.address.port());
    scene.node.info_mut()["max_payload"] = 2000.into();
    old.send(format!("{}\r\nPING\r\n", e2e::raw::CONNECT_OLD)).await;
    new.send(format!("{CONNECT_NEW}\r\nPING\r\n")).await;
    scene.node.listen_again().await;
    for _ in 0..2 {
        let (mut node, _) = scene.node.accept_session().await;
        node.answer_ping().await;
        tokio::spawn(async move { node.read_to_end().await });
    }
    old.expect_line("PONG").await;
    let info = new.read_frame().await;
    assert_eq!(
        (info.verb().as_str(), &info.json()["max_payload"]),
        ("INFO", &2000.into())
    );
    new.expect_line("PONG").await;
}

#[tokio::test]
async fn s10_a_component_that_connects_in_a_long_outage_is_closed_without_an_error_text() {
    let settings = [("session.info_wait_ms", "20"), ("session.outage_secs", "1")];
    let mut scene = Scene::with(&settings).await;
    scene.node.stop_listening();
    let mut client = RawClient::connect(scene.address).await;
    client.send(format!("{CONNECT_NEW}\r\nPING\r\n")).await;
    client.expect_end().await;
}

#[tokio::test]
async fn s10_what_a_component_sent_before_it_left_in_an_outage_is_delivered_after_it() {
    let (mut scene, mut client, node) = session(&[]).await;
    scene.node.stop_listening();
    node.reset();
    let sent: Vec<u8> = (0..100).flat_map(publish).collect();
    client.send(&sent).await;
    client.close().await;
    eventually("the sidecar has all of it", TIMEOUT, async || {
        scene.metrics().await.value("standin_buffered_bytes") as usize == sent.len()
    })
    .await;
    scene.node.listen_again().await;
    let mut node = scene.next_node("").await;
    node.expect(&sent).await;
    node.expect_end().await;
    scene.counted("standin_sessions", 0.0).await;
}

#[tokio::test]
async fn s10_what_a_component_sent_before_it_left_is_dropped_at_the_end_of_outage_secs() {
    let (mut scene, mut client, node) = session(&[("session.outage_secs", "1")]).await;
    scene.node.stop_listening();
    node.reset();
    client.send(publish(1)).await;
    client.close().await;
    scene
        .counted("standin_sessions_closed_total{reason=outage}", 1.0)
        .await;
    scene.counted("standin_buffered_bytes", 0.0).await;
}

#[tokio::test]
async fn s10_publishes_to_be_sent_again_and_new_ones_survive_an_outage_in_order() {
    let (mut scene, mut client, mut node) = session(&[("publish.in_doubt", "'resend'")]).await;
    let sent: Vec<u8> = (0..10).flat_map(publish).collect();
    pass(&mut client, &mut node, &sent).await;
    scene.node.stop_listening();
    node.reset();
    let later: Vec<u8> = (10..20).flat_map(publish).collect();
    client.send(&later).await;
    scene.node.listen_again().await;
    let mut node = scene.next_node("").await;
    node.expect([sent, later].concat()).await;
    nothing_else(&mut client, &mut node).await;
}

/// Limit on the buffers of all sessions together, in the tests that fill them.
const ALL_BYTES: usize = 1024 * 1024;
/// What one session may still buffer above that limit.
const LEAST_BYTES: usize = 8 * 1024;

/// Starts a sidecar with one worker and the limit [`ALL_BYTES`], and opens this many sessions.
async fn crowded(sessions: usize) -> (Scene, Vec<(RawClient, NodeConnection)>) {
    let settings = [
        ("session.buffer_bytes", "524288"),
        ("session.component_pending_bytes_max", "524288"),
        ("limits.buffers_total_bytes_max", &ALL_BYTES.to_string()[..]),
        ("limits.workers", "1"),
    ];
    let mut scene = Scene::with(&settings).await;
    let mut pairs = Vec::new();
    for _ in 0..sessions {
        pairs.push(scene.open().await);
    }
    (scene, pairs)
}

/// Waits until the buffers are full, and checks several times that they do not grow above their limits.
async fn full_but_within_limits(scene: &Scene, sessions: usize) {
    let held = async || scene.metrics().await.value("standin_buffered_bytes") as usize;
    eventually("the buffers are full", TIMEOUT, async || {
        held().await >= ALL_BYTES
    })
    .await;
    for _ in 0..20 {
        let held = held().await;
        assert!(held <= ALL_BYTES + sessions * LEAST_BYTES, "{held} bytes held");
    }
}

#[tokio::test]
async fn s10_the_buffers_of_all_sessions_together_are_bounded_and_nothing_is_lost() {
    const SESSIONS: usize = 24;
    let (mut scene, pairs) = crowded(SESSIONS).await;
    scene.node.stop_listening();
    let total = 8 * 1024;
    let all: Arc<[u8]> = (0..total).flat_map(publish).collect();
    let mut sending = Vec::new();
    for (mut client, node) in pairs {
        node.reset();
        let all = Arc::clone(&all);
        sending.push(tokio::spawn(async move {
            client.set_timeout(TIMEOUT * 3);
            client.send(&all).await;
            client
        }));
    }
    full_but_within_limits(&scene, SESSIONS).await;
    scene.node.listen_again().await;
    let mut reading = Vec::new();
    for _ in 0..SESSIONS {
        let mut node = scene.next_node("").await;
        reading.push(tokio::spawn(async move {
            for number in 0..total {
                node.expect_frame(publish(number)).await;
            }
            node
        }));
    }
    // All connections are kept to the end: the loss of one would make the other sessions send a PING.
    let mut nodes = Vec::new();
    for task in reading {
        nodes.push(task.await.expect("a node has read all"));
    }
    for task in sending {
        task.await.expect("a component has sent all");
    }
}

#[tokio::test]
async fn messages_for_components_that_do_not_read_are_bounded_together_and_none_is_lost() {
    const SESSIONS: usize = 8;
    let (scene, pairs) = crowded(SESSIONS).await;
    // More than the sockets in between can hold.
    let messages: Arc<[u8]> = msg_frame("1", "a", vec![b'm'; 4096]).repeat(4096).into();
    let mut clients = Vec::new();
    let mut sending = Vec::new();
    for (client, mut node) in pairs {
        clients.push(client);
        let messages = Arc::clone(&messages);
        sending.push(tokio::spawn(async move {
            node.set_timeout(TIMEOUT * 3);
            node.send(&messages).await;
            node
        }));
    }
    full_but_within_limits(&scene, SESSIONS).await;
    let mut reading = Vec::new();
    for mut client in clients {
        let messages = Arc::clone(&messages);
        reading.push(tokio::spawn(async move {
            client.set_timeout(TIMEOUT * 3);
            client.expect_commands(&messages).await;
            client
        }));
    }
    for task in reading {
        task.await.expect("a component has read all");
    }
    for task in sending {
        task.await.expect("a node has sent all");
    }
}

#[tokio::test]
async fn s10_a_publish_larger_than_the_buffer_survives_an_outage() {
    let (mut scene, mut client, mut node) = session(&[("session.buffer_bytes", "4096")]).await;
    let large = pub_frame("a", vec![b'l'; 1024 * 1024]);
    for ending in [Ending::Closed, Ending::Reset] {
        scene.node.stop_listening();
        die(node, ending).await;
        let sent = [&publish(1)[..], &large, &publish(2), &large].concat();
        let written = client.send_until_blocked(&sent, Duration::from_millis(100)).await;
        scene.node.listen_again().await;
        node = scene.next_node("").await;
        tokio::join!(client.send(&sent[written..]), node.expect(&sent));
        nothing_else(&mut client, &mut node).await;
    }
}
