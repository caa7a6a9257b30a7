//! Promises S7, S8 and S11: INFO, keep-alive and credentials, as the component and the node see them.

use super::scene::{Scene, nothing_else, pass, session};
use e2e::raw::{CONNECT_NEW, CONNECT_OLD, msg_frame, pub_frame};
use e2e::{NodeConnection, RawClient, ScriptedNode};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, interval};

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
async fn s7_info_has_the_same_address_and_limit_in_an_outage() {
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
    let mut scene = Scene::start().await;
    let (mut client, mut node) = scene.open_with(CONNECT_NEW).await;
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
        let mut scene = Scene::start().await;
        let (mut client, mut node) = scene.open_with(connect).await;
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
    let mut scene = Scene::start().await;
    let (mut client, mut node) = scene.open_with(CONNECT_NEW).await;
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
async fn s7_a_later_info_before_connect_is_sent_after_connect_and_only_to_a_new_component() {
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
async fn s8_pings_of_the_node_are_answered_by_the_sidecar() {
    let (_scene, mut client, mut node) = session(&[]).await;
    for count in [1, 2, 10] {
        node.send("PING\r\n".repeat(count)).await;
        node.expect("PONG\r\n".repeat(count)).await;
    }
    node.send(
        [
            &msg_frame("1", "a", "x")[..],
            b"PING\r\n",
            &msg_frame("1", "a", "y"),
        ]
        .concat(),
    )
    .await;
    node.expect_line("PONG").await;
    client
        .expect([msg_frame("1", "a", "x"), msg_frame("1", "a", "y")].concat())
        .await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s8_pongs_of_the_component_are_not_passed_on() {
    let (_scene, mut client, mut node) = session(&[]).await;
    client
        .send("PONG\r\nPUB a 0\r\n\r\nPONG\r\npong\r\nPUB b 0\r\n\r\n")
        .await;
    node.expect("PUB a 0\r\n\r\nPUB b 0\r\n\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s8_an_idle_component_that_does_not_answer_a_ping_is_closed_as_stale() {
    let settings = [("session.ping_interval_secs", "1"), ("session.ping_max", "1")];
    let (scene, mut client, mut node) = session(&settings).await;
    client.expect("PING\r\n").await;
    client.expect_end().await;
    node.expect_end().await;
    scene
        .counted("standin_sessions_closed_total{reason=component_stale}", 1.0)
        .await;
}

#[tokio::test]
async fn s8_a_component_that_answers_pings_stays_and_a_busy_one_gets_none() {
    let settings = [("session.ping_interval_secs", "1"), ("session.ping_max", "1")];
    let mut scene = Scene::with(&settings).await;
    let (mut busy, mut its_node) = scene.open().await;
    let (mut answering, mut other_node) = scene.open().await;
    let since = Instant::now();
    let mut beat = interval(Duration::from_millis(100));
    while since.elapsed() < Duration::from_millis(3500) {
        beat.tick().await;
        busy.publish("a", "x").await;
        its_node.expect("PUB a 1\r\nx\r\n").await;
        busy.listen_for(Duration::from_millis(1)).await;
        answering.listen_for(Duration::from_millis(1)).await;
        while answering.untaken().starts_with(b"PING\r\n") {
            answering.expect_line("PING").await;
            answering.send("PONG\r\n").await;
        }
    }
    // Every component gets one PING soon after CONNECT, and only an idle one gets more.
    busy.expect_line("PING").await;
    nothing_else(&mut busy, &mut its_node).await;
    nothing_else(&mut answering, &mut other_node).await;
    let pings = answering
        .received()
        .windows(6)
        .filter(|bytes| bytes == b"PING\r\n")
        .count();
    assert!((2..=3).contains(&pings), "{pings} PINGs in 3.5 s");
}

/// When nats-server 2.9 and 2.15 send the first PING, after CONNECT.
const FIRST_PING: std::ops::Range<Duration> = Duration::from_millis(1950)..Duration::from_millis(2900);

#[tokio::test]
async fn s8_the_first_ping_comes_two_seconds_after_connect_to_an_idle_and_to_a_busy_component() {
    let mut scene = Scene::start().await;
    let (mut idle, mut its_node) = scene.open().await;
    let (mut busy, mut other_node) = scene.open().await;
    let since = Instant::now();
    let mut beat = interval(Duration::from_millis(50));
    let (mut idle_at, mut busy_at) = (None, None);
    while idle_at.is_none() || busy_at.is_none() {
        beat.tick().await;
        assert!(since.elapsed() < FIRST_PING.end, "{idle_at:?} {busy_at:?}");
        busy.publish("a", "x").await;
        other_node.expect("PUB a 1\r\nx\r\n").await;
        for (client, at) in [(&mut idle, &mut idle_at), (&mut busy, &mut busy_at)] {
            client.listen_for(Duration::from_millis(1)).await;
            if at.is_none() && client.untaken() == b"PING\r\n" {
                client.expect_line("PING").await;
                *at = Some(since.elapsed());
            }
        }
    }
    assert!(idle_at > Some(FIRST_PING.start) && busy_at > Some(FIRST_PING.start));
    nothing_else(&mut idle, &mut its_node).await;
    nothing_else(&mut busy, &mut other_node).await;
}

#[tokio::test]
async fn s8_no_ping_comes_before_connect_nor_between_it_and_the_first_pong() {
    let mut scene = Scene::start().await;
    let (mut silent, _its_node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("PING\r\nPING\r\n").await;
    node.pong().await;
    tokio::join!(
        client.expect_silence(FIRST_PING.end),
        silent.expect_silence(FIRST_PING.end)
    );
    node.pong().await;
    client.expect("PONG\r\nPING\r\n").await;
    nothing_else(&mut client, &mut node).await;
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
        assert!(
            info["auth_required"] == false && info["nonce"].is_null(),
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

#[tokio::test]
async fn s8_a_component_that_sends_no_connect_and_answers_no_ping_is_closed() {
    let settings = [("session.ping_interval_secs", "1"), ("session.ping_max", "1")];
    let mut scene = Scene::with(&settings).await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.expect("PING\r\n").await;
    client.expect_end().await;
    node.expect_end().await;
}

/// Waits until the sidecar has read everything that the node sent before.
async fn is_read(node: &mut NodeConnection) {
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
    is_read(&mut node).await;
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
