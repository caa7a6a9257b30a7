//! Promise S4: the subscriptions replayed to a new node, their order, and what is left of their auto-unsubscribe maximum.

use super::scene::{Scene, nothing_else, pass, session, session_with};
use e2e::raw::{CONNECT_OLD, msg_frame};
use e2e::{Ending, NodeConnection, RawClient, ScriptedNode};

/// Sends `count` messages for `sid` from the node, and expects them at the component.
async fn deliver(client: &mut RawClient, node: &mut NodeConnection, sid: &str, count: usize) {
    for number in 0..count {
        let message = msg_frame(sid, "a", number.to_string());
        node.send(&message).await;
        client.expect(&message).await;
    }
}

#[tokio::test]
async fn s4_live_subscriptions_are_replayed_in_their_order_with_their_queue_groups() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(
        &mut client,
        &mut node,
        "SUB a 1\r\nSUB b.* crew 2\r\nSUB > 3\r\nSUB d x.y 44\r\nUNSUB 1\r\nSUB a abc\r\n",
    )
    .await;
    let expected = "SUB b.* crew 2\r\nSUB > 3\r\nSUB d x.y 44\r\nSUB a abc\r\n";
    node = scene.node_after(node, expected).await;
    node = scene.node_after(node, expected).await;
    pass(&mut client, &mut node, "UNSUB 3\r\nSUB e 1\r\n").await;
    node = scene
        .node_after(node, "SUB b.* crew 2\r\nSUB d x.y 44\r\nSUB a abc\r\nSUB e 1\r\n")
        .await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_subscriptions_are_replayed_in_the_standard_form_whatever_their_case_and_blanks() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(
        &mut client,
        &mut node,
        "sub   a\t\t1  \r\nSub b  q   2\r\nsUB c 3\r\nunsub\t 3 \r\nUnSub 2   7\r\n",
    )
    .await;
    node = scene
        .node_after(node, "SUB a 1\r\nSUB b q 2\r\nUNSUB 2 7\r\n")
        .await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_auto_unsubscribe_counts_are_exact_over_three_failovers() {
    for ending in [Ending::Closed, Ending::Reset] {
        let (mut scene, mut client, mut node) = session(&[]).await;
        pass(
            &mut client,
            &mut node,
            "SUB a 1\r\nSUB a q 2\r\nUNSUB 1 10\r\nUNSUB 2 100\r\n",
        )
        .await;
        let mut left = (10, 100);
        for (one, two) in [(3, 1), (2, 0), (4, 7)] {
            deliver(&mut client, &mut node, "1", one).await;
            deliver(&mut client, &mut node, "2", two).await;
            left = (left.0 - one, left.1 - two);
            super::scene::die(node, ending).await;
            let expected = format!(
                "SUB a 1\r\nUNSUB 1 {}\r\nSUB a q 2\r\nUNSUB 2 {}\r\n",
                left.0, left.1
            );
            node = scene.next_node(expected).await;
        }
        deliver(&mut client, &mut node, "1", 1).await;
        node = scene.node_after(node, "SUB a q 2\r\nUNSUB 2 92\r\n").await;
        nothing_else(&mut client, &mut node).await;
    }
}

