//! Promise S9: an `-ERR` about the component is passed on to it, and an `-ERR` about the node makes the sidecar leave the node.
//!
//! The texts are those of all versions of `nats-server`, and a few that no server sends.

use super::scene::{Scene, nothing_else, pass, session, session_with};
use e2e::raw::CONNECT_OLD;
use e2e::{NodeConnection, RawClient, ScriptedNode, TIMEOUT};
use std::time::Duration;

/// Texts about one command, after which the connection continues.
const ABOUT_A_COMMAND: &[&str] = &[
    "Permissions Violation for Publish to \"a\"",
    "Permissions Violation for Publish with Reply of \"a\"",
    "Permissions Violation for Subscription to \"none\"",
    "Permissions Violation for Subscription to \"none\" using queue \"crew\"",
    "Invalid Subject",
    "Invalid Publish Subject",
    "maximum subscriptions exceeded",
    "Something that no server says today",
    "",
];

/// Texts about the component, after which the node closes the connection.
const ABOUT_THE_COMPONENT: &[&str] = &[
    "Maximum Payload Violation",
    "maximum control line exceeded",
    "Unknown Protocol Operation",
    "Parser Error",
    "Slow Consumer",
    "Invalid Client Protocol",
    "message headers not supported",
    "no responders requires headers support",
];

/// Texts about credentials. At the first connect they are about the component. After a move the other nodes are tried first.
const ABOUT_CREDENTIALS: &[&str] = &[
    "Authorization Violation",
    "User Authentication Expired",
    "User Authentication Revoked",
    "Account Authentication Expired",
];

/// Texts about the node, after which it closes the connection.
const ABOUT_THE_NODE: &[&str] = &[
    "Stale Connection",
    "Server Shutdown",
    "maximum connections exceeded",
    "maximum account active connections exceeded",
    "Connection throttling is active. Please try again later.",
    "attempted to connect to route port",
    "Secure Connection - TLS Required",
];

/// Sends this error and closes, as a node does. The component must get the error, and then the end of its connection.
async fn refuse(client: &mut RawClient, mut node: NodeConnection, text: &str) {
    node.err(text).await;
    node.close().await;
    client.expect_line(&format!("-ERR '{text}'")).await;
    client.expect_end().await;
}

#[tokio::test]
async fn s9_an_error_about_a_command_is_passed_on_unchanged_and_the_session_continues() {
    let (scene, mut client, mut node) = session(&[]).await;
    for text in ABOUT_A_COMMAND {
        node.err(text).await;
        client.expect_line(&format!("-ERR '{text}'")).await;
        nothing_else(&mut client, &mut node).await;
    }
    for unusual in ["-ERR\r\n", "-err   'invalid subject' \r\n", "-ERR no quotes\r\n"] {
        node.send(unusual).await;
        client.expect(unusual).await;
        nothing_else(&mut client, &mut node).await;
    }
    assert_eq!(scene.node.accepted(), 1);
}

