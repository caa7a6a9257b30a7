//! Tests of delivery to the right clients, also with many clients at once, and of the removal of closed clients.

use crate::node::{CONNECT, RawClient, TIMEOUT, eventually, page_field, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn many_clients_that_close_at_once_leave_no_subscriptions() {
    let server = start(|_| {}).await;
    for _ in 0..3 {
        let mut clients = Vec::new();
        for number in 0..500 {
            let mut client = RawClient::connect(&server).await;
            let subscriptions = format!(
                "{CONNECT}SUB same 1\r\nSUB own.{number} 2\r\nSUB wild.*.{number} 3\r\nSUB same crew 4\r\nUNSUB 4 5\r\nPING\r\n"
            );
            client.send(subscriptions).await;
            clients.push(client);
        }
        for client in &mut clients {
            client.expect("PONG\r\n").await;
        }
        assert_eq!((server.clients(), server.subscriptions()), (500, 2000));
        clients[0].send("PUB same 1\r\nx\r\n").await;
        for client in &mut clients {
            assert!(client.line().await.starts_with("MSG same "));
        }
        drop(clients);
        eventually("all clients and subscriptions are removed", || {
            (server.clients(), server.subscriptions()) == (0, 0)
        })
        .await;
    }
    let mut after = RawClient::open(&server).await;
    after.send("SUB same 1\r\nPUB same 2\r\nhi\r\n").await;
    after.expect("MSG same 1 2\r\nhi\r\n").await;
}

#[tokio::test]
async fn frames_sent_in_single_bytes_are_parsed() {
    let server = start(|_| {}).await;
    let mut slow = RawClient::connect(&server).await;
    for byte in format!("{CONNECT}SUB a.* 1\r\nPUB a.b re 5\r\nhello\r\nPING\r\n").bytes() {
        slow.send([byte]).await;
    }
    slow.expect("MSG a.b 1 re 5\r\nhello\r\nPONG\r\n").await;
}

#[tokio::test]
async fn headers_are_sent_only_to_clients_that_support_them() {
    let server = start(|_| {}).await;
    let mut old = RawClient::open_with(&server, "SUB a 1\r\n").await;
    let mut new = RawClient::connect(&server).await;
    new.send("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    new.expect("HMSG a 1 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    old.expect("MSG a 1 5\r\nhello\r\n").await;
}

#[tokio::test]
async fn members_of_a_queue_group_get_equal_shares() {
    let server = start(|_| {}).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        let member = RawClient::open_with(&server, "SUB work crew 1\r\n").await;
        members.push(member);
    }
    let _publisher = RawClient::open_with(&server, &"PUB work 1\r\nx\r\n".repeat(4000)).await;
    let mut total = 0;
    for member in &mut members {
        member.send("PING\r\n").await;
        let mut share = 0;
        while member.line().await != "PONG\r\n" {
            share += 1;
            member.line().await;
        }
        assert!(
            (850..=1150).contains(&share),
            "one of four members got {share} of 4000 messages"
        );
        total += share;
    }
    assert_eq!(total, 4000, "each message is delivered once");
}

#[tokio::test]
async fn large_payloads_reach_many_subscribers_complete_and_in_order() {
    let server = start(|_| {}).await;
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        let subscriber = RawClient::open_with(&server, "SUB large 1\r\n").await;
        subscribers.push(subscriber);
    }
    let mut publisher = RawClient::open(&server).await;
    let payloads: Vec<String> = ('a'..'u')
        .enumerate()
        .map(|(number, letter)| letter.to_string().repeat(8 * 1024 + 37_000 * number))
        .collect();
    let frames = |head: &str| -> Vec<String> {
        let frame = |payload: &String| format!("{head} {}\r\n{payload}\r\n", payload.len());
        payloads.iter().map(frame).collect()
    };
    let mut reading = tokio::task::JoinSet::new();
    for mut subscriber in subscribers {
        let expected = frames("MSG large 1");
        reading.spawn(async move {
            // One by one, because a PING of the node may come between two of them.
            for frame in expected {
                subscriber.expect(&frame).await;
            }
        });
    }
    publisher.send(frames("PUB large").concat()).await;
    publisher.flush().await;
    reading.join_all().await;
}

