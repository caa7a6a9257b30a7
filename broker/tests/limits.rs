//! A node in this process and raw clients around it: limits, slow and silent clients.

use crate::node::{PATIENCE, Raw, eventually, figure, start};
use standin_broker::Settings;
use standin_broker::settings::Millis;
use tokio::net::TcpStream;
use tokio::time::Instant;
#[tokio::test]
async fn connections_over_the_limit_are_refused_and_taken_again_when_there_is_room() {
    let server = start(|settings| settings.limits.max_connections = 2).await;
    let one = Raw::open(&server).await;
    let _two = Raw::open(&server).await;
    let mut three = Raw {
        stream: TcpStream::connect(server.address()).await.expect("it listens"),
        heard: Vec::new(),
    };
    assert_eq!(three.rest().await, "-ERR 'maximum connections exceeded'\r\n");
    drop(one);
    eventually("there is room", || server.clients() == 1).await;
    Raw::open(&server).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_costs_the_others_nothing() {
    let server = start(|settings| settings.limits.max_pending = 1024 * 1024).await;
    let mut deaf = Raw::open(&server).await;
    deaf.say("SUB flood 1\r\nSUB flood 2\r\n").await;
    deaf.flush().await;
    let mut reader = Raw::open(&server).await;
    reader.say("SUB flood 7\r\n").await;
    reader.flush().await;
    let mut publisher = Raw::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // Far more than the sockets between can hold, and never more on its way than may wait for one client.
    for _ in 0..128 {
        publisher.say(message.repeat(128)).await;
        let mut left = 128 * 1000;
        while left > 0 {
            left -= reader.heard.iter().filter(|byte| **byte == b'x').count();
            reader.heard.clear();
            assert!(left == 0 || reader.more().await, "the one that reads is served");
        }
    }
    publisher.flush().await;
    eventually("the slow consumer is gone", || server.clients() == 2).await;
    eventually("with its subscriptions", || server.subscriptions() <= 1).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_in_time_is_closed() {
    let server = start(|settings| settings.limits.write_deadline_ms = Millis(300)).await;
    let mut deaf = Raw::open(&server).await;
    deaf.say("SUB flood 1\r\n").await;
    deaf.flush().await;
    let mut publisher = Raw::open(&server).await;
    let message = format!("PUB flood 1000\r\n{}\r\n", "x".repeat(1000));
    // More than the sockets between can hold, less than may wait.
    for _ in 0..256 {
        publisher.say(message.repeat(64)).await;
    }
    publisher.flush().await;
    eventually("the slow consumer is gone", || server.clients() == 1).await;
    publisher.flush().await;
}

#[tokio::test]
async fn a_silent_client_is_asked_and_closed_as_stale() {
    let server = start(|settings| {
        settings.limits.ping_interval_ms = Millis(100);
        settings.limits.ping_max = 2;
    })
    .await;
    let mut silent = Raw::open(&server).await;
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    let mut answering = Raw::open(&server).await;
    for _ in 0..6 {
        answering.hears("PING\r\n").await;
        answering.say("PONG\r\n").await;
    }
}

#[tokio::test]
async fn subscriptions_over_the_limit_are_refused_and_the_client_goes_on() {
    let server = start(|settings| settings.limits.max_subscriptions = 2).await;
    let mut client = Raw::open(&server).await;
    client
        .say("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB d 4\r\n")
        .await;
    client.hears("-ERR 'maximum subscriptions exceeded'\r\n").await;
    client.say("PUB c 1\r\nc\r\nPUB d 1\r\nd\r\n").await;
    client.hears("MSG d 4 1\r\nd\r\n").await;
}

#[tokio::test]
async fn who_never_says_connect_is_asked_and_closed_as_well() {
    let server = start(|settings| {
        settings.limits.ping_interval_ms = Millis(100);
        settings.limits.ping_max = 2;
    })
    .await;
    let mut silent = Raw::connect(&server).await;
    assert_eq!(silent.rest().await, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
}

/// As old clients ask: each request has a subscription of its own, which ends with its answer.
#[tokio::test]
async fn subscriptions_that_are_over_do_not_count_for_the_limit() {
    let server = start(|settings| {
        settings.limits.max_subscriptions = 3;
        settings.http.port = -1;
    })
    .await;
    let mut client = Raw::open(&server).await;
    client.say("SUB stays 0\r\n").await;
    for number in 1..100 {
        client
            .say(format!(
                "SUB in.{number} {number}\r\nUNSUB {number} 1\r\nPUB in.{number} 1\r\nx\r\n"
            ))
            .await;
        assert_eq!(client.line().await, format!("MSG in.{number} {number} 1\r\n"));
        assert_eq!(client.line().await, "x\r\n");
    }
    assert_eq!(figure(&server, "/connz", "subscriptions").await, 1);
    client.say("SUB a a\r\nSUB b b\r\nSUB c c\r\n").await;
    assert_eq!(client.line().await, "-ERR 'maximum subscriptions exceeded'\r\n");
}

#[tokio::test]
async fn a_reload_counts_for_clients_that_come_later() {
    let server = start(|_| {}).await;
    let text = "addr = \"127.0.0.1\"\nport = -1\n[limits]\nmax_pending = 1048576\n[process]\nworkers = 2\n";
    server.reload(Settings::from_toml(text).expect("settings"));
    let mut lazy = Raw::open(&server).await;
    lazy.say("SUB a 1\r\n").await;
    lazy.flush().await;
    let mut publisher = Raw::open(&server).await;
    let batch = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(8);
    let start = Instant::now();
    while server.clients() == 2 {
        assert!(
            start.elapsed() < PATIENCE,
            "the client that never reads is still there"
        );
        publisher.say(&batch).await;
    }
    publisher.flush().await;
}
