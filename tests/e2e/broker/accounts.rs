//! Accounts: subject spaces of their own, on our broker and on `nats-server`, on one node and in a mesh; and their limits.

use std::time::{Duration, Instant};

use e2e::{Mesh, Node, RawClient, ServerKind, TIMEOUT, eventually};
use tempfile::TempDir;

const ACCOUNTS: &str = r#"
accounts {
  A { users: [ { user: alice, password: p }, { user: anna, password: p } ] }
  B { users: [ { user: bob, password: p } ] }
}
no_auth_user: bob
"#;

async fn write(folder: &TempDir, text: &str) -> String {
    let conf = folder.path().join("nats.conf");
    std::fs::write(&conf, text).expect("the settings are written");
    conf.display().to_string()
}

fn connect(user: &str) -> String {
    format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true,\"user\":\"{user}\",\"pass\":\"p\"}}\r\n"
    )
}

/// Connects as `user`, sends the frames `then`, and waits until the server has processed them.
pub(super) async fn client_of(node: &Node, user: &str, then: &str) -> RawClient {
    let mut client = RawClient::connect(node.address()).await;
    client.send(format!("{}{then}PING\r\n", connect(user))).await;
    client.expect("PONG\r\n").await;
    client
}

/// Sends what this client publishes, and waits until the server has taken it.
async fn publish(client: &mut RawClient, frames: &str) {
    client.send(format!("{frames}PING\r\n")).await;
    client.expect("PONG\r\n").await;
}

async fn check_one_node(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let conf = write(&folder, ACCOUNTS).await;
    let node = Node::start(kind, &["-c", &conf]).await;
    let mut anna = client_of(&node, "anna", "SUB > 1\r\n").await;
    let mut bob = client_of(&node, "bob", "SUB > 1\r\nSUB *.x 2\r\nSUB a.x group 3\r\n").await;
    // A client without credentials is bob.
    let mut nobody = RawClient::connect(node.address()).await;
    nobody
        .send("CONNECT {\"verbose\":false}\r\nSUB b 1\r\nPING\r\n")
        .await;
    nobody.expect("PONG\r\n").await;
    let mut alice = client_of(&node, "alice", "SUB a.x group 1\r\nSUB inbox 2\r\n").await;
    publish(&mut alice, "PUB b 1\r\n1\r\n").await;
    anna.expect("MSG b 1 1\r\n1\r\n").await;
    alice.send("PUB a.x 1\r\n2\r\n").await;
    alice.expect("MSG a.x 1 1\r\n2\r\n").await;
    anna.expect("MSG a.x 1 1\r\n2\r\n").await;
    publish(&mut anna, "UNSUB 1\r\n").await;
    // Nobody of the account answers, although another account has a subscriber.
    alice.send("PUB b inbox 1\r\n3\r\n").await;
    let answer = alice.read_frame().await;
    assert!(answer.line().starts_with("HMSG inbox 2 "), "{answer:?}");
    publish(&mut bob, "").await;
    bob.send("PUB b 1\r\n4\r\n").await;
    bob.expect("MSG b 1 1\r\n4\r\n").await;
    nobody.expect("MSG b 1 1\r\n4\r\n").await;
    let page = node
        .http()
        .get_json("/connz?acc=A&auth=1")
        .await
        .expect("the page");
    let rows = page["connections"].as_array().expect("rows").iter();
    let rows: Vec<_> = rows
        .map(|row| {
            (
                row["account"].as_str().unwrap_or("-"),
                row["authorized_user"].as_str().unwrap_or("-"),
            )
        })
        .collect();
    assert_eq!(rows, [("A", "anna"), ("A", "alice")], "{page}");
}

cases! {
    check_one_node =>
    accounts_have_subjects_of_their_own_on_standin_broker(ServerKind::Standin);
    accounts_have_subjects_of_their_own_on_nats_server(ServerKind::NatsServer);
}

/// The two subscribers of each account are on other nodes than its publisher.
async fn check_mesh(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let conf = write(&folder, ACCOUNTS).await;
    let mut mesh = Mesh::builder(kind, 3).flags(&["-c", &conf]).start().await;
    let subscriptions = "SUB a.* 1\r\nSUB a.x group 2\r\n";
    let mut anna = client_of(&mesh.nodes[1], "anna", subscriptions).await;
    let mut bob = client_of(&mesh.nodes[2], "bob", subscriptions).await;
    let mut alice = client_of(&mesh.nodes[0], "alice", "SUB inbox 1\r\n").await;
    let mut other_bob = client_of(&mesh.nodes[0], "bob", "").await;
    mesh.wait_until_agreed().await;
    for number in 0..100 {
        publish(&mut alice, &format!("PUB a.x 3\r\nA{number:02}\r\n")).await;
        publish(&mut other_bob, &format!("PUB a.x inbox 3\r\nB{number:02}\r\n")).await;
    }
    for (client, account, reply) in [(&mut anna, "A", ""), (&mut bob, "B", " inbox")] {
        for number in 0..100 {
            let mut lines = [client.read_frame().await, client.read_frame().await].map(|frame| {
                assert_eq!(frame.payload(), format!("{account}{number:02}").as_bytes());
                frame.line()
            });
            lines.sort();
            assert_eq!(
                lines,
                [format!("MSG a.x 1{reply} 3"), format!("MSG a.x 2{reply} 3")]
            );
        }
        client.expect_silence(Duration::from_millis(50)).await;
    }
    // A request across the mesh, and one that nobody of the account can answer.
    alice.send("PUB a.x inbox 1\r\n?\r\n").await;
    let asked = [anna.read_frame().await, anna.read_frame().await];
    assert!(asked.iter().all(|frame| frame.payload() == b"?"), "{asked:?}");
    anna.send("PUB inbox 1\r\n!\r\n").await;
    alice.expect("MSG inbox 1 1\r\n!\r\n").await;
    bob.expect_silence(Duration::from_millis(50)).await;
    drop(anna);
    eventually("the account has no subscriber left", TIMEOUT, async || {
        alice.send("PUB a.x inbox 0\r\n\r\n").await;
        alice.send("PING\r\n").await;
        alice.read_frame().await.line().contains("HMSG inbox")
    })
    .await;
}