#[tokio::test]
async fn s9_an_error_about_the_component_is_passed_on_unchanged_and_ends_the_session() {
    let mut scene = Scene::start().await;
    for text in ABOUT_THE_COMPONENT {
        let (mut client, node) = scene.open().await;
        refuse(&mut client, node, text).await;
    }
    let sessions = ABOUT_THE_COMPONENT.len();
    scene
        .counted("standin_sessions_closed_total{reason=refused}", sessions as f64)
        .await;
    scene.node.expect_no_connection(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn s9_refused_credentials_at_the_first_connect_end_the_session() {
    let mut scene = Scene::start().await;
    for text in ABOUT_CREDENTIALS {
        let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
        node.read_until("PING").await;
        refuse(&mut client, node, text).await;
    }
    scene.node.expect_no_connection(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn s9_credentials_that_one_node_refuses_after_a_move_are_tried_on_another() {
    for text in ABOUT_CREDENTIALS {
        let (one, mut other) = (ScriptedNode::start().await, ScriptedNode::start().await);
        let both = format!("['{}', '{}']", one.url(), other.url());
        let mut scene = Scene::around(one, &[("nodes.upstream", &both)]).await;
        let connecting = RawClient::open(scene.address);
        let (mut client, mut node) = tokio::join!(connecting, async {
            let mut node = either(&mut scene.node, &mut other).await;
            node.read_until("PING").await;
            node.pong().await;
            node.answer_ping().await;
            node
        });
        pass(&mut client, &mut node, "SUB a 1\r\nPING\r\n").await;
        node.reset();
        let mut node = either(&mut scene.node, &mut other).await;
        node.read_until("PING").await;
        node.err(text).await;
        let mut node = either(&mut scene.node, &mut other).await;
        node.read_until("PING").await;
        node.pong().await;
        node.answer_ping().await;
        client.expect_line("PONG").await;
        nothing_else(&mut client, &mut node).await;
    }
}

/// Accepts the next connection to one of two nodes.
async fn either(one: &mut ScriptedNode, other: &mut ScriptedNode) -> NodeConnection {
    tokio::select! {
        node = one.accept() => node,
        node = other.accept() => node,
    }
}

#[tokio::test]
async fn s9_credentials_that_every_node_refuses_after_a_move_end_the_session() {
    let mut scene = Scene::start().await;
    for text in ABOUT_CREDENTIALS {
        let (mut client, node) = scene.open().await;
        node.reset();
        let node = scene.joining_node("").await;
        refuse(&mut client, node, text).await;
    }
    let refused = ABOUT_CREDENTIALS.len() as f64;
    scene
        .counted("standin_sessions_closed_total{reason=unauthorized}", refused)
        .await;
    scene.node.expect_no_connection(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn s9_a_refused_second_connect_ends_the_session_with_or_without_an_error_of_the_node() {
    for sends_error in [true, false] {
        let mut scene = Scene::start().await;
        scene.node.info_mut()["auth_required"] = true.into();
        let (mut client, mut node) = scene.open().await;
        client
            .send("CONNECT {\"user\":\"u\",\"pass\":\"other\"}\r\nPING\r\n")
            .await;
        node.read_until("PING").await;
        if sends_error {
            node.err("Authorization Violation").await;
            node.close().await;
            client.expect_line("-ERR 'Authorization Violation'").await;
        } else {
            node.reset();
            for _ in 0..2 {
                let mut node = scene.node.accept().await;
                node.read_until("PING").await;
                node.reset();
            }
        }
        client.expect_end().await;
        scene.node.expect_no_connection(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn s9_a_nodes_last_error_is_read_even_if_writes_to_the_node_fail() {
    let mut scene = Scene::start().await;
    let written = "standin_messages_total{direction=to_node}";
    for _ in 0..10 {
        let (mut client, mut node) = scene.open().await;
        let before = scene.metrics().await.value(written);
        client.publish("a", "x").await;
        scene.counted(written, before + 1.0).await;
        node.err("Maximum Payload Violation").await;
        // The node has unread bytes, so the kernel sends a reset after the text.
        drop(node);
        client.publish("a", "y").await;
        client.expect_line("-ERR 'Maximum Payload Violation'").await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn s9_an_authentication_timeout_is_about_the_node_only_after_the_complete_connect() {
    const TEXT: &str = "Authentication Timeout";
    let mut scene = Scene::start().await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    node.read_until("PING").await;
    node.err(TEXT).await;
    node.close().await;
    let mut node = scene.next_node("").await;
    node.answer_ping().await;
    client.expect_line("PONG").await;

    let (mut silent, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    node.err(TEXT).await;
    node.close().await;
    silent.expect_line(&format!("-ERR '{TEXT}'")).await;
    silent.expect_end().await;
}

#[tokio::test]
async fn s9_credentials_that_expire_in_a_running_session_end_it() {
    let (_scene, mut client, node) = session(&[]).await;
    refuse(&mut client, node, "User Authentication Expired").await;
}

#[tokio::test]
async fn s9_an_error_about_the_node_moves_the_session_and_is_not_shown() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    for text in ABOUT_THE_NODE {
        client.send("PING\r\n").await;
        node.expect_line("PING").await;
        node.err(text).await;
        node.close().await;
        node = scene.next_node("SUB a 1\r\n").await;
        node.answer_ping().await;
        client.expect_line("PONG").await;
        nothing_else(&mut client, &mut node).await;
    }
    scene
        .counted(
            "standin_failovers_total{cause=node_error}",
            ABOUT_THE_NODE.len() as f64,
        )
        .await;
}

#[tokio::test]
async fn s9_an_error_about_the_node_at_the_first_connect_is_not_shown() {
    let mut scene = Scene::start().await;
    for text in ABOUT_THE_NODE {
        let connecting = RawClient::open(scene.address);
        let serving = async {
            // Three connections get the error: instead of INFO, after INFO, and after CONNECT. The fourth is served.
            scene.node.accept_silently().await.err(text).await;
            let mut node = scene.node.accept().await;
            node.err(text).await;
            node.close().await;
            let mut node = scene.node.accept().await;
            node.read_until("PING").await;
            node.err(text).await;
            node.close().await;
            let (mut node, _) = scene.node.accept_session().await;
            node.answer_ping().await;
            node
        };
        let (mut client, mut node) = tokio::join!(connecting, serving);
        nothing_else(&mut client, &mut node).await;
        client.close().await;
        node.expect_end().await;
    }
}

#[tokio::test]
async fn s9_an_error_reaches_a_component_that_reads_late() {
    let (_scene, mut client, mut node) = session(&[]).await;
    client.set_timeout(TIMEOUT * 2);
    let flood = e2e::raw::msg_frame("1", "a", vec![b'x'; 1024 * 1024]);
    for _ in 0..8 {
        node.send(&flood).await;
    }
    node.err("Slow Consumer").await;
    node.close().await;
    for _ in 0..8 {
        client.expect(&flood).await;
    }
    client.expect_line("-ERR 'Slow Consumer'").await;
    client.expect_end().await;
}

#[tokio::test]
async fn s9_a_verbose_component_gets_each_ok_in_spite_of_errors_about_the_node() {
    let (mut scene, mut client, mut node) = session_with(r#"CONNECT {"verbose":true}"#, &[]).await;
    for text in ABOUT_THE_NODE {
        pass(&mut client, &mut node, "PUB a 0\r\n\r\nPUB a 0\r\n\r\nPING\r\n").await;
        node.send(format!("+OK\r\n-ERR '{text}'\r\n")).await;
        node.close().await;
        node = scene.next_node("").await;
        node.answer_ping().await;
        client.expect("+OK\r\n+OK\r\nPONG\r\n").await;
    }
    nothing_else(&mut client, &mut node).await;
}
