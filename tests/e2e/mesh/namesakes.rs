//! Nodes with the same name: at most one of them serves, and none ends because of a node that is dead.

use std::time::Duration;

use e2e::port::free_port;
use e2e::raw::CONNECT_NEW;
use e2e::zookeeper::NODES_PATH;
use e2e::{Mesh, Node, Process, RawClient, Record, ServerKind, TIMEOUT, ZooKeeper, eventually, found};

const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
const SYNC_TIMEOUT: Duration = Duration::from_millis(1500);
const LONG_TIMEOUT: Duration = Duration::from_secs(40);

/// Starts a mesh, with ZooKeeper or with routes only. When a node no longer answers, the other nodes notice it within a second,
/// and ZooKeeper within four.
async fn start(size: usize, zookeeper: Option<&ZooKeeper>) -> Mesh {
    let builder = Mesh::builder(ServerKind::Standin, size)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting("cluster.ping_interval_ms", 100)
        .setting("cluster.ping_timeout_ms", 200)
        .setting("process.lame_duck_grace_secs", 1)
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis());
    let builder = match zookeeper {
        Some(zookeeper) => builder.zookeeper(zookeeper.hosts()),
        None => builder,
    };
    builder.start().await
}

/// Adds a node with this name without starting it, and returns its index.
fn add(mesh: &mut Mesh, name: &str) -> usize {
    let index = mesh.add();
    mesh.nodes[index].add_flags(&["-n", name]);
    index
}

/// Waits until this node ends because another node with its name is alive.
async fn is_refused<'a>(mesh: &'a mut Mesh, index: usize, name: &str) -> &'a mut Process {
    let process = mesh.nodes[index].process();
    assert_eq!(process.wait_for_end(LONG_TIMEOUT).await.code(), Some(69));
    let reason = format!("another node with the id {name} is alive");
    assert!(process.has_line(&reason), "{}", process.tail());
    process
}

async fn stop(mesh: &mut Mesh, indices: &[usize]) {
    for index in indices {
        assert!(mesh.nodes[*index].stop(TIMEOUT).await.success());
    }
}

#[tokio::test]
async fn a_second_node_with_the_name_of_a_live_one_is_refused_and_logs_why() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start(2, by_zookeeper.then_some(&zookeeper)).await;
        let mut subscriber = mesh.nodes[0].subscriber("a").await;
        let second = add(&mut mesh, "n1");
        mesh.nodes[second].launch();
        let process = is_refused(&mut mesh, second, "n1").await;
        process.assert_no_line("Server is ready");
        mesh.wait_until_whole().await;
        mesh.nodes[1].client().await.publish("a", "hi").await;
        subscriber.expect_message("1", "a", "hi").await;
        mesh.wait_until_agreed().await;
        stop(&mut mesh, &[0, 1]).await;
    }
}

/// There is no third node that knows the first one. The second node finds the first one's record in ZooKeeper.
#[tokio::test]
async fn one_of_two_nodes_with_one_name_in_zookeeper_serves_even_when_both_start_at_once() {
    let zookeeper = ZooKeeper::start().await;
    for at_once in [false, true] {
        let mut mesh = Mesh::builder(ServerKind::Standin, 2)
            .zookeeper(zookeeper.hosts())
            .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
            .describe();
        mesh.nodes[1].add_flags(&["-n", "n1"]);
        mesh.nodes[0].launch();
        if !at_once {
            mesh.nodes[0].wait_until_ready().await;
        }
        mesh.nodes[1].launch();
        let ended = found("one of them ends", TIMEOUT, async || {
            [0, 1].into_iter().find(|index| !mesh.nodes[*index].is_running())
        })
        .await;
        assert!(at_once || ended == 1, "the node that started first has ended");
        let process = is_refused(&mut mesh, ended, "n1").await;
        process.assert_no_line("Server is ready");
        mesh.nodes[1 - ended].wait_until_ready().await;
        stop(&mut mesh, &[1 - ended]).await;
    }
}

