//! A node in this process and raw clients around it: who gets what, many at once, and what is left behind.

use crate::node::{CONNECT, PATIENCE, Raw, eventually, figure, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
#[tokio::test]
async fn nothing_is_left_of_many_clients_that_come_and_die_at_once() {
    let server = start(|_| {}).await;
    for _ in 0..3 {
        let mut clients = Vec::new();
        for number in 0..500 {
            let mut client = Raw::connect(&server).await;
            let subscriptions = format!(
                "{CONNECT}SUB same 1\r\nSUB own.{number} 2\r\nSUB wild.*.{number} 3\r\nSUB same crew 4\r\nUNSUB 4 5\r\nPING\r\n"
            );
            client.say(subscriptions).await;
            clients.push(client);
        }
        for client in &mut clients {
            client.hears("PONG\r\n").await;
        }
        assert_eq!((server.clients(), server.subscriptions()), (500, 2000));
        clients[0].say("PUB same 1\r\nx\r\n").await;
        for client in &mut clients {
            assert!(client.line().await.starts_with("MSG same "));
        }
        drop(clients);
        eventually("all are gone", || {
            (server.clients(), server.subscriptions()) == (0, 0)
        })
        .await;
    }
    let mut after = Raw::open(&server).await;
    after.say("SUB same 1\r\nPUB same 2\r\nhi\r\n").await;
    after.hears("MSG same 1 2\r\nhi\r\n").await;
}

#[tokio::test]
async fn a_client_that_sends_single_bytes_is_understood() {
    let server = start(|_| {}).await;
    let mut slow = Raw::connect(&server).await;
    for byte in format!("{CONNECT}SUB a.* 1\r\nPUB a.b re 5\r\nhello\r\nPING\r\n").bytes() {
        slow.say([byte]).await;
    }
    slow.hears("MSG a.b 1 re 5\r\nhello\r\nPONG\r\n").await;
}

#[tokio::test]
async fn headers_go_only_to_those_who_take_them() {
    let server = start(|_| {}).await;
    let mut old = Raw::open(&server).await;
    old.say("SUB a 1\r\n").await;
    old.flush().await;
    let mut new = Raw::connect(&server).await;
    new.say("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB a 1\r\nHPUB a 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    new.hears("HMSG a 1 15 20\r\nNATS/1.0\r\nA\r\n\r\nhello\r\n")
        .await;
    old.hears("MSG a 1 5\r\nhello\r\n").await;
}

#[tokio::test]
async fn members_of_a_queue_group_get_equal_shares() {
    let server = start(|_| {}).await;
    let mut members = Vec::new();
    for _ in 0..4 {
        let mut member = Raw::open(&server).await;
        member.say("SUB work crew 1\r\n").await;
        member.flush().await;
        members.push(member);
    }
    let mut publisher = Raw::open(&server).await;
    publisher.say("PUB work 1\r\nx\r\n".repeat(4000)).await;
    publisher.flush().await;
    let mut total = 0;
    for member in &mut members {
        member.say("PING\r\n").await;
        let mut share = 0;
        while member.line().await != "PONG\r\n" {
            share += 1;
            member.line().await;
        }
        assert!((850..=1150).contains(&share), "one of four got {share} of 4000");
        total += share;
    }
    assert_eq!(total, 4000, "each message once");
}

#[tokio::test]
async fn large_payloads_reach_each_of_many_subscribers_whole() {
    let server = start(|_| {}).await;
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        let mut subscriber = Raw::open(&server).await;
        subscriber.say("SUB large 1\r\n").await;
        subscriber.flush().await;
        subscribers.push(subscriber);
    }
    let mut publisher = Raw::open(&server).await;
    let payloads: Vec<String> = (0..20u8)
        .map(|number| {
            char::from(b'a' + number)
                .to_string()
                .repeat(8 * 1024 + 37_000 * usize::from(number))
        })
        .collect();
    let reading: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            let payloads = payloads.clone();
            tokio::spawn(async move {
                for payload in &payloads {
                    subscriber
                        .hears(&format!("MSG large 1 {}\r\n{payload}\r\n", payload.len()))
                        .await;
                }
            })
        })
        .collect();
    for payload in &payloads {
        publisher
            .say(format!("PUB large {}\r\n{payload}\r\n", payload.len()))
            .await;
    }
    publisher.flush().await;
    for one in reading {
        one.await.expect("every payload came whole and in its order");
    }
}

