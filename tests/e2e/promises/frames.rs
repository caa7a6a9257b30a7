//! Promises S1, S2 and S12: only whole frames, in both directions and in order, wherever a frame was split.

use super::scene::{Scene, die, nothing_else, pass, session, session_with};
use e2e::raw::{CONNECT_NEW, msg_frame, pub_frame};
use e2e::{Ending, ScriptedNode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const ENDINGS: [Ending; 2] = [Ending::Closed, Ending::Reset];
const MSG: &[u8] = b"MSG a.b 1 reply 16\r\nMSG a.b 1 1\r\nx\r\n\r\n";
const HMSG: &[u8] = b"HMSG a.b 1 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n";
const COMMANDS: [&[u8]; 5] = [
    b"PUB a.b reply 7\r\nPING\r\n\n\r\n",
    b"HPUB a.b 18 23\r\nNATS/1.0\r\nA: b\r\n\r\nhello\r\n",
    b"SUB a.b crew 17\r\n",
    b"UNSUB 17 4\r\n",
    b"PING\r\n",
];
const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test]
async fn s1_a_message_cut_off_at_any_byte_by_a_dying_node_is_never_delivered() {
    let (mut scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    pass(&mut client, &mut node, "SUB a.> 1\r\n").await;
    for frame in [MSG, HMSG] {
        for ending in ENDINGS {
            for cut in 1..frame.len() {
                // Both are sent in one write: when the component has the first message, the sidecar has the incomplete one.
                let before = msg_frame("1", "a.b", format!("before {cut}"));
                node.send([&before, &frame[..cut]].concat()).await;
                client.expect(&before).await;
                die(node, ending).await;
                node = scene.next_node("SUB a.> 1\r\n").await;
                node.send(frame).await;
                client.expect(frame).await;
            }
        }
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s1_other_frames_cut_off_by_a_dying_node_are_never_delivered() {
    let (mut scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    for frame in [
        "-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
        "+OK\r\n",
        "PING\r\n",
        "PONG\r\n",
    ] {
        for cut in 1..frame.len() {
            let before = msg_frame("1", "a", format!("before {cut}"));
            node.send([&before, &frame.as_bytes()[..cut]].concat()).await;
            client.expect(&before).await;
            node.close().await;
            node = scene.next_node("SUB a 1\r\n").await;
            nothing_else(&mut client, &mut node).await;
        }
    }
}

#[tokio::test]
async fn s1_a_large_message_cut_off_by_a_dying_node_is_never_delivered() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    let large = msg_frame("1", "a", vec![b'l'; MEBIBYTE]);
    for (cut, ending) in [
        (large.len() / 2, Ending::Closed),
        (large.len() - 1, Ending::Reset),
    ] {
        node.send(&large[..cut]).await;
        die(node, ending).await;
        node = scene.next_node("SUB a 1\r\n").await;
        node.send(&large).await;
        client.expect(&large).await;
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s1_messages_are_unchanged_wherever_the_node_splits_them() {
    let (_scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    pass(&mut client, &mut node, "SUB a.> 1\r\n").await;
    for frame in [MSG, HMSG] {
        for cut in 1..frame.len() {
            node.send_cut_at([frame, frame].concat(), frame.len() + cut).await;
            client.expect([frame, frame].concat()).await;
        }
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s2_a_command_split_at_any_byte_by_the_component_reaches_the_node_unchanged() {
    let (_scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    for command in COMMANDS {
        for cut in 1..command.len() {
            client.send_cut_at(command, cut).await;
            node.expect(command).await;
            if command == b"PING\r\n" {
                node.pong().await;
                client.expect_line("PONG").await;
            }
        }
    }
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s2_a_node_gets_nothing_of_a_command_that_a_dying_component_did_not_finish() {
    let mut scene = Scene::start().await;
    let before = pub_frame("whole", "w");
    for command in COMMANDS {
        for ending in ENDINGS {
            for cut in 1..command.len() {
                let (mut client, mut node) = scene.open_with(CONNECT_NEW).await;
                client.send([&before, &command[..cut]].concat()).await;
                if ending == Ending::Reset {
                    // A reset may overtake the bytes before it, so the test waits for them first.
                    node.expect(&before).await;
                    client.reset();
                } else {
                    client.close().await;
                    node.expect(&before).await;
                }
                node.expect_end().await;
            }
        }
    }
}

#[tokio::test]
async fn s2_a_command_unfinished_at_the_nodes_death_reaches_the_next_node_whole() {
    let (mut scene, mut client, mut node) = session_with(CONNECT_NEW, &[]).await;
    let mut replayed = Vec::new();
    for command in COMMANDS {
        for cut in 1..command.len() {
            let (head, tail) = command.split_at(cut);
            let marker = pub_frame("marker", cut.to_string());
            client.send([&marker, head].concat()).await;
            node.expect(&marker).await;
            node.close().await;
            node = scene.next_node(&replayed).await;
            client.send(tail).await;
            node.expect(command).await;
            match command {
                b"PING\r\n" => {
                    node.pong().await;
                    client.expect_line("PONG").await;
                }
                b"SUB a.b crew 17\r\n" => replayed = command.to_vec(),
                b"UNSUB 17 4\r\n" => replayed = [COMMANDS[2], command].concat(),
                _ => {}
            }
        }
    }
    nothing_else(&mut client, &mut node).await;
}

/// Nodes die without reading: the bytes sent to them are in the kernel, and the last frame there is incomplete.
async fn partly_written(policy: &str, resent: bool) {
    const COUNT: u8 = 12;
    let node = ScriptedNode::with_receive_buffer_bytes(64 * 1024).await;
    let settings = [("publish.in_doubt", policy), ("session.buffer_bytes", "67108864")];
    let mut scene = Scene::around(node, &settings).await;
    let (mut client, mut node) = scene.open().await;
    let publish = |number: u8| pub_frame("large", vec![number; MEBIBYTE]);
    for ending in ENDINGS {
        let before = scene.metrics().await;
        client
            .send((0..COUNT).flat_map(publish).collect::<Vec<u8>>())
            .await;
        let all_bytes = usize::from(COUNT) * publish(0).len();
        scene.until_taken(&before, all_bytes).await;
        die(node, ending).await;
        node = scene.next_node("").await;
        let count = |metrics: &e2e::Metrics| metrics.value("standin_in_doubt_total");
        let in_doubt = (count(&scene.metrics().await) - count(&before)) as u8;
        assert!(
            in_doubt < COUNT,
            "the node cannot have received all of {COUNT} MiB"
        );
        for number in if resent { 0 } else { in_doubt }..COUNT {
            node.expect_frame(publish(number)).await;
        }
        nothing_else(&mut client, &mut node).await;
    }
}

cases! {
    partly_written =>
    s2_a_publish_partly_written_to_a_dying_node_is_sent_whole_to_the_next("'drop'", false);
    s2_a_publish_partly_written_to_a_dying_node_is_sent_after_the_resent_ones("'resend'", true);
}

#[tokio::test]
async fn s2_a_publish_of_the_largest_size_is_passed_on_and_one_byte_more_is_refused() {
    for max_payload in [1, 100, MEBIBYTE, 2 * MEBIBYTE] {
        let mut node = ScriptedNode::start().await;
        node.info_mut()["max_payload"] = max_payload.into();
        let mut scene = Scene::around(node, &[]).await;
        let (mut client, mut node) = scene.open().await;
        assert_eq!(client.info()["max_payload"], max_payload);
        let largest = pub_frame("a", vec![b'x'; max_payload]);
        pass(&mut client, &mut node, &largest).await;
        nothing_else(&mut client, &mut node).await;

        client.send(format!("PUB a {}\r\n", max_payload + 1)).await;
        node.answer_ping().await;
        client.expect_line("-ERR 'Maximum Payload Violation'").await;
        client.expect_end().await;
        node.expect_end().await;
    }
}

#[tokio::test]
async fn s2_commands_before_a_malformed_one_are_processed_and_answered() {
    for malformed in ["BROKEN\r\n", "PUB\r\n", "PUB a 1\r\nxyz\r\n", "PUB a -1\r\n"] {
        let (_scene, mut client, mut node) = session(&[]).await;
        client
            .send(format!("PUB a 1\r\nx\r\nPING\r\n{malformed}PUB never 1\r\nx\r\n"))
            .await;
        node.expect("PUB a 1\r\nx\r\nPING\r\nPING\r\n").await;
        node.send("PONG\r\nPONG\r\n").await;
        client
            .expect("PONG\r\n-ERR 'Unknown Protocol Operation'\r\n")
            .await;
        client.expect_end().await;
        node.expect_end().await;
    }
}

/// Publishes numbers without a pause while node after node dies. Returns the numbers that each node read, and the total.
async fn numbers_over_dying_nodes(scene: &mut Scene, deaths: usize) -> (Vec<Vec<usize>>, usize) {
    const READ_BEFORE_DEATH: usize = 1000;
    let (mut client, mut node) = scene.open().await;
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let publishing = tokio::spawn(async move {
        let publish = |subject, number: usize| pub_frame(subject, format!("{number:01000}"));
        let mut total = 0;
        while !stop.load(Relaxed) {
            let chunk: Vec<u8> = (total..total + 50)
                .flat_map(|number| publish("n", number))
                .collect();
            client.send(chunk).await;
            total += 50;
        }
        client.send(publish("end", total)).await;
        // The client is returned, so that it is not closed before the node has read everything.
        (client, total + 1)
    });
    let mut numbers = vec![Vec::new()];
    loop {
        let frame = node.read_command().await;
        let number = String::from_utf8_lossy(frame.payload()).parse();
        let read = numbers.last_mut().expect("there is a node");
        read.push(number.unwrap_or_else(|_| panic!("{frame:?}")));
        if frame.words()[1] == "end" {
            break;
        }
        if read.len() >= READ_BEFORE_DEATH && numbers.len() <= deaths {
            die(node, ENDINGS[numbers.len() % 2]).await;
            node = scene.next_node("").await;
            numbers.push(Vec::new());
            enough.store(numbers.len() > deaths, Relaxed);
        }
    }
    let (_client, total) = publishing.await.expect("the component has published all");
    (numbers, total)
}

#[tokio::test]
async fn s12_with_drop_publishes_keep_their_order_over_moves_under_load() {
    let settings = [
        ("publish.confirm_bytes", "65536"),
        ("session.buffer_bytes", "1048576"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (numbers, total) = numbers_over_dying_nodes(&mut scene, 10).await;
    let numbers = numbers.concat();
    assert!(numbers.is_sorted_by(|a, b| a < b), "out of order or twice");
    let lost = total - numbers.len();
    let in_doubt = scene.metrics().await.value("standin_in_doubt_total{policy=drop}");
    assert!(
        lost as f64 <= in_doubt,
        "{lost} lost, but only {in_doubt} counted as in doubt"
    );
}

#[tokio::test]
async fn s12_with_resend_publishes_keep_their_order_over_moves_under_load_and_none_is_lost() {
    let settings = [
        ("publish.confirm_bytes", "65536"),
        ("publish.in_doubt", "'resend'"),
        ("publish.in_doubt_bytes_max", "1048576"),
        ("session.buffer_bytes", "1048576"),
    ];
    let mut scene = Scene::with(&settings).await;
    let (numbers, total) = numbers_over_dying_nodes(&mut scene, 10).await;
    let mut next = 0;
    for of_node in numbers {
        assert!(of_node.is_sorted_by(|a, b| a + 1 == *b), "a gap within one node");
        assert!(
            of_node.first().is_none_or(|first| *first <= next),
            "a gap between two nodes"
        );
        next = of_node.last().map_or(next, |last| next.max(last + 1));
    }
    assert_eq!(next, total);
}

#[tokio::test]
async fn s12_messages_keep_their_order_over_moves() {
    let (mut scene, mut client, mut node) = session(&[]).await;
    let subscriptions = "SUB a 1\r\nSUB b 2\r\n";
    pass(&mut client, &mut node, subscriptions).await;
    let mut sent = Vec::new();
    for round in 0..10 {
        let messages = (0..500).flat_map(|number| {
            let number = format!("{}", round * 500 + number);
            [msg_frame("1", "a", &number), msg_frame("2", "b", &number)].concat()
        });
        let messages: Vec<u8> = messages.collect();
        node.send(&messages).await;
        sent.extend(messages);
        die(node, Ending::Closed).await;
        node = scene.next_node(subscriptions).await;
    }
    client.expect(&sent).await;
    nothing_else(&mut client, &mut node).await;
}

#[tokio::test]
async fn s12_publishes_and_messages_at_the_same_time_keep_their_order_over_moves() {
    const EACH: usize = 300;
    let (mut scene, mut client, mut node) = session(&[("publish.in_doubt", "'resend'")]).await;
    pass(&mut client, &mut node, "SUB a 1\r\n").await;
    for round in 0..10 {
        let numbers = round * EACH..(round + 1) * EACH;
        let up: Vec<u8> = numbers
            .clone()
            .flat_map(|number| pub_frame("b", number.to_string()))
            .collect();
        let down: Vec<u8> = numbers
            .flat_map(|number| msg_frame("1", "a", number.to_string()))
            .collect();
        // The node sends its messages, confirms everything, and dies in the middle of another message.
        tokio::join!(client.send([&up[..], b"PING\r\n"].concat()), node.send(&down));
        node.expect(&up).await;
        node.expect_line("PING").await;
        node.send([b"PONG\r\n", &down[..5]].concat()).await;
        client.expect(&down).await;
        client.expect_line("PONG").await;
        die(node, ENDINGS[round % 2]).await;
        node = scene.next_node("SUB a 1\r\n").await;
    }
    nothing_else(&mut client, &mut node).await;
}