#[tokio::test]
async fn s4_a_message_cut_off_by_the_nodes_death_does_not_count() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nUNSUB 1 2\r\n").await;
    let whole = msg_frame("1", "a", "whole");
    node.send([&whole[..], &whole[..whole.len() - 1]].concat()).await;
    client.expect(&whole).await;
    node = scene.node_after(node, "SUB a 1\r\nUNSUB 1 1\r\n").await;
    deliver(&mut client, &mut node, "1", 1).await;
    node = scene.node_after(node, "").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_messages_with_headers_count_too() {
    let (mut scene, mut client, mut node) = session_with(e2e::raw::CONNECT_NEW, &[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nUNSUB 1 3\r\n").await;
    let message = "HMSG a 1 reply 12 13\r\nNATS/1.0\r\n\r\nx\r\n";
    node.send(message.repeat(2)).await;
    client.expect(message.repeat(2)).await;
    node = scene.node_after(node, "SUB a 1\r\nUNSUB 1 1\r\n").await;
    node.send(message).await;
    client.expect(message).await;
    node = scene.node_after(node, "").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_maximum_set_after_a_move_is_reduced_by_the_messages_before_the_move() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n").await;
    deliver(&mut client, &mut node, "1", 3).await;
    deliver(&mut client, &mut node, "2", 3).await;
    node = scene.node_after(node, "SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n").await;
    deliver(&mut client, &mut node, "1", 1).await;
    // A maximum counts from the SUB. Before the move, sid 1 got 3 of 6 messages, sid 2 got 3 of 3, and sid 3 none of 5.
    client.send("UNSUB 1 6\r\nUNSUB 2 3\r\nUNSUB 3 5\r\n").await;
    node.expect("UNSUB 1 3\r\nUNSUB 2\r\nUNSUB 3 5\r\n").await;
    node = scene
        .node_after(node, "SUB a 1\r\nUNSUB 1 2\r\nSUB c 3\r\nUNSUB 3 5\r\n")
        .await;
    deliver(&mut client, &mut node, "1", 2).await;
    node = scene.node_after(node, "SUB c 3\r\nUNSUB 3 5\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_maximum_changed_after_a_move_counts_from_the_first_sub() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nUNSUB 1 5\r\n").await;
    deliver(&mut client, &mut node, "1", 2).await;
    node = scene.node_after(node, "SUB a 1\r\nUNSUB 1 3\r\n").await;
    client.send("UNSUB 1 9\r\n").await;
    node.expect("UNSUB 1 7\r\n").await;
    deliver(&mut client, &mut node, "1", 4).await;
    node = scene.node_after(node, "SUB a 1\r\nUNSUB 1 3\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_an_unsub_split_by_the_nodes_death_reaches_the_next_node_with_the_remaining_maximum() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    deliver(&mut client, &mut node, "1", 4).await;
    client.send("PUB x 0\r\n\r\nUNSUB 1 1").await;
    node.expect("PUB x 0\r\n\r\n").await;
    node = scene.node_after(node, "SUB a 1\r\n").await;
    client.send("0\r\n").await;
    node.expect("UNSUB 1 6\r\n").await;
    node = scene.node_after(node, "SUB a 1\r\nUNSUB 1 6\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_reused_sid_belongs_only_to_the_new_subscription() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nSUB b 2\r\nUNSUB 1 2\r\n").await;
    deliver(&mut client, &mut node, "1", 2).await;
    client
        .send("SUB c 1\r\nUNSUB 2\r\nSUB d 2\r\nUNSUB 2 3\r\nSUB e 1\r\n")
        .await;
    // A second SUB with a sid in use changes nothing, as on a node.
    for command in ["SUB c 1", "UNSUB 2", "SUB d 2", "UNSUB 2 3", "SUB e 1"] {
        node.expect_command(format!("{command}\r\n")).await;
    }
    node = scene
        .node_after(node, "SUB c 1\r\nSUB d 2\r\nUNSUB 2 3\r\n")
        .await;
    deliver(&mut client, &mut node, "2", 1).await;
    node = scene
        .node_after(node, "SUB c 1\r\nSUB d 2\r\nUNSUB 2 2\r\n")
        .await;
    nothing_else(&mut client, &mut node).await;
}

/// The SUB that reuses the sid is sent only after the node has confirmed the UNSUB, so earlier messages cannot count for it.
#[tokio::test]
async fn s4_messages_of_an_ended_subscription_do_not_count_for_the_next_one_with_its_sid() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    client
        .send("UNSUB 1\r\nSUB b 1\r\nUNSUB 1 3\r\nPUB c 2\r\nhi\r\n")
        .await;
    node.expect_frame("UNSUB 1\r\n").await;
    node.expect_frame("PING\r\n").await;
    deliver(&mut client, &mut node, "1", 2).await;
    node.pong().await;
    node.expect("SUB b 1\r\nUNSUB 1 3\r\nPUB c 2\r\nhi\r\n").await;
    node = scene.node_after(node, "SUB b 1\r\nUNSUB 1 3\r\n").await;
    deliver(&mut client, &mut node, "1", 1).await;
    node = scene.node_after(node, "SUB b 1\r\nUNSUB 1 2\r\n").await;

    // A node that dies before it confirms the UNSUB sends nothing more, so the SUB can follow at once.
    client.send("UNSUB 1\r\nSUB c 1\r\n").await;
    node.expect_frame("UNSUB 1\r\n").await;
    node.expect_frame("PING\r\n").await;
    node = scene.node_after(node, "").await;
    node.expect_command("SUB c 1\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_ten_thousand_subscriptions_are_replayed_in_order_at_each_move() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let all: String = (0..10_000)
        .map(|number| format!("SUB subject.{number}.> {number}\r\n"))
        .collect();
    pass(&mut client, &mut node, &all).await;
    node = scene.node_after(node, &all).await;
    let every_third = |number: &usize| number.is_multiple_of(3);
    let gone: String = (0..10_000)
        .filter(every_third)
        .map(|number| format!("UNSUB {number}\r\n"))
        .collect();
    pass(&mut client, &mut node, &gone).await;
    let stay = (0..10_000).filter(|number| !every_third(number));
    let left: String = stay
        .map(|number| format!("SUB subject.{number}.> {number}\r\n"))
        .collect();
    node = scene.node_after(node, &left).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_subscription_partly_written_to_a_dying_node_is_sent_once_to_the_next() {
    // The node does not read: the bytes sent to it are in the kernel, and the last SUB there is incomplete.
    let node = ScriptedNode::with_receive_buffer_bytes(64 * 1024).await;
    let mut scene = Scene::around(node, &[]).await;
    let (mut client, node) = scene.open().await;
    let token = "t".repeat(4000);
    let all: String = (0..2000)
        .map(|number| format!("SUB {token}.{number} {number}\r\n"))
        .collect();
    let before = scene.metrics().await;
    client.send(&all).await;
    scene.until_taken(&before, all.len()).await;
    node.reset();

    // SUBs that were written whole come in the replay, before the PING. The others come after it, as new commands.
    let mut node = scene.node.accept().await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    let replayed = node.read_until("PING").await;
    node.pong().await;
    assert!((1..2000).contains(&replayed.len()), "{} replayed", replayed.len());
    let mut sent: Vec<u8> = replayed.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
    for _ in replayed.len()..2000 {
        sent.extend(node.read_frame().await.bytes());
    }
    assert!(sent == all.as_bytes(), "each SUB must arrive once, in order");
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_subscription_refused_by_permissions_is_not_replayed() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(
        &mut client,
        &mut node,
        "SUB a 1\r\nSUB secret 2\r\nSUB work crew 3\r\nSUB work 4\r\n",
    )
    .await;
    for refused in ["\"secret\"", "\"work\" using queue \"crew\""] {
        let text = format!("Permissions Violation for Subscription to {refused}");
        node.err(&text).await;
        client.expect_line(&format!("-ERR '{text}'")).await;
    }
    node = scene.node_after(node, "SUB a 1\r\nSUB work 4\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_subscriptions_over_the_limit_are_refused_and_reach_no_node() {
    let (mut scene, mut client, mut node) = session(&[("session.subscriptions_max", "2")]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nSUB b 2\r\n").await;
    client.send("SUB c 3\r\nPUB x 1\r\nx\r\n").await;
    client.expect_line("-ERR 'maximum subscriptions exceeded'").await;
    node.expect("PUB x 1\r\nx\r\n").await;
    pass(&mut client, &mut node, "UNSUB 1\r\nSUB d 4\r\n").await;
    node = scene.node_after(node, "SUB b 2\r\nSUB d 4\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_fifty_moves_of_an_idle_component_replay_the_same_subscriptions() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let all = "SUB a 1\r\nUNSUB 1 5\r\nSUB b q 2\r\n";
    pass(&mut client, &mut node, "SUB a 1\r\nSUB b q 2\r\nUNSUB 1 5\r\n").await;
    for _ in 0..50 {
        node = scene.node_after(node, all).await;
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_second_connect_ends_the_subscriptions_even_on_a_node_that_would_keep_them() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\nUNSUB 1 5\r\nSUB b q 2\r\n").await;
    deliver(&mut client, &mut node, "1", 2).await;
    client
        .send("CONNECT {\"name\":\"again\"}\r\nPUB x 0\r\n\r\nSUB c 3\r\nSUB d 1\r\n")
        .await;
    let connect = node.read_frame().await.json();
    assert_eq!(
        (&connect["name"], &connect["verbose"]),
        (&"again".into(), &false.into())
    );
    // The sid 1 is reused only when no message of its old subscription can arrive any more.
    node.expect("UNSUB 1\r\nUNSUB 2\r\nPING\r\nPUB x 0\r\n\r\nSUB c 3\r\n")
        .await;
    node.pong().await;
    node.expect("SUB d 1\r\n").await;
    node = scene.node_after(node, "SUB c 3\r\nSUB d 1\r\n").await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s4_a_first_connect_after_a_subscription_does_not_end_the_subscription() {
    let mut scene = Scene::start().await;
    let (mut client, mut node) = tokio::join!(RawClient::connect(scene.address), scene.node.accept());
    client.send("SUB a 1\r\n").await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("PING\r\nSUB a 1\r\n").await;
    node.send("+OK\r\nPONG\r\n+OK\r\n").await;
    client.expect_line("+OK").await;
    client.send(format!("{CONNECT_OLD}\r\n")).await;
    assert_eq!(node.read_frame().await.verb(), "CONNECT");
    node.expect("SUB a 1\r\nPING\r\n").await;
    node.pong().await;
    node = scene.node_after(node, "SUB a 1\r\n").await;
    nothing_else(&mut client, &mut node).await;
}
