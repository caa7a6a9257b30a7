//! Promises S5 and S6: one PONG for each PING and one `+OK` for each command, in order, even if the node died before it answered.

use super::scene::{Scene, nothing_else, pass, session, session_with};
use e2e::raw::{msg_frame, pub_frame};
use e2e::{NodeConnection, RawClient};

const VERBOSE: &str = r#"CONNECT {"verbose":true,"pedantic":false}"#;

/// Answers the next `count` commands as a verbose node does.
async fn answer(node: &mut NodeConnection, count: usize) {
    for _ in 0..count {
        match node.read_frame().await.verb().as_str() {
            "PING" => node.pong().await,
            _ => node.send("+OK\r\n").await,
        }
    }
}

#[tokio::test]
async fn s5_pings_unanswered_at_the_nodes_death_are_answered_by_the_next_node_one_by_one() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(
        &mut client,
        &mut node,
        "PING\r\nSUB a 1\r\nPING\r\nPUB a 1\r\nx\r\nPING\r\n",
    )
    .await;
    node.reset();
    let mut node = scene.joining_node("SUB a 1\r\n").await;
    // The markers show that no PONG comes early, and that the PONG to the sidecar's own PING is not passed on.
    let marker = |number: usize| msg_frame("1", "a", format!("marker {number}"));
    node.send(marker(0)).await;
    client.expect(marker(0)).await;
    node.pong().await;
    node.expect("PING\r\nPING\r\nPING\r\n").await;
    for number in 1..=3 {
        node.send(marker(number)).await;
        node.pong().await;
        client
            .expect([marker(number), b"PONG\r\n".to_vec()].concat())
            .await;
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s5_pings_and_publishes_sent_again_keep_their_order() {
    let (mut scene, mut client, mut node) = session(&[("publish.in_doubt", "'resend'")]).await;
    let stream = "PUB a 1\r\n1\r\nPING\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\nPING\r\nPING\r\nPUB a 1\r\n4\r\n";
    pass(&mut client, &mut node, stream).await;
    for _ in 0..3 {
        node = scene.node_after(node, "").await;
        node.expect(stream).await;
    }
    node.send("PONG\r\nPONG\r\nPONG\r\n").await;
    client.expect("PONG\r\nPONG\r\nPONG\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s5_pings_unanswered_over_many_deaths_are_answered_once() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let mut outstanding = 0;
    for round in 1..=10 {
        pass(&mut client, &mut node, &"PING\r\n".repeat(round)).await;
        outstanding += round;
        // Each node answers one PING and dies.
        node.pong().await;
        outstanding -= 1;
        client.expect_line("PONG").await;
        node.close().await;
        node = scene.next_node("").await;
        node.expect("PING\r\n".repeat(outstanding)).await;
    }
    node.send("PONG\r\n".repeat(outstanding)).await;
    client.expect("PONG\r\n".repeat(outstanding)).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s5_the_component_never_sees_the_sidecars_own_pings() {
    let settings = [
        ("publish.confirm_bytes", "1024"),
        ("publish.confirm_interval_ms", "1"),
    ];
    let (_scene, mut client, mut node) = session(&settings).await;
    let mut own_pings = 0;
    for round in 0..200 {
        let publish = pub_frame("a", vec![b'x'; 10 * round]);
        client
            .send([&publish[..], b"PING\r\nPUB end 0\r\n\r\n"].concat())
            .await;
        let mut pings = 0;
        loop {
            let frame = node.read_frame().await;
            match frame.verb().as_str() {
                "PING" => {
                    pings += 1;
                    node.pong().await;
                }
                _ if frame.words()[1] == "end" => break,
                _ => {}
            }
        }
        own_pings += pings - 1;
        client.expect_line("PONG").await;
    }
    assert!(own_pings > 0, "the sidecar sent no PING of its own");
    node.send(msg_frame("1", "a", "barrier")).await;
    client.expect(msg_frame("1", "a", "barrier")).await;
}

#[tokio::test]
async fn s5_a_node_that_answers_no_ping_is_left_and_the_next_one_answers() {
    let settings = [
        ("health.probe_interval_ms", "200"),
        ("health.probe_timeout_ms", "200"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (mut client, mut silent) = scene.open().await;
    pass(&mut client, &mut silent, "PING\r\n").await;
    let mut node = scene.next_node("").await;
    node.answer_ping().await;
    client.expect_line("PONG").await;
    scene
        .counted("standin_failovers_total{cause=probe_timeout}", 1.0)
        .await;
}

#[tokio::test]
async fn s5_a_node_that_never_answers_the_replay_is_left() {
    let (mut scene, mut client, node) = session(&[("dial.handshake_timeout_ms", "200")]).await;
    node.reset();
    let _silent = scene.joining_node("").await;
    let mut node = scene.next_node("").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s5_a_pong_without_a_ping_is_not_passed_on() {
    let (_scene, mut client, mut node) = session(&[]).await;
    node.send("PONG\r\nPONG\r\n").await;
    node.send(msg_frame("1", "a", "barrier")).await;
    client.expect(msg_frame("1", "a", "barrier")).await;
    nothing_else(&mut client, &mut node).await;
}

/// Sends five commands in each of the rounds 0 to 4. In round N the node answers N commands and dies, and the next node gets
/// `sent_again` commands again.
async fn verbose_over_five_failovers(policy: &str, sent_again: usize) {
    let (mut scene, mut client, mut node) = session_with(VERBOSE, &[("publish.in_doubt", policy)]).await;
    client.subscribe("keep", "99").await;
    answer(&mut node, 1).await;
    client.expect_line("+OK").await;
    for answered in 0..5 {
        let commands = format!(
            "SUB s.{answered} {answered}\r\nPUB x 1\r\na\r\nPUB x 1\r\nb\r\nUNSUB {answered}\r\nPING\r\n"
        );
        client.send(commands).await;
        answer(&mut node, answered).await;
        for _ in answered..5 {
            node.read_frame().await;
        }
        node.close().await;
        node = scene.next_node("SUB keep 99\r\n").await;
        answer(&mut node, sent_again).await;
        client.expect("+OK\r\n+OK\r\n+OK\r\n+OK\r\nPONG\r\n").await;
    }
    nothing_else(&mut client, &mut node).await;
}

// With `resend` the PING and the two publishes are sent again, answered or not, because no PONG has confirmed them.
cases! {
    verbose_over_five_failovers =>
    s6_verbose_components_get_one_ok_for_each_command_over_five_failovers("'drop'", 1);
    s6_verbose_components_get_one_ok_for_each_command_also_when_publishes_are_sent_again("'resend'", 3);
}

#[tokio::test]
async fn s6_oks_and_pongs_come_in_the_order_of_the_commands() {
    let (mut scene, mut client, mut node) = session_with(VERBOSE, &[]).await;
    let commands = "PUB a 0\r\n\r\nPING\r\nPUB a 0\r\n\r\nPUB a 0\r\n\r\nPING\r\nPUB a 0\r\n\r\n";
    pass(&mut client, &mut node, commands).await;
    let mut node = scene.node_after(node, "").await;
    node.expect("PING\r\nPING\r\n").await;
    client.expect_line("+OK").await;
    node.pong().await;
    client.expect("PONG\r\n+OK\r\n+OK\r\n").await;
    node.pong().await;
    client.expect("PONG\r\n+OK\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_an_error_instead_of_an_ok_counts_as_the_answer() {
    for text in [
        "Permissions Violation for Publish to \"secret\"",
        "Permissions Violation for Subscription to \"secret\"",
        "Invalid Subject",
        "maximum subscriptions exceeded",
    ] {
        let (mut scene, mut client, mut node) = session_with(VERBOSE, &[]).await;
        pass(
            &mut client,
            &mut node,
            "PUB a 0\r\n\r\nPUB secret 0\r\n\r\nPUB b 0\r\n\r\nPING\r\n",
        )
        .await;
        node.send(format!("+OK\r\n-ERR '{text}'\r\n")).await;
        client.expect(format!("+OK\r\n-ERR '{text}'\r\n")).await;
        node.close().await;
        let mut node = scene.next_node("").await;
        answer(&mut node, 1).await;
        client.expect("+OK\r\nPONG\r\n").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s6_an_error_of_pedantic_mode_comes_in_addition_to_the_ok() {
    let (mut scene, mut client, mut node) = session_with(VERBOSE, &[]).await;
    pass(&mut client, &mut node, "PUB a..b 0\r\n\r\nPUB a 0\r\n\r\n").await;
    node.send("-ERR 'Invalid Publish Subject'\r\n+OK\r\n").await;
    client.expect("-ERR 'Invalid Publish Subject'\r\n+OK\r\n").await;
    node.close().await;
    let mut node = scene.next_node("").await;
    client.expect_line("+OK").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_an_error_about_a_replayed_subscription_replaces_no_ok_of_the_component() {
    let (mut scene, mut client, mut node) = session_with(VERBOSE, &[]).await;
    client.send("SUB a 1\r\nSUB b 2\r\n").await;
    answer(&mut node, 2).await;
    client.expect("+OK\r\n+OK\r\n").await;
    pass(&mut client, &mut node, "PUB a 0\r\n\r\nPING\r\n").await;
    node.close().await;
    let mut node = scene.node.accept().await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("SUB a 1\r\nSUB b 2\r\nPING\r\n").await;
    // This node has stricter permissions, and refuses one of the subscriptions.
    let refusal = "-ERR 'Permissions Violation for Subscription to \"a\"'\r\n";
    node.send(format!("+OK\r\n{refusal}+OK\r\nPONG\r\n")).await;
    node.answer_ping().await;
    client.expect(format!("{refusal}+OK\r\nPONG\r\n")).await;
    node.close().await;
    let mut node = scene.next_node("SUB b 2\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_a_component_whose_connect_has_no_verbose_is_verbose() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client
        .send("CONNECT {\"pedantic\":false}\r\nSUB a 1\r\nPING\r\n")
        .await;
    let connect = node.read_frame().await.json();
    assert!(connect["verbose"].is_null(), "{connect}");
    node.expect("PING\r\nSUB a 1\r\nPING\r\n").await;
    node.send("+OK\r\nPONG\r\n+OK\r\n").await;
    client.expect("+OK\r\n+OK\r\n").await;
    node.close().await;
    let mut node = scene.next_node("SUB a 1\r\n").await;
    answer(&mut node, 1).await;
    client.expect_line("PONG").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_a_component_that_sends_no_connect_is_served_and_gets_only_its_own_oks() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.send("SUB a 1\r\nPUB a 0\r\n\r\nPING\r\n").await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("PING\r\nSUB a 1\r\nPUB a 0\r\n\r\nPING\r\n").await;
    node.send("+OK\r\nPONG\r\n+OK\r\n").await;
    client.expect_line("+OK").await;
    let mut node = scene.node_after(node, "SUB a 1\r\n").await;
    answer(&mut node, 1).await;
    client.expect("+OK\r\nPONG\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_oks_are_exact_over_several_deaths_while_publishes_are_sent_again() {
    let (mut scene, mut client, mut node) = session_with(VERBOSE, &[("publish.in_doubt", "'resend'")]).await;
    let commands =
        "PUB a 1\r\n1\r\nSUB b 2\r\nPING\r\nPUB a 1\r\n2\r\nUNSUB 2\r\nSUB c 3\r\nPUB a 1\r\n3\r\nPING\r\n";
    pass(&mut client, &mut node, commands).await;
    node.reset();
    let again = [
        "PUB a 1\r\n1\r\n",
        "PING\r\n",
        "PUB a 1\r\n2\r\nPUB a 1\r\n3\r\n",
        "PING\r\n",
    ];
    for answered in [0, 1, 1] {
        let mut node = scene.next_node("SUB c 3\r\n").await;
        node.expect(again.concat()).await;
        // Answers stop before the first PONG, so the next node gets all of it again.
        node.send("+OK\r\n".repeat(answered)).await;
        node.reset();
    }
    let mut node = scene.next_node("SUB c 3\r\n").await;
    node.expect(again.concat()).await;
    node.send("+OK\r\nPONG\r\n+OK\r\n+OK\r\nPONG\r\n").await;
    client
        .expect("+OK\r\n+OK\r\nPONG\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\nPONG\r\n")
        .await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s6_oks_are_exact_when_the_node_dies_at_any_byte_of_its_answers() {
    let commands = [
        "SUB a 1\r\n",
        "PUB a 0\r\n\r\n",
        "PING\r\n",
        "UNSUB 1\r\n",
        "PUB b 0\r\n\r\n",
        "PING\r\n",
    ];
    let answers = ["+OK\r\n", "+OK\r\n", "PONG\r\n", "+OK\r\n", "+OK\r\n", "PONG\r\n"];
    // The node dies before each answer, and within each.
    for death in 0..=answers.concat().len() {
        let (mut scene, mut client, mut node) = session_with(VERBOSE, &[]).await;
        pass(&mut client, &mut node, &commands.concat()).await;
        node.send(&answers.concat()[..death]).await;
        node.close().await;
        let mut node = scene.next_node("").await;
        let pongs = answers.concat()[..death].matches("PONG\r\n").count();
        node.expect("PING\r\n".repeat(2 - pongs)).await;
        node.send("PONG\r\n".repeat(2 - pongs)).await;
        client.expect(answers.concat()).await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s5_a_half_closed_component_gets_its_answers_from_the_next_node() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "PUB a 0\r\n\r\nPING\r\n").await;
    client.half_close().await;
    let mut node = scene.node_after(node, "").await;
    node.answer_ping().await;
    client.expect_line("PONG").await;
    client.expect_end().await;
    node.expect_end().await;
}