#[tokio::test]
async fn a_stop_closes_every_client_and_returns() {
    let server = start(|_| {}).await;
    let address = server.address();
    let mut client = Raw::open(&server).await;
    timeout(PATIENCE, server.stop())
        .await
        .expect("the stop is bounded");
    assert_eq!(client.rest().await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_publish_confirmed_by_a_pong_has_reached_every_subscriber_of_the_node() {
    let server = start(|_| {}).await;
    let mut subscriber = Raw::open(&server).await;
    let mut publisher = Raw::open(&server).await;
    for round in 0..500 {
        subscriber.say(format!("SUB a {round}\r\n")).await;
        subscriber.flush().await;
        publisher.say("PUB a 1\r\nx\r\n").await;
        publisher.flush().await;
        subscriber.say(format!("UNSUB {round}\r\nPING\r\n")).await;
        subscriber
            .hears(&format!("MSG a {round} 1\r\nx\r\nPONG\r\n"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_thousands_of_subscriptions_do_not_hold_up_the_others() {
    const SUBSCRIPTIONS: u64 = 4_000;
    const MESSAGES: u64 = 1_000;
    let server = start(|settings| {
        settings.process.workers = 1;
        settings.http.port = -1;
        settings.limits.max_pending = 1 << 30;
    })
    .await;
    let mut subscriber = Raw::open(&server).await;
    let subs: String = (0..SUBSCRIPTIONS).map(|sid| format!("SUB a {sid}\r\n")).collect();
    subscriber.say(&subs).await;
    subscriber.flush().await;
    let mut other = Raw::open(&server).await;
    let mut publisher = Raw::open(&server).await;
    publisher.say(&"PUB a 1\r\nx\r\n".repeat(MESSAGES as usize)).await;
    let reading = tokio::spawn(async move {
        let mut rest = SUBSCRIPTIONS * MESSAGES;
        let mut buffer = vec![0; 1 << 20];
        while rest > 0 {
            let count = subscriber.stream.read(&mut buffer).await.expect("a socket");
            assert!(count > 0, "the subscriber was closed");
            rest -= buffer[..count].iter().filter(|byte| **byte == b'x').count() as u64;
        }
    });
    // The whole batch is in the node, or will be in a moment; the other client has its answers long before it is through.
    while figure(&server, "/varz", "out_msgs").await == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        other.flush().await;
    }
    let delivered = figure(&server, "/varz", "out_msgs").await;
    assert!(
        delivered < SUBSCRIPTIONS * MESSAGES,
        "{delivered}: the batch came first"
    );
    timeout(PATIENCE, reading)
        .await
        .expect("in time")
        .expect("all came");
    assert_eq!(
        figure(&server, "/varz", "out_msgs").await,
        SUBSCRIPTIONS * MESSAGES
    );
    publisher.flush().await;
}

#[tokio::test]
async fn a_subject_of_very_many_tokens_is_one_like_any_other() {
    let server = start(|settings| settings.limits.max_control_line = 1 << 20).await;
    let mut deep = Raw::open(&server).await;
    let subject = "a.".repeat(250_000);
    deep.say(format!("SUB {subject}> 1\r\nSUB {subject}* 2\r\n"))
        .await;
    deep.flush().await;
    deep.say(format!("PUB {subject}b 1\r\nx\r\n")).await;
    let mut heard = vec![
        deep.line().await,
        deep.line().await,
        deep.line().await,
        deep.line().await,
    ];
    heard.retain(|line| line.starts_with("MSG"));
    assert_eq!(heard.len(), 2);
    deep.say("UNSUB 1\r\nUNSUB 2\r\n").await;
    deep.flush().await;
    assert_eq!(server.subscriptions(), 0);
}

#[tokio::test]
async fn who_has_closed_only_its_sending_side_gets_all_that_waits() {
    const MESSAGES: usize = 200;
    let server = start(|_| {}).await;
    let mut client = Raw::open(&server).await;
    client.say("SUB a 1\r\n").await;
    client.flush().await;
    let message = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536));
    client.say(message.repeat(MESSAGES) + "PING\r\n").await;
    client.stream.shutdown().await.expect("a socket");
    let heard = client.rest().await;
    assert_eq!(heard.matches("MSG a 1 65536\r\n").count(), MESSAGES);
    assert!(heard.ends_with("PONG\r\n"));
}
