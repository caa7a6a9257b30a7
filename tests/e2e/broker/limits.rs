//! Limits and flags. Each test runs with the same settings on `standin-broker` and on real nats-server.

use std::fs;
use std::time::Duration;

use e2e::{Ending, Node, RawClient, ServerKind, TIMEOUT, eventually, found};
use nix::sys::signal::Signal;

const BOTH: [ServerKind; 2] = [ServerKind::Standin, ServerKind::NatsServer];

/// Starts a server with these settings, in the format of nats-server.
async fn server(kind: ServerKind, settings: &str) -> Node {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("server.conf");
    fs::write(&path, settings).expect("a file");
    Node::start(kind, &["-c", &path.display().to_string()]).await
}

/// Waits until the pages list a closed client, and returns the reason of its end.
async fn reason(server: &Node) -> String {
    found("the client is listed as closed", TIMEOUT, async || {
        let page = server.http().get_json("/connz?state=closed").await?;
        page["connections"][0]["reason"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_silent_client_gets_pings_and_is_then_closed() {
    for kind in BOTH {
        let server = server(kind, "ping_interval: \"200ms\"\nping_max: 2\n").await;
        let mut silent = RawClient::open(server.address()).await;
        let (received, ending) = silent.read_to_end().await;
        let received = String::from_utf8_lossy(&received).into_owned();
        assert_eq!(
            received, "PING\r\nPING\r\n-ERR 'Stale Connection'\r\n",
            "{kind:?}"
        );
        assert_eq!(ending, Ending::Closed, "{kind:?}");
        assert_eq!(reason(&server).await, "Stale Connection", "{kind:?}");
    }
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_connected() {
    for kind in BOTH {
        let server = server(kind, "ping_interval: \"150ms\"\nping_max: 1\n").await;
        let mut client = RawClient::open(server.address()).await;
        for _ in 0..8 {
            client.expect("PING\r\n").await;
            client.send("PONG\r\n").await;
        }
    }
}

#[tokio::test]
async fn a_connection_over_the_limit_gets_an_error_and_is_closed() {
    for kind in BOTH {
        let server = server(kind, "max_connections: 2\n").await;
        let first = RawClient::open(server.address()).await;
        let mut second = RawClient::open(server.address()).await;
        let mut third = e2e::Conversation::new(
            "the third",
            tokio::net::TcpStream::connect(server.address())
                .await
                .expect("the server listens"),
        );
        let (received, _) = third.read_to_end().await;
        let received = String::from_utf8_lossy(&received).into_owned();
        assert!(
            received.ends_with("-ERR 'maximum connections exceeded'\r\n"),
            "{kind:?}: {received}"
        );
        first.close().await;
        eventually("there is room again", TIMEOUT, async || {
            let stream = tokio::net::TcpStream::connect(server.address())
                .await
                .expect("the server listens");
            let mut next = e2e::Conversation::new("the next", stream);
            next.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await;
            next.listen_for(Duration::from_millis(100)).await;
            next.untaken().ends_with(b"PONG\r\n")
        })
        .await;
        second.flush().await;
    }
}

/// Publishes to a subscriber that never reads, until the server closes it. Returns the reason that the pages show.
async fn slow_consumer_reason(kind: ServerKind, settings: &str) -> String {
    let server = server(kind, settings).await;
    let _subscriber = server.subscriber("a").await;
    let mut publisher = RawClient::open(server.address()).await;
    let message = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(16);
    let slow = async || {
        let page = server.http().get_json("/varz").await;
        page.and_then(|page| page["slow_consumers"].as_u64()) == Some(1)
    };
    eventually("the subscriber counts as a slow consumer", TIMEOUT, async || {
        publisher.send(&message).await;
        slow().await
    })
    .await;
    publisher.flush().await;
    eventually("the subscriber is gone", TIMEOUT, async || {
        let page = server.http().get_json("/varz").await;
        page.is_some_and(|page| page["connections"] == 1)
    })
    .await;
    reason(&server).await
}

async fn a_slow_consumer_is_closed(settings: &str, expected: &str) {
    for kind in BOTH {
        assert_eq!(slow_consumer_reason(kind, settings).await, expected, "{kind:?}");
    }
}

cases! {
    a_slow_consumer_is_closed =>
    a_client_that_never_reads_is_closed_at_max_pending(
        "max_pending: 2MB\nwrite_deadline: \"3s\"\n",
        "Slow Consumer (Pending Bytes)"
    );
    a_client_that_never_reads_is_closed_at_the_write_deadline(
        "max_pending: 1GB\nwrite_deadline: \"200ms\"\n",
        "Slow Consumer (Write Deadline)"
    );
}

#[tokio::test]
async fn flags_have_the_same_effect_as_on_nats_server() {
    for kind in BOTH {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let program = kind
            .program()
            .args(["-a", "127.0.0.1", "-p", "-1", "-DV", "-n", "name"])
            .args([
                "-P",
                &path("pid"),
                "-l",
                &path("log"),
                "--ports_file_dir",
                &path(""),
            ]);
        // The log is in the file, so the file shows when the server is ready.
        let mut process = program.start(format!("{kind:?}"));
        let log = || fs::read_to_string(path("log")).unwrap_or_default();
        eventually("the server is ready", TIMEOUT, async || {
            log().contains("Server is ready")
        })
        .await;
        let log_text = log();
        let (_, rest) = log_text
            .split_once("Listening for client connections on ")
            .expect("the line that scripts look for");
        let address = rest
            .split_whitespace()
            .next()
            .and_then(|address| address.parse().ok());
        let mut client = RawClient::open(address.expect("an address")).await;
        assert_eq!(client.info()["server_name"], "name");
        client.subscribe("a", "1").await;
        client.flush().await;
        eventually("frames of clients are logged", TIMEOUT, async || {
            log().contains("<<- [SUB a 1]")
        })
        .await;
        assert_eq!(
            fs::read_to_string(path("pid")).ok(),
            Some(process.pid().to_string()),
            "{kind:?}"
        );
        let ports = format!("_{}.ports", process.pid());
        // nats-server writes this file after it is ready.
        let ports: serde_json::Value = found("the ports file is written", TIMEOUT, async || {
            let mut files = fs::read_dir(folder.path()).ok()?.flatten();
            let file = files.find(|file| file.file_name().to_string_lossy().ends_with(&ports))?;
            serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok()
        })
        .await;
        assert_eq!(
            ports["nats"][0],
            format!("nats://{}", client.peer_addr().expect("connected")),
            "{kind:?}"
        );
        process.signal(Signal::SIGINT);
        assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(0), "{kind:?}");
    }
}
