//! Promise S8: keep-alive is hop by hop. The sidecar answers the PINGs of its node, and itself sends PINGs to the component.

use super::scene::{Scene, nothing_else, session};
use e2e::RawClient;
use e2e::raw::{CONNECT_OLD, msg_frame};
use std::time::Duration;
use tokio::time::{Instant, interval};

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
async fn s8_a_component_that_answers_pings_stays_and_a_busy_one_gets_only_the_first_ping() {
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

/// Time from CONNECT to the first PING of nats-server 2.9 and 2.15.
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
async fn s8_the_first_ping_waits_for_connect_and_for_the_first_pong() {
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
async fn s8_a_component_that_sends_no_connect_and_answers_no_ping_is_closed() {
    let settings = [("session.ping_interval_secs", "1"), ("session.ping_max", "1")];
    let mut scene = Scene::with(&settings).await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.expect("PING\r\n").await;
    client.expect_end().await;
    node.expect_end().await;
}