/// The other nodes keep their routes to the new node. The clients of the old node must move to the new one.
#[tokio::test]
async fn a_frozen_node_that_was_replaced_meanwhile_sends_its_clients_away_and_ends_when_it_thaws() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start(2, by_zookeeper.then_some(&zookeeper)).await;
        let mut client = RawClient::open_with(mesh.nodes[1].address(), CONNECT_NEW).await;
        let mark = mesh.nodes[0].process().mark();
        mesh.nodes[1].freeze().await;
        mesh.nodes[0].logs_after(mark, "the route with n2 is lost").await;
        let second = add(&mut mesh, "n2");
        mesh.nodes[second].restart().await;
        mesh.wait_until_linked(&[0, second]).await;
        mesh.nodes[1].thaw();
        is_refused(&mut mesh, 1, "n2").await;
        let (received, _) = client.read_to_end().await;
        assert!(
            String::from_utf8_lossy(&received).contains("\"ldm\":true"),
            "the client of the frozen node gets no INFO with ldm before the end"
        );
        mesh.wait_until_linked(&[0, second]).await;
        stop(&mut mesh, &[0, second]).await;
    }
}

/// Nobody else can say which of them is linked with more nodes, so the one that started first stays.
#[tokio::test]
async fn without_any_other_node_the_first_of_two_nodes_with_one_name_stays_when_it_thaws() {
    let mut mesh = start(1, None).await;
    mesh.nodes[0].freeze().await;
    let second = add(&mut mesh, "n1");
    mesh.nodes[second].restart().await;
    mesh.nodes[0].thaw();
    is_refused(&mut mesh, second, "n1").await;
    assert!(mesh.nodes[0].is_running());
    stop(&mut mesh, &[0]).await;
}

/// They know of each other only because the third node, which has a route to one of them, refuses the other.
#[tokio::test]
async fn one_of_two_nodes_with_one_name_and_no_routes_ends_when_a_third_node_dials_both() {
    let ports = [free_port(), free_port(), free_port()];
    let urls = ports.map(|port| format!("nats://127.0.0.1:{port}"));
    let node = async |name, own: usize, more: &[&str]| {
        let flags = [&["-n", name, "--cluster", &urls[own]], more].concat();
        Node::start(ServerKind::Standin, &flags).await
    };
    let mut alike = [node("n1", 0, &[]).await, node("n1", 1, &[]).await];
    let routes = urls[..2].join(",");
    let _third = node("n2", 2, &["--routes", &routes]).await;
    let ended = found("one of them ends", LONG_TIMEOUT, async || {
        [0, 1].into_iter().find(|index| !alike[*index].is_running())
    })
    .await;
    assert!(
        alike[ended]
            .process()
            .has_line("another node with the id n1 is alive")
    );
    assert!(alike[1 - ended].is_running());
}

/// A third node was frozen too. It thaws first, and has a route to the old node when it learns of the new one. With ZooKeeper the
/// registered node stays, without ZooKeeper the node that started first.
#[tokio::test]
async fn one_of_two_nodes_with_one_name_and_routes_to_different_nodes_stays() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start(3, by_zookeeper.then_some(&zookeeper)).await;
        for index in [1, 2] {
            mesh.nodes[index].freeze().await;
        }
        mesh.wait_until_linked(&[0]).await;
        if by_zookeeper {
            registrar.until_registered(&["n1"]).await;
        }
        let second = add(&mut mesh, "n2");
        mesh.nodes[second].restart().await;
        mesh.wait_until_linked(&[0, second]).await;
        for index in [2, 1] {
            mesh.nodes[index].thaw();
        }
        let (ends, stays) = if by_zookeeper { (1, second) } else { (second, 1) };
        is_refused(&mut mesh, ends, "n2").await;
        mesh.wait_until_agreed_among(&[0, stays, 2]).await;
        stop(&mut mesh, &[0, stays, 2]).await;
    }
}

