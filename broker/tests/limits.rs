//! Tests of limits, and of slow and silent clients.

use crate::node::{RawClient, TIMEOUT, eventually, page_field, start};
use standin_broker::Settings;
use standin_broker::settings::Millis;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::test]
async fn connections_over_the_limit_are_refused_until_another_closes() {
    let server = start(|settings| settings.limits.max_connections = 2).await;
    let one = RawClient::open(&server).await;
    let _two = RawClient::open(&server).await;
    let stream = TcpStream::connect(server.address()).await;
    let mut three = RawClient {
        stream: stream.expect("connect to the node"),
        received: Vec::new(),
    };
    assert_eq!(three.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    drop(one);
    eventually("one client is left", || server.clients() == 1).await;
    RawClient::open(&server).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_does_not_block_the_others() {
    let server = start(|settings| settings.limits.max_pending = 1024 * 1024).await;
    let _slow = RawClient::open_with(&server, "SUB flood 1\r\nSUB flood 2\r\n").await;
    let mut reader = RawClient::open_with(&server, "SUB flood 7\r\n").await;
    let mut publisher = RawClient::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // In total, this is far more than the socket buffers can hold. In flight there is never more than `max_pending`.
    for _ in 0..128 {
        publisher.send(message.repeat(128)).await;
        let mut left = 128 * 1000;
        while left > 0 {
            left -= reader.received.iter().filter(|byte| **byte == b'x').count();
            reader.received.clear();
            assert!(
                left == 0 || reader.more().await,
                "the client that reads was closed"
            );
        }
    }
    publisher.flush().await;
    eventually("the slow consumer is closed", || server.clients() == 2).await;
    eventually("its subscriptions are removed", || server.subscriptions() <= 1).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_within_the_write_deadline_is_closed() {
    let server = start(|settings| settings.limits.write_deadline_ms = Millis(300)).await;
    let _slow = RawClient::open_with(&server, "SUB flood 1\r\n").await;
    let mut publisher = RawClient::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // More than the socket buffers can hold, and less than may be pending.
    for _ in 0..256 {
        publisher.send(message.repeat(64)).await;
    }
    publisher.flush().await;
    eventually("the slow consumer is closed", || server.clients() == 1).await;
    publisher.flush().await;
}

#[tokio::test]
async fn a_silent_client_gets_pings_and_is_closed_as_stale_even_before_its_connect() {
    let server = start(|settings| {
        settings.limits.ping_interval_ms = Millis(100);
        settings.limits.ping_max = 2;
    })
    .await;
    let with_connect = RawClient::open(&server).await;
    let without_connect = RawClient::connect(&server).await;
    for mut silent in [with_connect, without_connect] {
        assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    }
    let mut answering = RawClient::open(&server).await;
    for _ in 0..6 {
        answering.expect("PING\r\n").await;
        answering.send("PONG\r\n").await;
    }
}

#[tokio::test]
async fn subscriptions_over_the_limit_are_refused_and_the_client_stays() {
    let server = start(|settings| settings.limits.max_subscriptions = 2).await;
    let mut client = RawClient::open(&server).await;
    client
        .send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB d 4\r\n")
        .await;
    client.expect("-ERR 'maximum subscriptions exceeded'\r\n").await;
    client.send("PUB c 1\r\nc\r\nPUB d 1\r\nd\r\n").await;
    client.expect("MSG d 4 1\r\nd\r\n").await;
}

/// Old clients make a subscription for each request. It ends with the reply.
#[tokio::test]
async fn ended_subscriptions_do_not_count_for_the_limit() {
    let server = start(|settings| {
        settings.limits.max_subscriptions = 3;
        settings.http.port = -1;
    })
    .await;
    let mut client = RawClient::open(&server).await;
    client.send("SUB stays 0\r\n").await;
    for number in 1..100 {
        client
            .send(format!(
                "SUB in.{number} {number}\r\nUNSUB {number} 1\r\nPUB in.{number} 1\r\nx\r\n"
            ))
            .await;
        assert_eq!(client.line().await, format!("MSG in.{number} {number} 1\r\n"));
        assert_eq!(client.line().await, "x\r\n");
    }
    assert_eq!(page_field(&server, "/connz", "subscriptions").await, 1);
    client.send("SUB a a\r\nSUB b b\r\nSUB c c\r\n").await;
    assert_eq!(client.line().await, "-ERR 'maximum subscriptions exceeded'\r\n");
}

#[tokio::test]
async fn reloaded_limits_hold_for_new_clients() {
    let server = start(|_| {}).await;
    let text = "addr = \"127.0.0.1\"\nport = -1\n[limits]\nmax_pending = 1048576\n[process]\nworkers = 2\n";
    server
        .reload(Settings::from_toml(text).expect("settings"))
        .expect("reload");
    let _slow = RawClient::open_with(&server, "SUB a 1\r\n").await;
    let mut publisher = RawClient::open(&server).await;
    let batch = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(8);
    let start = Instant::now();
    while server.clients() == 2 {
        assert!(
            start.elapsed() < TIMEOUT,
            "the client that never reads is still connected"
        );
        publisher.send(&batch).await;
    }
    publisher.flush().await;
}
