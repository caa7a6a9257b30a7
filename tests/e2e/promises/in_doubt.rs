//! Promise S3: publishes that were written whole to a node and not confirmed by a PONG before it died.

use super::scene::{Scene, nothing_else, pass, session, session_with};
use e2e::raw::{msg_frame, pub_frame};
use e2e::{Ending, RawClient, ScriptedNode};
use std::time::Duration;
use tokio::task::JoinHandle;

const RESEND: (&str, &str) = ("publish.in_doubt", "'resend'");

/// Returns the publishes `numbers` to `subject`, in order.
fn publishes(subject: &str, numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers
        .flat_map(|number| pub_frame(subject, format!("{number:04}")))
        .collect()
}

/// Waits until the counters have these values: publishes in doubt under `drop`, in doubt under `resend`, and sent again.
async fn is_counted(scene: &Scene, dropped: usize, to_resend: usize, resent: usize) {
    scene
        .counted("standin_in_doubt_total{policy=drop}", dropped as f64)
        .await;
    scene
        .counted("standin_in_doubt_total{policy=resend}", to_resend as f64)
        .await;
    scene.counted("standin_resent_total", resent as f64).await;
}

/// Publishes ten messages, of which the node confirms none, some or all before it dies.
async fn ten_publishes_at_the_nodes_death(policy: &str, resends: bool) {
    for confirmed in [0, 1, 5, 10] {
        let (mut scene, mut client, mut node) = session(&[("publish.in_doubt", policy)]).await;
        pass(&mut client, &mut node, publishes("a", 0..confirmed)).await;
        nothing_else(&mut client, &mut node).await;
        pass(&mut client, &mut node, publishes("a", confirmed..10)).await;
        let mut node = scene.node_after(node, "").await;
        let in_doubt = 10 - confirmed;
        if resends {
            node.expect(publishes("a", confirmed..10)).await;
        }
        nothing_else(&mut client, &mut node).await;
        let (dropped, resent) = if resends { (0, in_doubt) } else { (in_doubt, 0) };
        is_counted(&scene, dropped, resent, resent).await;
    }
}

cases! {
    ten_publishes_at_the_nodes_death =>
    s3_with_resend_exactly_the_publishes_without_a_pong_are_sent_again_in_order("'resend'", true);
    s3_with_drop_no_publish_is_sent_again_and_each_in_doubt_is_counted("'drop'", false);
}

#[tokio::test]
async fn s3_each_subject_has_the_policy_of_the_first_pattern_that_matches() {
    let subjects =
        "[{ pattern = 'orders.draft.*', in_doubt = 'drop' }, { pattern = 'orders.>', in_doubt = 'resend' }]";
    let (mut scene, mut client, mut node) = session(&[("publish.subject", subjects)]).await;
    let mut kept = Vec::new();
    for round in 0..20 {
        for subject in [
            "orders.new",
            "orders.draft.x",
            "orders",
            "news",
            "orders.draft.x.y",
        ] {
            let publish = publishes(subject, round..round + 1);
            pass(&mut client, &mut node, &publish).await;
            if ["orders.new", "orders.draft.x.y"].contains(&subject) {
                kept.extend(publish);
            }
        }
    }
    let mut node = scene.node_after(node, "").await;
    node.expect(&kept).await;
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 60, 40, 40).await;
}

#[tokio::test]
async fn s3_publishes_with_headers_and_reply_subjects_are_sent_again_unchanged() {
    let (mut scene, mut client, mut node) = session_with(e2e::raw::CONNECT_NEW, &[RESEND]).await;
    let publishes =
        "hpub  a\treply 12 17\r\nNATS/1.0\r\n\r\nhello\r\nPub b 0\r\n\r\nPUB\tc reply 6\r\nPUB c\n\r\n";
    pass(&mut client, &mut node, publishes).await;
    let mut node = scene.node_after(node, "").await;
    node.expect(publishes).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s3_nothing_is_sent_again_before_the_new_node_has_answered_the_replay() {
    let (mut scene, mut client, mut node) = session(&[RESEND]).await;
    pass(&mut client, &mut node, publishes("a", 0..3)).await;
    node.reset();
    let mut node = scene.joining_node("").await;
    node.expect_silence(Duration::from_millis(50)).await;
    node.pong().await;
    node.expect(publishes("a", 0..3)).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s3_publishes_are_sent_again_until_a_node_confirms_them_over_many_failovers() {
    let (mut scene, mut client, mut node) = session(&[RESEND]).await;
    let (mut in_doubt, mut from) = (0, 0);
    for round in 0..6 {
        let (first, end) = (round * 10, round * 10 + 10);
        pass(&mut client, &mut node, publishes("a", first..end)).await;
        if round % 3 == 2 {
            nothing_else(&mut client, &mut node).await;
            from = end;
        }
        in_doubt += end - from;
        node = scene.node_after(node, "").await;
        node.expect(publishes("a", from..end)).await;
    }
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 0, in_doubt, in_doubt).await;
    let mut node = scene.node_after(node, "").await;
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 0, in_doubt, in_doubt).await;
}

