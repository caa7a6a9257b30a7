//! The table of conversations for a single server holds on a cluster. First, the whole table runs on one of the nodes. Then each row
//! that can be split runs with its publishes sent by another client on another node.

use e2e::raw::msg_frame;
use e2e::{Conversation, Frame, Mesh, RawClient, ServerKind};
use tokio::net::TcpStream;

use crate::broker::conformance::check_rows_at;
use crate::broker::rows::{OPEN, Row};

/// One part of a conversation: the client that sends, and its bytes.
#[derive(Debug)]
enum Part {
    Subscriber(String),
    Publisher(String),
}

/// Splits the conversation of a row into the parts of a subscriber and a publisher.
fn parts(sends: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = sends;
    while let Some(line_end) = rest.find('\n') {
        let mut words = rest[..line_end].split_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let publishes = matches!(&*verb, "PUB" | "HPUB");
        let size: usize = match words.last().filter(|_| publishes) {
            Some(size) => size.parse::<usize>().expect("a size") + 2,
            None => 0,
        };
        let (frame, after) = rest.split_at(line_end + 1 + size);
        rest = after;
        match (parts.last_mut(), publishes) {
            (Some(Part::Publisher(frames)), true) | (Some(Part::Subscriber(frames)), false) => {
                frames.push_str(frame)
            }
            (_, true) => parts.push(Part::Publisher(frame.to_owned())),
            (_, false) => parts.push(Part::Subscriber(frame.to_owned())),
        }
    }
    parts
}

/// Returns whether another client can send the publishes of a row: the server answers none of them, and nothing depends on publisher
/// and subscriber being the same client.
fn can_be_split(row: &Row) -> bool {
    let same_client = ["\"verbose\":true", "\"echo\":false", "\"no_responders\"", "{}"];
    let answered = row.closes || row.receives.contains("-ERR") || row.receives.contains("+OK");
    let connect = row.sends.get(..7);
    let connects = connect.is_some_and(|verb| verb.eq_ignore_ascii_case("CONNECT"));
    connects
        && !answered
        && !same_client.iter().any(|option| row.sends.contains(option))
        && parts(row.sends)
            .iter()
            .any(|part| matches!(part, Part::Publisher(_)))
}

/// Reads frames up to the one that `is_last`, and returns those before it as one text.
async fn received_until(client: &mut Conversation, mut is_last: impl FnMut(&Frame) -> bool) -> String {
    let mut received = String::new();
    loop {
        let frame = client.read_frame().await;
        if is_last(&frame) {
            return received;
        }
        received.push_str(&String::from_utf8_lossy(frame.bytes()));
    }
}

async fn check_row_split(mesh: &mut Mesh, kind: ServerKind, row: &Row) {
    let stream = TcpStream::connect(mesh.nodes[0].address())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", row.name));
    let mut subscriber = Conversation::new(row.name, stream);
    assert_eq!(subscriber.read_frame().await.verb(), "INFO", "{}", row.name);
    let connect = r#"CONNECT {"verbose":false,"headers":true}"#;
    let mut publisher = RawClient::open_with(mesh.nodes[1].address(), connect).await;
    let (mut received, mut is_first) = (String::new(), true);
    for part in parts(row.sends) {
        match part {
            Part::Subscriber(sends) => {
                let is_ping = |line: &&str| line.to_ascii_uppercase().starts_with("PING");
                let pings = sends.lines().filter(is_ping).count();
                let barrier = if is_first { "SUB barrier barrier\r\n" } else { "" };
                is_first = false;
                subscriber.send(format!("{sends}{barrier}PING\r\n")).await;
                let mut pongs = 0;
                let is_answered = |frame: &Frame| {
                    pongs += usize::from(frame.verb() == "PONG");
                    pongs > pings
                };
                received += &received_until(&mut subscriber, is_answered).await;
                if kind == ServerKind::NatsServer {
                    mesh.wait_until_agreed().await;
                }
            }
            Part::Publisher(sends) => {
                publisher.send(sends).await;
                publisher.publish("barrier", "").await;
                let barrier = msg_frame("barrier", "barrier", "");
                received += &received_until(&mut subscriber, |frame| frame.bytes() == barrier).await;
            }
        }
    }
    assert_eq!(
        received, row.receives,
        "{}, with its publisher on another node",
        row.name
    );
    assert!(
        publisher.flush().await.is_empty(),
        "{}: the publisher received something",
        row.name
    );
    subscriber.close().await;
    publisher.close().await;
    mesh.wait_until_agreed().await;
}

async fn check_all_rows(kind: ServerKind) {
    let mut mesh = Mesh::start(kind, 3).await;
    let node = &mesh.nodes[2];
    check_rows_at(kind, node.address(), node.http(), OPEN).await;
    let rows: Vec<&Row> = OPEN.iter().filter(|row| can_be_split(row)).collect();
    assert!(
        rows.len() >= 20,
        "only {} of {} rows can be split between two clients",
        rows.len(),
        OPEN.len()
    );
    for row in rows {
        check_row_split(&mut mesh, kind, row).await;
    }
}

cases! {
    check_all_rows =>
    the_table_for_one_server_holds_on_a_cluster_of_standin_broker(ServerKind::Standin);
    the_table_for_one_server_holds_on_a_cluster_of_nats_server(ServerKind::NatsServer);
}
