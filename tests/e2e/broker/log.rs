//! The log at its default level: clients that the server closes because of their behaviour.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use e2e::raw::pub_frame;
use e2e::{Node, RawClient, ServerKind, TIMEOUT};

/// Starts a server with a user and with low limits.
async fn server_with_user() -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.toml");
    let text = "[authorization]\nuser = \"a\"\npassword = \"hunter2\"\ntimeout_ms = 300\n\
                [limits]\nmax_pending = 1048576\nmax_payload = 65536\n";
    std::fs::write(&path, text).expect("a file");
    // Otherwise the log has a warning about the file.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
    let server = Node::start(ServerKind::Standin, &["-c", &path.display().to_string()]).await;
    (server, folder)
}

const CONNECT: &str = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"hunter2\",\"name\":\"n\"}";

#[tokio::test]
async fn each_client_that_is_closed_because_of_its_behaviour_has_a_log_line() {
    let (mut server, _folder) = server_with_user().await;
    let address = server.address();
    let peer = |client: &RawClient| format!("peer={}", client.local_addr().expect("an address"));
    let mut expected = Vec::new();

    let mut wrong = RawClient::connect(address).await;
    wrong
        .send("CONNECT {\"user\":\"mallory\",\"pass\":\"guess\\n1\",\"name\":\"evil\\nname\"}\r\n")
        .await;
    expected.push(vec![
        "login failed".to_owned(),
        "mallory".to_owned(),
        peer(&wrong),
    ]);
    wrong.read_to_end().await;

    let mut silent = RawClient::connect(address).await;
    expected.push(vec![
        "login timed out".to_owned(),
        "timeout_ms=300".to_owned(),
        peer(&silent),
    ]);
    silent.read_to_end().await;

    let mut malformed = RawClient::open_with(address, CONNECT).await;
    expected.push(vec![
        "protocol violation".to_owned(),
        "Unknown Protocol Operation".to_owned(),
        peer(&malformed),
    ]);
    malformed.send("HELLO\r\n").await;
    malformed.read_to_end().await;

    let slow = RawClient::open_with(address, CONNECT)
        .await
        .subscribed("load")
        .await;
    expected.push(vec![
        "slow consumer closed".to_owned(),
        "limits.max_pending".to_owned(),
        "limit=1048576".to_owned(),
        peer(&slow),
    ]);
    let mut publisher = RawClient::open_with(address, CONNECT).await;
    let load = pub_frame("load", vec![b'x'; 60_000]).repeat(50);
    while !server.process().has_line("slow consumer closed") {
        publisher.send(&load).await;
        publisher.flush().await;
    }

    for words in &expected {
        let line = server.process().wait_for_line(&words[0], TIMEOUT).await.text;
        assert!(line.contains("WARN"), "{line}");
        for word in words {
            assert!(line.contains(word), "{word} is missing in {line}");
        }
    }
    for secret in ["hunter2", "guess"] {
        assert!(!server.process().has_line(secret), "{}", server.process().tail());
    }
}

#[tokio::test]
async fn a_client_that_closes_by_itself_has_no_log_line() {
    let (mut server, _folder) = server_with_user().await;
    let mut client = RawClient::open_with(server.address(), CONNECT).await;
    client.flush().await;
    client.close().await;
    RawClient::connect(server.address()).await.close().await;
    // A third client, whose line comes after any line of the other two.
    let mut last = RawClient::connect(server.address()).await;
    last.send("PING\r\n").await;
    last.read_to_end().await;
    server.process().wait_for_line("login failed", TIMEOUT).await;
    // The server may also warn about the limit on open files.
    let warnings = server.process().lines();
    let warnings = warnings.iter().filter(|line| line.text.contains("WARN"));
    assert_eq!(
        warnings.filter(|line| !line.text.contains("open files")).count(),
        1
    );
}

#[tokio::test]
async fn many_failed_logins_log_few_lines() {
    let (mut server, _folder) = server_with_user().await;
    let wrong = async || {
        let mut client = RawClient::connect(server.address()).await;
        client.set_timeout(Duration::from_secs(30));
        client.send("CONNECT {\"user\":\"a\",\"pass\":\"x\"}\r\n").await;
        client.read_to_end().await;
    };
    let began = Instant::now();
    for _ in 0..20 {
        futures_util::future::join_all((0..20).map(|_| wrong())).await;
    }
    let lines = server.process().count_lines("login failed");
    let lines_max = 20 * (began.elapsed().as_secs() as usize + 2);
    assert!(
        (10..=lines_max).contains(&lines),
        "{lines} lines for 400 failed logins; at most {lines_max} in this time"
    );
}