#[tokio::test]
async fn s3_no_publish_is_lost_when_a_node_dies_while_publishes_are_sent_again() {
    const COUNT: usize = 6;
    let large = |number: usize| pub_frame("large", vec![number as u8; 1024 * 1024]);
    let node = ScriptedNode::with_receive_buffer_bytes(64 * 1024).await;
    let mut scene = Scene::around(node, &[RESEND]).await;
    let (mut client, mut node) = scene.open().await;
    for number in 0..COUNT {
        pass(&mut client, &mut node, large(number)).await;
    }
    node.reset();
    for _ in 0..3 {
        let mut node = scene.next_node("").await;
        node.expect(large(0)).await;
        // Bytes of the next publishes have reached the node, most of them unread.
        node.reset();
    }
    let mut node = scene.next_node("").await;
    for number in 0..COUNT {
        node.expect_frame(large(number)).await;
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s3_nodes_that_die_before_they_answer_the_replay_do_not_change_what_is_sent_again() {
    let (mut scene, mut client, mut node) = session(&[RESEND]).await;
    pass(&mut client, &mut node, publishes("a", 0..5)).await;
    node.reset();
    for _ in 0..5 {
        scene.joining_node("").await.close().await;
        scene.node.accept_silently().await.reset();
    }
    let mut node = scene.next_node("").await;
    node.expect(publishes("a", 0..5)).await;
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 0, 5, 5).await;
}

#[tokio::test]
async fn s3_a_pong_confirms_only_the_publishes_before_its_ping() {
    let (mut scene, mut client, mut node) = session(&[RESEND]).await;
    let (first, second, third) = (publishes("a", 0..3), publishes("a", 3..6), publishes("a", 6..9));
    let stream = [&first[..], b"PING\r\n", &second, b"PING\r\n", &third].concat();
    pass(&mut client, &mut node, stream).await;
    node.pong().await;
    client.expect_line("PONG").await;
    let mut node = scene.node_after(node, "").await;
    node.expect([&second[..], b"PING\r\n", &third].concat()).await;
    node.pong().await;
    client.expect_line("PONG").await;
    let mut node = scene.node_after(node, "").await;
    node.expect(&third).await;
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 0, 6 + 3, 6 + 3).await;
}

fn kilobyte(number: usize) -> Vec<u8> {
    pub_frame("a", format!("{number:01000}"))
}

/// Sends this many publishes in the background, because the sidecar stops reading while its window is full.
fn send_all(mut client: RawClient, total: usize) -> JoinHandle<RawClient> {
    tokio::spawn(async move {
        let all: Vec<u8> = (0..total).flat_map(kilobyte).collect();
        client.send(all).await;
        client
    })
}

#[tokio::test]
async fn s3_a_full_window_blocks_the_component_and_loses_nothing() {
    const WINDOW_BYTES: usize = 65536;
    let window = WINDOW_BYTES.to_string();
    let settings = [
        RESEND,
        ("publish.in_doubt_bytes_max", &window),
        ("publish.confirm_bytes", &window),
        ("session.buffer_bytes", "4096"),
    ];
    let (_scene, client, mut node) = session(&settings).await;
    let total = 2000;
    let sending = send_all(client, total);
    let (mut read, mut unconfirmed_bytes) = (0, 0);
    while read < total {
        let frame = node.read_frame().await;
        if frame.verb() == "PING" {
            // The window is full, so no more publishes arrive now.
            if read < total / 10 {
                node.expect_silence(Duration::from_millis(30)).await;
            }
            unconfirmed_bytes = 0;
            node.pong().await;
            continue;
        }
        assert_eq!(frame.bytes(), kilobyte(read));
        read += 1;
        unconfirmed_bytes += frame.bytes().len();
        assert!(
            unconfirmed_bytes <= WINDOW_BYTES,
            "{unconfirmed_bytes} bytes unconfirmed at once"
        );
    }
    sending.await.expect("the component has sent all");
}

#[tokio::test]
async fn s3_a_full_window_at_the_nodes_death_loses_nothing() {
    let settings = [
        RESEND,
        ("publish.in_doubt_bytes_max", "65536"),
        ("publish.confirm_bytes", "65536"),
        ("session.buffer_bytes", "65536"),
    ];
    let (mut scene, client, mut node) = session(&settings).await;
    let total = 1000;
    let sending = send_all(client, total);
    node.read_until("PING").await;
    let mut node = scene.node_after(node, "").await;
    for number in 0..total {
        node.expect_command(kilobyte(number)).await;
    }
    sending.await.expect("the component has sent all");
}