cases! {
    check_mesh =>
    accounts_are_separate_across_a_mesh_of_standin_broker(ServerKind::Standin);
    accounts_are_separate_across_a_mesh_of_nats_server(ServerKind::NatsServer);
}

async fn check_limits(kind: ServerKind) {
    let folder = TempDir::new().expect("a folder");
    let conf = write(
        &folder,
        "accounts { A { users: [ { user: alice, password: p } ], limits: { max_connections: 2, max_subscriptions: 1, max_payload: 10 } }, B { users: [ { user: bob, password: p } ] } }",
    )
    .await;
    let node = Node::start(kind, &["-c", &conf]).await;
    let mut first = client_of(&node, "alice", "SUB a 1\r\n").await;
    let mut second = client_of(&node, "alice", "").await;
    let mut third = RawClient::connect(node.address()).await;
    third.send(format!("{}PING\r\n", connect("alice"))).await;
    third
        .expect("-ERR 'maximum account active connections exceeded'\r\n")
        .await;
    third.expect_end().await;
    let mut bob = client_of(&node, "bob", "SUB a 1\r\nSUB b 2\r\n").await;
    first.send("SUB b 2\r\nPING\r\n").await;
    first.expect_line("-ERR 'maximum subscriptions exceeded'").await;
    second
        .send("PUB a 10\r\n0123456789\r\nPUB a 11\r\n0123456789a\r\n")
        .await;
    second.expect_line("-ERR 'Maximum Payload Violation'").await;
    second.expect_end().await;
    publish(&mut bob, "PUB c 11\r\n0123456789a\r\n").await;
    eventually("there is room again", TIMEOUT, async || {
        let mut again = RawClient::connect(node.address()).await;
        again.send(format!("{}PING\r\n", connect("alice"))).await;
        again.read_frame().await.verb() == "PONG"
    })
    .await;
}

cases! {
    check_limits =>
    an_account_has_its_limits_on_standin_broker(ServerKind::Standin);
    an_account_has_its_limits_on_nats_server(ServerKind::NatsServer);
}

const RATES: &str = r#"
accounts {
  slow { users: [ { user: slow, password: p } ], limits: { max_msgs_in_per_sec: 1000 } }
  strict { users: [ { user: strict, password: p } ], limits: { max_msgs_in_per_sec: 1000, over_rate: refuse } }
  free { users: [ { user: free, password: p } ] }
}
"#;

/// Above its rate, an account either waits or gets errors. Others are not affected.
#[tokio::test]
async fn a_rate_holds_for_the_account_and_for_no_other() {
    let folder = TempDir::new().expect("a folder");
    let conf = write(&folder, RATES).await;
    let node = Node::start(ServerKind::Standin, &["-c", &conf]).await;
    let batch = "PUB a 1\r\nx\r\n".repeat(3000);
    let mut slow = client_of(&node, "slow", "").await;
    let began = Instant::now();
    publish(&mut slow, &batch).await;
    publish(&mut slow, "").await;
    // A second's worth is free, and one turn of input may pass before the rate is noticed.
    publish(&mut slow, "PUB a 1\r\nx\r\n").await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");

    // A publish waits, but not the PING of a client that publishes nothing.
    slow.send(batch.repeat(2)).await;
    let mut idle = client_of(&node, "slow", "").await;
    let began = Instant::now();
    publish(&mut idle, "SUB b 1\r\n").await;
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    slow.close().await;

    let mut strict = client_of(&node, "strict", "").await;
    publish(&mut strict, &batch).await;
    strict.send("PUB a 1\r\nx\r\nPING\r\n").await;
    strict
        .expect("-ERR 'Maximum Message Rate Exceeded'\r\nPONG\r\n")
        .await;

    let mut free = client_of(&node, "free", "").await;
    let began = Instant::now();
    publish(&mut free, &batch.repeat(10)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let (_, metrics) = node.http().get("/metrics").await.expect("the metrics");
    assert!(
        metrics.contains("standin_broker_account_refused_total{account=\"strict\"} 1"),
        "{metrics}"
    );
    let count = "standin_broker_account_messages_total{account=\"free\",direction=\"in\"} 30000";
    assert!(metrics.contains(count), "{metrics}");
}

#[tokio::test]
async fn the_pages_list_the_accounts() {
    let folder = TempDir::new().expect("a folder");
    let conf = write(&folder, ACCOUNTS).await;
    let node = Node::start(ServerKind::Standin, &["-c", &conf]).await;
    let _anna = client_of(&node, "anna", "SUB a 1\r\nSUB b 2\r\n").await;
    let page = node.http().get_json("/accountz").await.expect("the page");
    assert_eq!(page["accounts"], serde_json::json!(["$G", "A", "B"]), "{page}");
    let page = node.http().get_json("/accountz?acc=A").await.expect("the page");
    assert_eq!(page["account_detail"]["client_connections"], 1, "{page}");
    assert_eq!(page["account_detail"]["subscriptions"], 2, "{page}");
    let page = node.http().get_json("/subsz?subs=1").await.expect("the page");
    let rows = page["subscriptions_list"].as_array().expect("rows");
    assert!(
        rows.iter()
            .all(|row| row["account"] == "A" && row["subject"] != " A.a"),
        "{page}"
    );
}