#[tokio::test]
async fn a_node_with_the_name_of_a_lame_duck_waits_until_the_lame_duck_has_ended() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting("cluster.ping_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting(
            "process.lame_duck_grace_secs",
            3 * SYNC_TIMEOUT.as_secs_f64().ceil() as u64,
        )
        .start()
        .await;
    let _client = mesh.nodes[1].client().await;
    let mark = mesh.nodes[0].process().mark();
    mesh.nodes[1].terminate();
    mesh.nodes[1].logs("Entering lame duck mode").await;
    let second = add(&mut mesh, "n2");
    mesh.nodes[second].launch();
    mesh.nodes[0]
        .logs_after(mark, "another node with this id is alive")
        .await;
    assert!(mesh.nodes[1].process().wait_for_end(TIMEOUT).await.success());
    mesh.nodes[second].wait_until_ready().await;
    mesh.wait_until_linked(&[0, second, 2]).await;
}

/// At first each of them has routes to some of the other nodes and is refused by the rest.
#[tokio::test]
async fn one_of_three_nodes_with_one_name_that_join_at_once_stays() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start(5, by_zookeeper.then_some(&zookeeper)).await;
        for _ in 0..3 {
            let twins = [0; 3].map(|_| add(&mut mesh, "twin"));
            for twin in twins {
                mesh.nodes[twin].launch();
            }
            eventually("all but one have ended", LONG_TIMEOUT, async || {
                let running = twins.iter().filter(|twin| mesh.nodes[**twin].is_running());
                running.count() == 1
            })
            .await;
            let stays = twins.into_iter().find(|twin| mesh.nodes[*twin].is_running());
            let stays = stays.expect("one of them");
            mesh.nodes[stays].wait_until_ready().await;
            mesh.wait_until_linked(&[0, 1, 2, 3, 4, stays]).await;
            for twin in twins.into_iter().filter(|twin| *twin != stays) {
                let process = mesh.nodes[twin].process();
                assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(69));
                process.assert_no_line("Server is ready");
            }
            stop(&mut mesh, &[stays]).await;
        }
        stop(&mut mesh, &[0, 1, 2, 3, 4]).await;
    }
}

/// A record does not prove that its node is alive. Only a connection does.
#[tokio::test]
async fn a_node_replaces_the_record_of_a_dead_one_and_waits_for_the_removal_of_a_persistent_znode() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(zookeeper.hosts())
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis())
        .describe();
    mesh.nodes[0].restart().await;
    let place = format!("{NODES_PATH}/n2");
    // The record of a dead node with this name, whose ZooKeeper session has not expired.
    let nobody = "127.0.0.1:1".parse().expect("an address");
    registrar
        .put_ephemeral(&place, &Record::Own.text("n2", nobody))
        .await;
    mesh.nodes[1].restart().await;
    mesh.wait_until_whole().await;
    mesh.nodes[1].logs("n2 registered").await;
    assert!(registrar.get(&place).await.contains("\"run\""));
    stop(&mut mesh, &[1]).await;
    // A persistent znode, which no node creates.
    registrar.put(&place, "{}").await;
    mesh.nodes[1].restart().await;
    let process = mesh.nodes[1].process();
    assert!(
        process.has_line("not registered yet") && process.has_line("persistent"),
        "{}",
        process.tail()
    );
    mesh.wait_until_whole().await;
    registrar.delete(&place).await;
    eventually("the node is registered", TIMEOUT, async || {
        registrar.get(&place).await.contains("\"run\"")
    })
    .await;
    stop(&mut mesh, &[1]).await;
}

/// The two old nodes have a route to each other, so neither of them is alone.
#[tokio::test]
async fn frozen_nodes_that_were_all_replaced_meanwhile_end_when_they_thaw_together() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start(5, by_zookeeper.then_some(&zookeeper)).await;
        for old in [3, 4] {
            mesh.nodes[old].freeze().await;
        }
        mesh.wait_until_linked(&[0, 1, 2]).await;
        let new = ["n4", "n5"].map(|name| add(&mut mesh, name));
        for index in new {
            mesh.nodes[index].restart().await;
        }
        for old in [3, 4] {
            mesh.nodes[old].thaw();
        }
        for (old, name) in [(3, "n4"), (4, "n5")] {
            is_refused(&mut mesh, old, name).await;
        }
        let stay = [0, 1, 2, new[0], new[1]];
        mesh.wait_until_agreed_among(&stay).await;
        stop(&mut mesh, &stay).await;
    }
}
