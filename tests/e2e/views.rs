//! `standin-proxy nodes` and `sessions`, and `standin-broker cluster`: what a terminal shows of running programs.

use crate::site::TIMEOUT;
use e2e::{Mesh, Node, Process, Program, ServerKind, Sidecar, ZooKeeper, peers};
use nix::sys::signal::Signal;

/// Waits for a line after `mark` with all these words.
async fn line_with(process: &mut Process, mark: usize, words: &[&str]) {
    let name = process.name().to_owned();
    e2e::eventually(
        format!("{name} shows a line with {words:?}"),
        TIMEOUT,
        async || {
            let lines = process.lines();
            lines
                .iter()
                .skip(mark)
                .any(|line| words.iter().all(|word| line.text.contains(word)))
        },
    )
    .await;
}

#[tokio::test]
async fn nodes_and_sessions_are_shown_while_a_node_dies_and_the_sidecar_is_restarted() {
    let (one, two) = tokio::join!(
        Node::start(ServerKind::NatsServer, &[]),
        Node::start(ServerKind::NatsServer, &[])
    );
    let mut nodes = [one, two];
    let mut sidecar = Sidecar::builder().nodes(&nodes).start().await;
    let mut client = e2e::RawClient::connect(sidecar.address()).await;
    client
        .send("CONNECT {\"verbose\":false,\"name\":\"old\\u001bcomponent\"}\r\nPING\r\n")
        .await;
    assert_eq!(client.read_frame().await.verb(), "PONG");
    let used = sidecar.wait_for_node_of_session().await;
    let http = sidecar.http().address.to_string();
    let view = |words: &[&str]| {
        Program::new(peers::sidecar_binary())
            .args(words)
            .args(["--http", &http])
    };

    let mut sessions = view(&["sessions"]).start("sessions");
    assert_eq!(sessions.wait_for_end(TIMEOUT).await.code(), Some(0));
    line_with(&mut sessions, 0, &["old?component", &used.to_string()]).await;
    let mut page = view(&["sessions", "--json"]).start("sessions");
    assert_eq!(page.wait_for_end(TIMEOUT).await.code(), Some(0));
    line_with(&mut page, 0, &["\"client_name\""]).await;

    let mut watch = view(&["nodes", "--watch"]).start("nodes");
    line_with(&mut watch, 0, &[&used.to_string(), "up"]).await;
    let dying = nodes
        .iter_mut()
        .find(|node| node.address() == used)
        .expect("the node");
    dying.kill();
    line_with(&mut watch, 0, &[&used.to_string(), " ago: "]).await;
    sidecar.kill();
    line_with(&mut watch, 0, &["retrying"]).await;
    let mark = watch.mark();
    sidecar.restart().await;
    line_with(&mut watch, mark, &["nodes 2"]).await;
    watch.assert_no_line("\x1b");
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.wait_for_end(TIMEOUT).await.code(), Some(0));

    sidecar.kill();
    let mut none = view(&["nodes"]).start("nodes");
    assert_eq!(none.wait_for_end(TIMEOUT).await.code(), Some(69));
    line_with(&mut none, 0, &["cannot connect"]).await;
}

#[tokio::test]
async fn the_cluster_is_shown_while_a_node_dies() {
    let zookeeper = ZooKeeper::start().await;
    let mesh = Mesh::builder(ServerKind::Standin, 2).zookeeper(zookeeper.hosts());
    let mut mesh = mesh.start().await;
    let mut registrar = zookeeper.registrar().await;
    registrar.until_registered(&["n1", "n2"]).await;
    let mut watch = mesh.nodes[0].command(&["cluster", "--watch"]).start("cluster");
    line_with(&mut watch, 0, &["cluster mesh, 2 nodes"]).await;
    line_with(&mut watch, 0, &["n2", "up", "1 of 1"]).await;
    mesh.nodes[1].kill();
    line_with(&mut watch, 0, &["n2", "cannot connect"]).await;
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.wait_for_end(TIMEOUT).await.code(), Some(0));
}
