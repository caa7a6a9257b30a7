//! Promises S7, S9 and S11: INFO as the component sees it, its CONNECT and credentials as the node sees them, and payload limits.

use super::scene::{Scene, nothing_else, pass, session_with};
use e2e::raw::{CONNECT_NEW, CONNECT_OLD, pub_frame};
use e2e::{NodeConnection, RawClient, ScriptedNode};
use serde_json::json;

/// Limit of the oldest client library on the INFO line, in bytes.
const INFO_BYTES_MAX: usize = 511;

/// Starts a node of a large cluster, with 4 KB of INFO.
async fn node_with_a_large_info() -> ScriptedNode {
    let mut node = ScriptedNode::start().await;
    let urls: Vec<String> = (0..200).map(|number| format!("10.1.2.{number}:4222")).collect();
    let info = node.info_mut();
    info["connect_urls"] = json!(urls);
    info["ws_connect_urls"] = json!(urls[..10]);
    info["cluster"] = json!("the-cluster");
    info["domain"] = json!("the-domain");
    info["ldm"] = json!(false);
    info["server_name"] = json!("n".repeat(400));
    info["git_commit"] = json!("0123456");
    node
}

#[tokio::test]
async fn s7_info_has_the_sidecars_address_nothing_of_the_cluster_and_less_than_512_bytes() {
    let mut scene = Scene::around(node_with_a_large_info().await, &[]).await;
    let (mut client, mut node) = scene.open().await;
    let line = client.info_frame().bytes().len();
    assert!(line <= INFO_BYTES_MAX, "{line} bytes");
    let info = client.info();
    assert_eq!(info["host"], "127.0.0.1");
    assert_eq!(info["port"], scene.address.port());
    assert_eq!(info["max_payload"], 1_048_576);
    assert_eq!(info["headers"], true);
    let text = client.info_frame().line();
    for secret in ["10.1.2.", "connect_urls", "cluster", "domain", "ldm"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s7_info_has_the_sidecars_address_and_less_than_512_bytes_in_an_outage() {
    let settings = [("session.info_wait_ms", "20")];
    let mut scene = Scene::around(node_with_a_large_info().await, &settings).await;
    let (_client, _node) = scene.open().await;
    scene.node.stop_listening();
    let late = RawClient::connect(scene.address).await;
    assert!(late.info_frame().bytes().len() <= INFO_BYTES_MAX);
    assert_eq!(late.info()["port"], scene.address.port());
    assert!(!late.info_frame().line().contains("10.1.2."));
}

#[tokio::test]
async fn s7_info_has_the_advertised_address_if_one_is_set() {
    let mut scene = Scene::with(&[("advertise", "'nats.example:14222'")]).await;
    let (client, _node) = scene.open().await;
    assert_eq!(client.info()["host"], "nats.example");
    assert_eq!(client.info()["port"], 14222);
}

#[tokio::test]
async fn s7_a_later_info_reaches_a_new_component_only_if_a_field_that_matters_to_it_changed() {
    let (mut scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    let mut info = scene.node.info_mut().clone();
    info["connect_urls"] = json!(["10.1.2.3:4222"]);
    node.inform(&info).await;
    nothing_else(&mut client, &mut node).await;

    info["max_payload"] = json!(1000);
    node.inform(&info).await;
    let later = client.read_frame().await;
    assert_eq!(later.verb(), "INFO");
    assert_eq!(
        (&later.json()["max_payload"], &later.json()["port"]),
        (&json!(1000), &json!(scene.address.port()))
    );
    assert!(!later.line().contains("10.1.2.3") && later.bytes().len() <= INFO_BYTES_MAX);
    node.inform(&info).await;
    nothing_else(&mut client, &mut node).await;

    info["headers"] = json!(false);
    node.inform(&info).await;
    assert_eq!(client.read_frame().await.json()["headers"], false);
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s7_an_old_component_never_gets_a_second_info() {
    for connect in [CONNECT_OLD, r#"CONNECT {"verbose":false,"protocol":0}"#] {
        let (mut scene, mut client, mut node) = session_with(connect, &[]).await;
        let mut info = scene.node.info_mut().clone();
        info["max_payload"] = json!(1000);
        info["headers"] = json!(false);
        node.inform(&info).await;
        nothing_else(&mut client, &mut node).await;
        scene.node.info_mut()["max_payload"] = json!(2000);
        node.close().await;
        let mut node = scene.next_node("").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s7_a_new_component_gets_an_info_after_a_move_to_a_node_with_other_limits() {
    let (mut scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    node.close().await;
    node = scene.next_node("").await;
    nothing_else(&mut client, &mut node).await;
    scene.node.info_mut()["max_payload"] = json!(2000);
    node.close().await;
    node = scene.next_node("").await;
    let info = client.read_frame().await;
    assert_eq!(
        (info.verb().as_str(), &info.json()["max_payload"]),
        ("INFO", &json!(2000))
    );
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s7_an_info_that_changes_before_connect_is_sent_after_it_and_only_to_a_new_component() {
    for (connect, is_sent) in [(CONNECT_NEW, true), (CONNECT_OLD, false)] {
        let mut scene = Scene::start().await;
        let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        let mut info = scene.node.info_mut().clone();
        info["max_payload"] = json!(1000);
        node.inform(&info).await;
        node.send("PING\r\n").await;
        node.expect_line("PONG").await;
        client.send(format!("{connect}\r\nPING\r\n")).await;
        node.handshake().await;
        node.answer_ping().await;
        if is_sent {
            assert_eq!(client.read_frame().await.json()["max_payload"], 1000);
        }
        client.expect_line("PONG").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s7_each_node_gets_the_components_connect_with_protocol_1() {
    let mut scene = Scene::start().await;
    let connect =
        r#"CONNECT {"verbose":false,"pedantic":true,"user":"u","pass":"p\"q","name":"old","own":{"x":[1]}}"#;
    let serving = async { scene.node.accept_session().await };
    let mut client = RawClient::connect(scene.address).await;
    client.send(format!("{connect}\r\n")).await;
    let (node, received) = serving.await;
    let expected = json!({
        "verbose": false, "pedantic": true, "user": "u", "pass": "p\"q", "name": "old", "own": {"x": [1]},
        "protocol": 1,
    });
    assert_eq!(received, expected);
    node.reset();
    let (_node, received) = scene.node.accept_session().await;
    assert_eq!(received, expected, "the next node");
}

#[tokio::test]
async fn s11_credentials_in_the_settings_are_used_for_a_component_without_credentials() {
    let mut node = ScriptedNode::start().await;
    node.info_mut()["auth_required"] = json!(true);
    node.info_mut()["nonce"] = json!("abcdefgh");
    let upstream = format!("['nats://us%40er:pa%3Ass@{}']", node.address());
    let mut scene = Scene::around(node, &[("nodes.upstream", &upstream)]).await;
    for (connect, user, pass) in [
        (CONNECT_OLD, "us@er", "pa:ss"),
        (
            r#"CONNECT {"verbose":false,"user":"own","pass":"secret"}"#,
            "own",
            "secret",
        ),
    ] {
        let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
        let info = client.info();
        // A component that has a key of its own signs the nonce.
        assert!(
            info["auth_required"] == false && info["nonce"] == "abcdefgh",
            "{info}"
        );
        client.send(format!("{connect}\r\n")).await;
        for _ in 0..3 {
            let connect = node.handshake().await;
            assert_eq!((&connect["user"], &connect["pass"]), (&json!(user), &json!(pass)));
            node.close().await;
            node = scene.node.accept().await;
        }
        node.handshake().await;
        nothing_else(&mut client, &mut node).await;
        client.close().await;
        node.expect_end().await;
    }
}

#[tokio::test]
async fn s11_info_says_that_credentials_are_required_if_the_settings_have_none() {
    let mut node = ScriptedNode::start().await;
    node.info_mut()["auth_required"] = json!(true);
    node.info_mut()["nonce"] = json!("abcdefgh");
    let mut scene = Scene::around(node, &[]).await;
    let (client, _node) = scene.open().await;
    let info = client.info();
    assert_eq!(
        (&info["auth_required"], &info["nonce"]),
        (&json!(true), &json!("abcdefgh"))
    );
}

/// Waits until the sidecar has read everything that the node sent before.
async fn until_read(node: &mut NodeConnection) {
    node.send("PING\r\n").await;
    node.expect_line("PONG").await;
}

#[tokio::test]
async fn s9_a_payload_limit_that_a_running_node_raises_applies_at_once() {
    let mut scene = Scene::start().await;
    scene.node.info_mut()["max_payload"] = 1000.into();
    let (mut client, mut node) = scene.open().await;
    let mut info = scene.node.info_mut().clone();
    info["max_payload"] = 5000.into();
    node.inform(&info).await;
    until_read(&mut node).await;
    let large = pub_frame("a", "x".repeat(5000));
    pass(&mut client, &mut node, &large).await;
    nothing_else(&mut client, &mut node).await;
    client.send(pub_frame("a", "x".repeat(5001))).await;
    client.expect_line("-ERR 'Maximum Payload Violation'").await;
}

#[tokio::test]
async fn s9_a_node_without_a_payload_limit_is_used_with_the_sidecars_limit() {
    let mut scene = Scene::start().await;
    scene.node.info_mut()["max_payload"] = (-1).into();
    let (mut client, mut node) = scene.open().await;
    assert_eq!(client.info()["max_payload"], 64 * 1024 * 1024);
    let large = pub_frame("a", "x".repeat(3_000_000));
    let (_, ()) = tokio::join!(node.expect(&large), client.send(&large));
    nothing_else(&mut client, &mut node).await;
}
