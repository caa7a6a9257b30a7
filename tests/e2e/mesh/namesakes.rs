//! Nodes of one name: at most one of them serves, and none ends for the sake of one that is dead.

use std::time::Duration;

use e2e::raw::CONNECT_NEW;
use e2e::{Mesh, RawClient, Record, ServerKind, TIMEOUT, ZooKeeper, eventually, found};

const PATH: &str = "/standin/nodes";
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
const SYNC_TIMEOUT: Duration = Duration::from_millis(1500);
const LONG_TIMEOUT: Duration = Duration::from_secs(40);

/// A mesh that knows within a second that a node does not answer, and ZooKeeper within four.
async fn start_that_soon_misses_a_node(size: usize, zookeeper: Option<&ZooKeeper>) -> Mesh {
    let builder = Mesh::builder(ServerKind::Standin, size)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting("cluster.ping_interval_ms", 100)
        .setting("cluster.ping_timeout_ms", 200)
        .setting("process.lame_duck_grace_secs", 1)
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis());
    let builder = match zookeeper {
        Some(zookeeper) => builder.zookeeper(zookeeper.hosts(), PATH),
        None => builder,
    };
    builder.start().await
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_refused_and_says_so() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start_that_soon_misses_a_node(2, by_zookeeper.then_some(&zookeeper)).await;
        let mut subscriber = mesh.nodes[0].subscriber("a").await;
        let second = mesh.add(None);
        mesh.nodes[second].add_flags(&["-n", "n1"]);
        mesh.nodes[second].launch();
        let end = mesh.nodes[second].process().wait_for_end(TIMEOUT).await;
        assert_eq!(end.code(), Some(69), "by ZooKeeper: {by_zookeeper}");
        let process = mesh.nodes[second].process();
        assert!(
            process.has_line("another node with the id n1 is alive"),
            "{}",
            process.tail()
        );
        assert!(!process.has_line("Server is ready"));
        mesh.wait_until_whole().await;
        mesh.nodes[1].client().await.publish("a", "hi").await;
        subscriber.expect_message("1", "a", "hi").await;
        mesh.wait_until_agreed().await;
        for node in &mut mesh.nodes[..2] {
            assert!(node.stop(TIMEOUT).await.success());
        }
    }
}

/// Without a third node that knows the first: the second finds it where it is registered.
#[tokio::test]
async fn of_two_nodes_of_the_same_name_in_zookeeper_one_serves_also_when_they_start_at_once() {
    let zookeeper = ZooKeeper::start().await;
    for at_once in [false, true] {
        let mut mesh = Mesh::builder(ServerKind::Standin, 2)
            .zookeeper(zookeeper.hosts(), PATH)
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
        assert!(at_once || ended == 1, "the one that was there first stays");
        assert_eq!(
            mesh.nodes[ended].process().wait_for_end(TIMEOUT).await.code(),
            Some(69)
        );
        let process = mesh.nodes[ended].process();
        assert!(
            process.has_line("another node with the id n1 is alive") && !process.has_line("Server is ready"),
            "{}",
            process.tail()
        );
        let other = &mut mesh.nodes[1 - ended];
        other.wait_until_ready().await;
        assert!(other.stop(TIMEOUT).await.success());
    }
}

/// It was replaced while it was frozen. Others stay with the one that has its place; its clients must not stay with it.
#[tokio::test]
async fn a_node_that_thaws_after_another_has_taken_its_place_gives_its_clients_up_and_ends() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start_that_soon_misses_a_node(2, by_zookeeper.then_some(&zookeeper)).await;
        let mut client = RawClient::open_with(mesh.nodes[1].address(), CONNECT_NEW).await;
        let mark = mesh.nodes[0].process().mark();
        mesh.nodes[1].freeze().await;
        mesh.nodes[0]
            .process()
            .wait_for_line_after(mark, "the link with n2 is lost", TIMEOUT)
            .await;
        let second = mesh.add(None);
        mesh.nodes[second].add_flags(&["-n", "n2"]);
        mesh.nodes[second].restart().await;
        mesh.wait_until_linked(&[0, second]).await;
        mesh.nodes[1].thaw();
        assert_eq!(
            mesh.nodes[1].process().wait_for_end(TIMEOUT).await.code(),
            Some(69)
        );
        let process = mesh.nodes[1].process();
        assert!(
            process.has_line("another node with the id n2 is alive"),
            "by ZooKeeper: {by_zookeeper}: {}",
            process.tail()
        );
        let (heard, _) = client.read_to_end().await;
        assert!(
            String::from_utf8_lossy(&heard).contains("\"ldm\":true"),
            "its client is told first"
        );
        mesh.wait_until_linked(&[0, second]).await;
        for index in [0, second] {
            assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
        }
    }
}

/// As above, but a third node was frozen too, and links with the first again. With ZooKeeper the registered node stays,
/// without it the one that began first.
#[tokio::test]
async fn of_two_nodes_of_one_name_that_are_linked_with_different_nodes_exactly_one_stays() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start_that_soon_misses_a_node(3, by_zookeeper.then_some(&zookeeper)).await;
        for index in [1, 2] {
            mesh.nodes[index].freeze().await;
        }
        mesh.wait_until_linked(&[0]).await;
        if by_zookeeper {
            eventually("both are gone from the registry", TIMEOUT, async || {
                registrar.children(PATH).await == ["n1"]
            })
            .await;
        }
        let second = mesh.add(None);
        mesh.nodes[second].add_flags(&["-n", "n2"]);
        mesh.nodes[second].restart().await;
        mesh.wait_until_linked(&[0, second]).await;
        // The third node first, so that it is linked with the first when it hears of the other one.
        for index in [2, 1] {
            mesh.nodes[index].thaw();
        }
        let (ends, stays) = if by_zookeeper { (1, second) } else { (second, 1) };
        let process = mesh.nodes[ends].process();
        assert_eq!(process.wait_for_end(LONG_TIMEOUT).await.code(), Some(69));
        assert!(
            process.has_line("another node with the id n2 is alive"),
            "by ZooKeeper: {by_zookeeper}: {}",
            process.tail()
        );
        mesh.wait_until_agreed_among(&[0, stays, 2]).await;
        for index in [0, stays, 2] {
            assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
        }
    }
}

