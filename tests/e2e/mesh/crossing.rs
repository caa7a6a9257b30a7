//! The table of conversations over three nodes, tested with `standin-broker` and with `nats-server`. With `standin-broker` each answer is
//! correct without waiting, because every node has a client's interest once the client has its PONG. With `nats-server` the test waits
//! until the nodes agree.

use e2e::raw::{CONNECT_OLD, msg_frame, pub_frame};
use e2e::{Frame, Mesh, RawClient, ServerKind};

use super::conversations::{NOBODY, ROWS, Row, Step};

/// Connects a client to each node, each with a subscription to the subject that marks the end of a step.
async fn clients(mesh: &Mesh, row: &Row) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for (index, (node, options)) in mesh.nodes.iter().zip(row.connects).enumerate() {
        let mut client = RawClient::open_with(node.address(), &format!("CONNECT {options}")).await;
        client.subscribe(&format!("barrier.{index}"), "barrier").await;
        client.flush().await;
        clients.push(client);
    }
    clients
}

/// Runs a step, and returns one text for each client: everything that it received.
async fn received(clients: &mut [RawClient], step: &Step, verbose: bool) -> Vec<String> {
    let sender = &mut clients[step.sender];
    sender.send(step.sends).await;
    for index in (0..3).filter(|index| *index != step.sender) {
        sender.publish(&format!("barrier.{index}"), "").await;
    }
    let mut all = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        let frames = if index == step.sender {
            client.flush().await
        } else {
            until_barrier(client, index).await
        };
        all.push(text(&frames));
    }
    if verbose {
        let own = &mut all[step.sender];
        let without_barriers = own.strip_suffix("+OK\r\n+OK\r\n").map(str::to_owned);
        *own = without_barriers.unwrap_or_else(|| panic!("no ok for the barriers: {own:?}"));
    }
    all
}

async fn until_barrier(client: &mut RawClient, index: usize) -> Vec<Frame> {
    let barrier = msg_frame("barrier", &format!("barrier.{index}"), "");
    let mut before = Vec::new();
    loop {
        let frame = client.read_command().await;
        if frame.bytes() == barrier {
            return before;
        }
        before.push(frame);
    }
}

fn text(frames: &[Frame]) -> String {
    let texts = frames.iter().map(|frame| String::from_utf8_lossy(frame.bytes()));
    texts.collect()
}

/// Removes the subject that newer versions add to the status "no responders".
fn without_subject(received: &str) -> String {
    match received.split_once("NATS/1.0 503\r\nNats-Subject") {
        Some(("HMSG in.1 9 33 33\r\n" | "HMSG in.1 9 35 35\r\n", _)) => NOBODY.to_owned(),
        _ => received.to_owned(),
    }
}

async fn check_row(mesh: &mut Mesh, kind: ServerKind, row: &Row) {
    let mut clients = clients(mesh, row).await;
    for (number, step) in row.steps.iter().enumerate() {
        if kind == ServerKind::NatsServer || step.settled {
            mesh.wait_until_agreed().await;
        }
        let verbose = row.connects[step.sender].contains("\"verbose\":true");
        let mut received = received(&mut clients, step, verbose).await;
        if kind == ServerKind::NatsServer {
            received = received
                .iter()
                .map(|received| without_subject(received))
                .collect();
        }
        assert_eq!(
            received,
            step.receives,
            "{}, step {}: {:?}",
            row.name,
            number + 1,
            step.sends
        );
    }
    for client in clients {
        client.close().await;
    }
    mesh.wait_until_agreed().await;
}

async fn check_all_rows(kind: ServerKind) {
    let mut mesh = Mesh::start(kind, 3).await;
    for row in ROWS.iter().filter(|row| !row.prefers_local) {
        check_row(&mut mesh, kind, row).await;
    }
    if kind == ServerKind::Standin {
        let mesh = Mesh::builder(kind, 3).setting("cluster.queue_preference", "local");
        let mut mesh = mesh.start().await;
        for row in ROWS.iter().filter(|row| row.prefers_local) {
            check_row(&mut mesh, kind, row).await;
        }
    }
}

cases! {
    check_all_rows =>
    the_conversations_of_the_table_take_place_over_three_nodes_of_standin_broker(ServerKind::Standin);
    the_conversations_of_the_table_take_place_over_three_nodes_of_nats_server(ServerKind::NatsServer);
}

/// Sizes up to the largest message, with a subscriber on each node.
#[tokio::test]
async fn messages_of_any_size_reach_other_nodes_unchanged_and_in_order() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut subscribers = Vec::new();
    for node in &mesh.nodes {
        subscribers.push(node.subscriber("big.*").await);
    }
    let mut publisher = RawClient::open_with(mesh.nodes[0].address(), CONNECT_OLD).await;
    let sizes = [0, 1, 1 << 20, 7, 65_535, 65_536, 65_537, 300_000, 1 << 20, 2];
    let payload = |number: usize, size: usize| -> Vec<u8> {
        (0..size).map(|at| (at * 31 + number * 7) as u8).collect()
    };
    for (number, size) in sizes.into_iter().enumerate() {
        let frame = pub_frame(&format!("big.{number}"), payload(number, size));
        publisher.send(frame).await;
    }
    for subscriber in &mut subscribers {
        for (number, size) in sizes.into_iter().enumerate() {
            let expected = msg_frame("1", &format!("big.{number}"), payload(number, size));
            let delivered = subscriber.read_command().await;
            assert!(
                delivered.bytes() == expected,
                "message {number} of {size} bytes was delivered with {}",
                delivered.bytes().len()
            );
        }
    }
    publisher.flush().await;
    for subscriber in &mut subscribers {
        assert!(subscriber.flush().await.is_empty(), "received twice");
    }
    mesh.wait_until_agreed().await;
}