#[tokio::test]
async fn stop_closes_every_client_in_a_bounded_time() {
    let server = start(|_| {}).await;
    let address = server.address();
    let mut client = RawClient::open(&server).await;
    timeout(TIMEOUT, server.stop())
        .await
        .expect("stop returns within the timeout");
    assert_eq!(client.rest().await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_publish_confirmed_by_a_pong_has_reached_every_subscriber_of_the_node() {
    let server = start(|_| {}).await;
    let mut subscriber = RawClient::open(&server).await;
    let mut publisher = RawClient::open(&server).await;
    for round in 0..500 {
        subscriber.send(format!("SUB a {round}\r\n")).await;
        subscriber.flush().await;
        publisher.send("PUB a 1\r\nx\r\n").await;
        publisher.flush().await;
        subscriber.send(format!("UNSUB {round}\r\nPING\r\n")).await;
        subscriber
            .expect(&format!("MSG a {round} 1\r\nx\r\nPONG\r\n"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_for_thousands_of_subscriptions_does_not_block_other_clients() {
    const SUBSCRIPTIONS: u64 = 4_000;
    const MESSAGES: u64 = 1_000;
    let server = start(|settings| {
        settings.process.workers = 1;
        settings.http.port = -1;
        settings.limits.max_pending = 1 << 30;
    })
    .await;
    let subs: String = (0..SUBSCRIPTIONS).map(|sid| format!("SUB a {sid}\r\n")).collect();
    let mut subscriber = RawClient::open_with(&server, &subs).await;
    let mut other = RawClient::open(&server).await;
    let mut publisher = RawClient::open(&server).await;
    publisher
        .send(&"PUB a 1\r\nx\r\n".repeat(MESSAGES as usize))
        .await;
    let reading = tokio::spawn(async move {
        let mut rest = SUBSCRIPTIONS * MESSAGES;
        let mut buffer = vec![0; 1 << 20];
        while rest > 0 {
            let count = subscriber
                .stream
                .read(&mut buffer)
                .await
                .expect("read from the node");
            assert!(count > 0, "the node closed the subscriber");
            rest -= buffer[..count].iter().filter(|byte| **byte == b'x').count() as u64;
        }
    });
    // Delivery has begun. The other client must get its PONGs before all messages are delivered.
    while page_field(&server, "/varz", "out_msgs").await == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        other.flush().await;
    }
    let delivered = page_field(&server, "/varz", "out_msgs").await;
    assert!(
        delivered < SUBSCRIPTIONS * MESSAGES,
        "the other client was blocked until all {delivered} messages were delivered"
    );
    timeout(TIMEOUT, reading)
        .await
        .expect("delivery ends within the timeout")
        .expect("all messages arrive");
    assert_eq!(
        page_field(&server, "/varz", "out_msgs").await,
        SUBSCRIPTIONS * MESSAGES
    );
    publisher.flush().await;
}

#[tokio::test]
async fn a_subject_may_have_very_many_tokens() {
    let server = start(|settings| settings.limits.max_control_line = 1 << 20).await;
    let mut deep = RawClient::open(&server).await;
    let subject = "a.".repeat(250_000);
    deep.send(format!("SUB {subject}> 1\r\nSUB {subject}* 2\r\n"))
        .await;
    deep.flush().await;
    deep.send(format!("PUB {subject}b 1\r\nx\r\n")).await;
    for is_head in [true, false, true, false] {
        assert_eq!(deep.line().await.starts_with("MSG"), is_head);
    }
    deep.send("UNSUB 1\r\nUNSUB 2\r\n").await;
    deep.flush().await;
    assert_eq!(server.subscriptions(), 0);
}

#[tokio::test]
async fn a_client_that_closes_only_its_sending_side_gets_all_pending_messages() {
    const MESSAGES: usize = 200;
    let server = start(|_| {}).await;
    let mut client = RawClient::open_with(&server, "SUB a 1\r\n").await;
    let message = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536));
    client.send(message.repeat(MESSAGES) + "PING\r\n").await;
    client
        .stream
        .shutdown()
        .await
        .expect("shut down the sending side");
    let received = client.rest().await;
    assert_eq!(received.matches("MSG a 1 65536\r\n").count(), MESSAGES);
    assert!(received.ends_with("PONG\r\n"));
}