/// A node is replaced by one of the same name that starts while the old one still lets its clients go.
#[tokio::test]
async fn a_successor_of_the_same_name_waits_until_its_predecessor_has_left() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis() * 3)
        .setting("process.lame_duck_grace_secs", 2)
        .start()
        .await;
    let _client = mesh.nodes[1].client().await;
    let mark = mesh.nodes[0].process().mark();
    mesh.nodes[1].terminate();
    mesh.nodes[1]
        .process()
        .wait_for_line("Entering lame duck mode", TIMEOUT)
        .await;
    let second = mesh.add(None);
    mesh.nodes[second].add_flags(&["-n", "n2"]);
    mesh.nodes[second].launch();
    mesh.nodes[0]
        .process()
        .wait_for_line_after(mark, "another node with this id is alive", TIMEOUT)
        .await;
    assert!(mesh.nodes[1].process().wait_for_end(TIMEOUT).await.success());
    mesh.nodes[second].wait_until_ready().await;
    mesh.wait_until_linked(&[0, second, 2]).await;
}

/// Each is linked with some of the others at first, and refused by the rest.
#[tokio::test]
async fn of_nodes_of_one_name_that_join_at_once_one_stays() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start_that_soon_misses_a_node(5, by_zookeeper.then_some(&zookeeper)).await;
        for _ in 0..3 {
            let twins: Vec<usize> = (0..3).map(|_| mesh.add(None)).collect();
            for twin in &twins {
                mesh.nodes[*twin].add_flags(&["-n", "twin"]);
            }
            for twin in &twins {
                mesh.nodes[*twin].launch();
            }
            eventually("all but one have ended", LONG_TIMEOUT, async || {
                let running = twins.iter().filter(|twin| mesh.nodes[**twin].is_running());
                running.count() == 1
            })
            .await;
            let stays = twins.iter().copied().find(|twin| mesh.nodes[*twin].is_running());
            let stays = stays.expect("one of them");
            mesh.nodes[stays].wait_until_ready().await;
            mesh.wait_until_linked(&[0, 1, 2, 3, 4, stays]).await;
            for twin in twins.into_iter().filter(|twin| *twin != stays) {
                let process = mesh.nodes[twin].process();
                assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(69));
                assert!(!process.has_line("Server is ready"), "{}", process.tail());
            }
            assert!(mesh.nodes[stays].stop(TIMEOUT).await.success());
        }
        for index in 0..5 {
            assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
        }
    }
}

/// The registry informs; only a connection proves.
#[tokio::test]
async fn a_record_of_a_dead_node_is_replaced_and_a_persistent_znode_is_waited_for() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(zookeeper.hosts(), PATH)
        .setting("cluster.sync_timeout_ms", SYNC_TIMEOUT.as_millis())
        .setting("nodes.zookeeper_session_timeout_ms", SESSION_TIMEOUT.as_millis())
        .describe();
    mesh.nodes[0].restart().await;
    let place = format!("{PATH}/n2");
    // An earlier life elsewhere, whose session is given up late.
    let nobody = "127.0.0.1:1".parse().expect("an address");
    registrar
        .put_ephemeral(&place, &Record::Own.text("n2", nobody))
        .await;
    mesh.nodes[1].restart().await;
    mesh.wait_until_whole().await;
    // Its record is replaced although its session goes on.
    mesh.nodes[1]
        .process()
        .wait_for_line("n2 registered", TIMEOUT)
        .await;
    assert!(registrar.get(&place).await.contains("\"run\""));
    assert!(mesh.nodes[1].stop(TIMEOUT).await.success());
    // Something that no node has made.
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
    eventually("it is registered", TIMEOUT, async || {
        registrar.get(&place).await.contains("\"run\"")
    })
    .await;
    assert!(mesh.nodes[1].stop(TIMEOUT).await.success());
}

/// They are linked with each other, so none of them is alone.
#[tokio::test]
async fn nodes_that_thaw_together_after_all_of_them_were_replaced_end() {
    let zookeeper = ZooKeeper::start().await;
    for by_zookeeper in [true, false] {
        let mut mesh = start_that_soon_misses_a_node(5, by_zookeeper.then_some(&zookeeper)).await;
        for old in [3, 4] {
            mesh.nodes[old].freeze().await;
        }
        mesh.wait_until_linked(&[0, 1, 2]).await;
        let new: Vec<usize> = ["n4", "n5"]
            .map(|name| {
                let index = mesh.add(None);
                mesh.nodes[index].add_flags(&["-n", name]);
                index
            })
            .into();
        for index in &new {
            mesh.nodes[*index].restart().await;
        }
        for old in [3, 4] {
            mesh.nodes[old].thaw();
        }
        for old in [3, 4] {
            let process = mesh.nodes[old].process();
            assert_eq!(process.wait_for_end(LONG_TIMEOUT).await.code(), Some(69));
        }
        let stay = [0, 1, 2, new[0], new[1]];
        mesh.wait_until_agreed_among(&stay).await;
        for index in stay {
            assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
        }
    }
}
