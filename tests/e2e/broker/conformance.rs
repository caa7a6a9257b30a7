//! The table of conversations, tested with `standin-broker` and with real nats-server. If the two differ where the
//! table has one answer for both, a row fails for one of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::http::Endpoint;
use e2e::{Conversation, Node, ServerKind, TIMEOUT, eventually};
use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::rows::{AGAIN, GUARDED, LIMITED, LIMITS, OPEN, Row, TOKEN};

async fn check_rows(kind: ServerKind, flags: &[&str], rows: &[Row]) {
    let server = Node::start(kind, flags).await;
    check_rows_at(kind, server.address(), server.http(), rows).await;
}

/// Holds each conversation of `rows` with the node or sidecar at `address`. The node's monitoring pages are at `http`.
pub(crate) async fn check_rows_at(kind: ServerKind, address: SocketAddr, http: &Endpoint, rows: &[Row]) {
    let subscriptions = async || {
        let page = http.get_json("/subsz").await;
        page.and_then(|page| page["num_subscriptions"].as_u64())
    };
    let before = subscriptions().await;
    for row in rows {
        let receives = match row.receives_from_nats_server {
            Some(receives) if kind == ServerKind::NatsServer => receives,
            _ => row.receives,
        };
        let stream = TcpStream::connect(address)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", row.name));
        let mut client = Conversation::new(row.name, stream);
        assert_eq!(client.read_frame().await.verb(), "INFO", "{}", row.name);
        client.send(row.sends).await;
        if row.closes {
            let (received, _) = client.read_to_end().await;
            assert_eq!(String::from_utf8_lossy(&received), receives, "{}", row.name);
        } else {
            // The PONG comes after all other answers.
            client.send("PING\r\n").await;
            client.expect(format!("{receives}PONG\r\n")).await;
            client.close().await;
        }
        // The subscriptions of one client must be gone before the next one publishes.
        eventually("the client's subscriptions are gone", TIMEOUT, async || {
            subscriptions().await == before
        })
        .await;
    }
}

async fn check_all_rows(kind: ServerKind) {
    check_rows(kind, &[], OPEN).await;
    check_rows(kind, &[], AGAIN).await;
    check_rows(kind, &["--user", "a", "--pass", "b"], GUARDED).await;
    check_rows(kind, &["--auth", "t"], TOKEN).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("limits.conf");
    std::fs::write(&path, LIMITS).expect("a file");
    check_rows(kind, &["-c", &path.display().to_string()], LIMITED).await;
}

cases! {
    check_all_rows =>
    the_table_holds_on_standin_broker(ServerKind::Standin);
    the_table_holds_on_nats_server(ServerKind::NatsServer);
}

/// Returns INFO without the fields that differ at each start, or between the two programs.
async fn info(kind: ServerKind, flags: &[&str]) -> serde_json::Value {
    let server = Node::start(kind, flags).await;
    let client = e2e::RawClient::connect(server.address()).await;
    let mut info = client.info();
    assert_eq!(info["port"], server.address().port());
    assert_eq!(info["server_id"].as_str().map(str::len), Some(56));
    // Without a name in the flags, the name is the random id.
    let is_named = info["server_name"] != info["server_id"];
    let fields = info.as_object_mut().expect("an object");
    if !is_named {
        fields.remove("server_name");
    }
    for field in [
        "server_id",
        "port",
        "git_commit",
        "go",
        "jetstream",
        "xkey",
        "client_id",
        "api_lvl",
    ] {
        fields.remove(field);
    }
    // `standin-broker` sends `auth_required` and `tls_required` even if they are false, as old servers did.
    fields.retain(|_, value| *value != false);
    info
}

const ALL: [ServerKind; 3] = [
    ServerKind::Standin,
    ServerKind::NatsServer,
    ServerKind::OldNatsServer,
];

/// Time from CONNECT to the first PING: 2 s, up to a fifth more, and still more on a busy machine.
const FIRST_PING: std::ops::Range<Duration> = Duration::from_millis(1950)..Duration::from_millis(3500);

async fn first_ping_at(address: SocketAddr, kind: ServerKind) {
    let mut silent = e2e::RawClient::connect(address).await;
    let mut client = e2e::RawClient::connect(address).await;
    // The time is counted from CONNECT, not from the start of the connection.
    silent.expect_silence(Duration::from_millis(600)).await;
    client
        .send("CONNECT {\"verbose\":false}\r\nPING\r\nPUB a 1\r\nx\r\n")
        .await;
    client.expect_line("PONG").await;
    let since = Instant::now();
    client.expect_line("PING").await;
    let at = since.elapsed();
    assert!(FIRST_PING.contains(&at), "{kind:?}: {at:?}");
    silent.expect_silence(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn the_first_ping_comes_two_seconds_after_connect_on_all_servers() {
    join_all(ALL.map(async |kind| {
        let server = Node::start(kind, &[]).await;
        first_ping_at(server.address(), kind).await;
    }))
    .await;
}

/// Without the sidecar, old versions of `nats-server` keep the subscriptions.
#[tokio::test]
async fn a_second_connect_ends_the_subscriptions_also_behind_the_sidecar() {
    for kind in ALL {
        let server = Node::start(kind, &[]).await;
        let sidecar = e2e::Sidecar::builder().upstream([server.url()]).start().await;
        check_rows_at(ServerKind::Standin, sidecar.address(), server.http(), AGAIN).await;
        check_pedantic_again(sidecar.address()).await;
    }
}

/// `nats-server` parses the arguments of PUB again, and so may send a second `-ERR`, if a read of 512 bytes ends inside the frame. The
/// CONNECT that the sidecar sends is longer than that of the client, so this happens behind it.
async fn check_pedantic_again(address: SocketAddr) {
    let payload = "x".repeat(64);
    let publish = format!("PUB a.* 64\r\n{payload}\r\n");
    let mut client = e2e::RawClient::connect(address).await;
    client
        .send(format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{publish}CONNECT {{\"pedantic\":true}}\r\n{publish}PING\r\n"
        ))
        .await;
    let frames = client.read_until("PONG").await;
    let mut lines: Vec<String> = frames.iter().map(e2e::Frame::line).collect();
    lines.dedup();
    assert_eq!(lines, ["-ERR 'Invalid Publish Subject'"]);
}

#[tokio::test]
async fn info_has_the_fields_and_values_of_nats_server() {
    for flags in [&[][..], &["--user", "a", "--pass", "b"], &["-n", "name"]] {
        assert_eq!(
            info(ServerKind::Standin, flags).await,
            info(ServerKind::NatsServer, flags).await,
            "{flags:?}"
        );
    }
}