#[tokio::test]
async fn s3_the_sidecar_sends_a_ping_each_time_it_has_sent_confirm_bytes() {
    let (_scene, mut client, mut node) = session(&[("publish.confirm_bytes", "1024")]).await;
    let publish = pub_frame("a", vec![b'x'; 100]);
    let until_full = 1024_usize.div_ceil(publish.len());
    for _ in 0..5 {
        for _ in 0..until_full {
            pass(&mut client, &mut node, &publish).await;
        }
        node.answer_ping().await;
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s3_the_sidecar_sends_a_ping_after_the_last_publish_and_none_in_an_idle_session() {
    let (mut scene, mut client, mut node) = session(&[("publish.confirm_interval_ms", "20")]).await;
    for _ in 0..3 {
        pass(&mut client, &mut node, publishes("a", 0..1)).await;
        node.expect_line("PING").await;
        node.expect_silence(Duration::from_millis(60)).await;
        node.pong().await;
        node.expect_silence(Duration::from_millis(60)).await;
    }
    let mut node = scene.node_after(node, "").await;
    nothing_else(&mut client, &mut node).await;
    is_counted(&scene, 0, 0, 0).await;
}

#[tokio::test]
async fn s3_unconfirmed_publishes_are_sent_again_after_the_component_has_left() {
    let (mut scene, mut client, mut node) = session(&[RESEND, ("publish.confirm_interval_ms", "20")]).await;
    pass(&mut client, &mut node, publishes("a", 0..5)).await;
    client.close().await;
    node.expect_line("PING").await;
    let mut node = scene.node_after(node, "").await;
    node.expect([&publishes("a", 0..5)[..], b"PING\r\n"].concat())
        .await;
    node.pong().await;
    node.expect_end().await;
    is_counted(&scene, 0, 5, 5).await;
    scene.counted("standin_sessions", 0.0).await;
}

#[tokio::test]
async fn s3_unconfirmed_publishes_of_a_component_that_leaves_at_once_are_sent_again() {
    for ending in [Ending::Closed, Ending::Reset] {
        let (mut scene, mut client, mut node) =
            session(&[RESEND, ("publish.confirm_interval_ms", "20")]).await;
        let sent = [&publishes("a", 0..5)[..], b"PING\r\n", &publishes("a", 5..7)].concat();
        client.send(&sent).await;
        if ending == Ending::Reset {
            // A reset may overtake the bytes before it, so the test waits for them first.
            node.expect(&sent).await;
            client.reset();
            scene.counted("standin_sessions", 1.0).await;
        } else {
            client.close().await;
            node.expect(&sent).await;
        }
        let mut node = scene.node_after(node, "").await;
        node.expect(&sent).await;
        node.pong().await;
        node.answer_ping().await;
        node.expect_end().await;
        is_counted(&scene, 0, 7, 7).await;
    }
}

#[tokio::test]
async fn s3_publishes_larger_than_the_window_are_sent_one_at_a_time() {
    let settings = [
        RESEND,
        ("publish.in_doubt_bytes_max", "65536"),
        ("publish.confirm_bytes", "65536"),
    ];
    let (mut scene, mut client, mut node) = session(&settings).await;
    let large = |number: u8| pub_frame("large", vec![number; 1024 * 1024]);
    client.send([large(0), large(1), large(2)].concat()).await;
    node.expect(large(0)).await;
    node.expect_line("PING").await;
    node.expect_silence(Duration::from_millis(50)).await;
    node.pong().await;
    node.expect(large(1)).await;
    node.expect_line("PING").await;
    let mut node = scene.node_after(node, "").await;
    for number in [1, 2] {
        node.expect_command(large(number)).await;
    }
    is_counted(&scene, 0, 1, 1).await;
}

#[tokio::test]
async fn s3_publishes_sent_again_are_confirmed_part_by_part() {
    const PART_BYTES: usize = 4096;
    let part_bytes = PART_BYTES.to_string();
    // The last part is smaller, and confirmed after the interval.
    let settings = [
        RESEND,
        ("publish.confirm_bytes", &part_bytes),
        ("publish.confirm_interval_ms", "20"),
    ];
    let (mut scene, mut client, mut node) = session(&settings).await;
    let publish = |number: usize| pub_frame("a", format!("{number:0500}"));
    let all: Vec<u8> = (0..200).flat_map(publish).collect();
    client.send(all).await;
    // The first node confirms nothing.
    let mut read = 0;
    while read < 200 {
        read += usize::from(node.read_frame().await.verb() == "PUB");
    }
    node.reset();
    // Each node confirms one part and dies. The next one gets the rest.
    let mut first = 0;
    while first < 200 {
        node = scene.next_node("").await;
        let part = node.read_until("PING").await;
        assert!(
            !part.is_empty() && part.len() <= PART_BYTES.div_ceil(publish(0).len()),
            "{} in one part",
            part.len()
        );
        for frame in &part {
            assert_eq!(frame.bytes(), publish(first));
            first += 1;
        }
        node.pong().await;
        node.send(msg_frame("1", "a", "barrier")).await;
        client.expect(msg_frame("1", "a", "barrier")).await;
        node.reset();
    }
    scene.next_node("").await;
}
