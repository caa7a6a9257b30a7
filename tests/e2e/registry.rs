//! ZooKeeper fails, is emptied, or gets a node late: sessions stay where they are, and still move to a live node when theirs dies.

use crate::scenario::all_that_components_do;
use crate::site::{Site, TIMEOUT, component_of, is_served};
use e2e::{Library, RawClient, Record, eventually};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

#[tokio::test]
async fn sessions_move_to_cached_nodes_when_zookeeper_and_then_the_node_is_killed() {
    let mut site = Site::start(Record::Nerve).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    site.zookeeper.kill();
    is_served(&mut component, "without-zookeeper").await;
    for round in ["first", "second"] {
        let victim = site.node_of_session().await.expect("the session has a node");
        site.cluster.nodes[victim].kill();
        site.session_moved_from(victim).await;
        is_served(&mut component, round).await;
    }
}

#[tokio::test]
async fn sessions_move_to_cached_nodes_when_zookeeper_is_frozen_and_the_node_is_killed() {
    let mut site = Site::start(Record::Plain).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    site.zookeeper.process().freeze().await;
    let victim = site.node_of_session().await.expect("the session has a node");
    site.cluster.nodes[victim].kill();
    site.session_moved_from(victim).await;
    is_served(&mut component, "moved").await;
}

#[tokio::test]
async fn a_sidecar_restarted_while_zookeeper_is_down_uses_its_cache_file() {
    let mut site = Site::start(Record::Curator).await;
    let nodes: Vec<String> = site
        .cluster
        .nodes
        .iter()
        .map(|node| node.address().to_string())
        .collect();
    eventually("the file names all nodes", TIMEOUT, async || {
        let kept = std::fs::read_to_string(site.sidecar.cache_file()).unwrap_or_default();
        nodes.iter().all(|node| kept.contains(node))
    })
    .await;
    site.zookeeper.kill();
    site.sidecar.restart().await;
    let url = site.sidecar.url();
    all_that_components_do(Library::Node08, &url, &url).await;

    site.zookeeper.start_again().await;
    eventually("the nodes come from ZooKeeper again", TIMEOUT, async || {
        let nodes = site.sidecar.node_rows().await;
        nodes.len() == 3 && nodes.iter().all(|node| node["source"] == "zookeeper")
    })
    .await;
}

#[tokio::test]
async fn when_zookeeper_is_emptied_sessions_stay_and_the_nodes_are_remembered() {
    let mut site = Site::start(Record::Plain).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    let before = site.node_of_session().await.expect("the session has a node");
    site.registrar.wipe().await;
    eventually("no node is listed as from ZooKeeper", TIMEOUT, async || {
        site.sidecar
            .node_rows()
            .await
            .iter()
            .all(|node| node["source"] != "zookeeper")
    })
    .await;
    is_served(&mut component, "emptied").await;
    assert_eq!(
        site.node_of_session().await,
        Some(before),
        "the session has moved"
    );
    assert_eq!(site.sidecar.metric("standin_failovers_total").await, 0.0);

    site.cluster.nodes[before].kill();
    site.session_moved_from(before).await;
    is_served(&mut component, "moved").await;
    RawClient::open(site.sidecar.address()).await;
}

/// Unregisters this node, and waits until the sidecar has only `left` registered nodes.
async fn withdraw(site: &mut Site, node: usize, left: usize) {
    site.registrar.withdraw(site.cluster.nodes[node].name()).await;
    eventually("the node has left the list", TIMEOUT, async || {
        let registered = |row: &&serde_json::Value| row["source"] == "zookeeper" && row["withdrawn"] == false;
        site.sidecar.node_rows().await.iter().filter(registered).count() == left
    })
    .await;
}

/// All nodes unregister when their ZooKeeper sessions expire one after another, or when somebody deletes the path.
#[tokio::test]
async fn when_all_nodes_unregister_one_by_one_all_of_them_are_remembered() {
    let mut site = Site::start(Record::Plain).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    let last = site.node_of_session().await.expect("the session has a node");
    let others = [(last + 1) % 3, (last + 2) % 3];
    withdraw(&mut site, others[0], 2).await;
    let mark = site.sidecar.process().mark();
    site.sidecar.process().signal(Signal::SIGHUP);
    let taken_over = "registry: new settings in force";
    let process = site.sidecar.process();
    process.wait_for_line_after(mark, taken_over, TIMEOUT).await;
    withdraw(&mut site, others[1], 1).await;
    withdraw(&mut site, last, 0).await;
    is_served(&mut component, "emptied").await;

    site.cluster.nodes[last].kill();
    site.session_moved_from(last).await;
    is_served(&mut component, "moved").await;
    site.zookeeper.kill();
    site.sidecar.restart().await;
    is_served(
        &mut component_of(Library::NatsPython, &site.sidecar.url()).await,
        "restarted",
    )
    .await;
}

#[tokio::test]
async fn a_sidecar_restarted_while_nodes_unregister_remembers_those_that_left_before() {
    let mut site = Site::start(Record::Plain).await;
    withdraw(&mut site, 0, 2).await;
    let file = site.sidecar.cache_file();
    eventually("the file has the node that left", TIMEOUT, async || {
        std::fs::read_to_string(&file).is_ok_and(|kept| kept.contains("left_at"))
    })
    .await;
    site.sidecar.kill();
    site.registrar.withdraw(site.cluster.nodes[1].name()).await;
    site.sidecar.restart().await;
    eventually("only the last node is known", TIMEOUT, async || {
        let rows = site.sidecar.node_rows().await;
        rows.len() == 1 && rows[0]["source"] == "zookeeper"
    })
    .await;
    withdraw(&mut site, 2, 0).await;
    site.cluster.nodes[2].kill();
    is_served(
        &mut component_of(Library::NatsPython, &site.sidecar.url()).await,
        "served",
    )
    .await;
}

#[tokio::test]
async fn when_zookeeper_loses_all_its_data_sessions_stay() {
    let mut site = Site::start(Record::Own).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    site.zookeeper.lose_everything().await;
    is_served(&mut component, "lost").await;
    assert_eq!(site.sidecar.metric("standin_failovers_total").await, 0.0);

    let mut registrar = site.zookeeper.registrar().await;
    registrar
        .announce(
            Record::Own,
            site.cluster.nodes[1].name(),
            site.cluster.nodes[1].address(),
        )
        .await;
    eventually(
        "the sidecar watches the new ZooKeeper",
        Duration::from_secs(30),
        async || {
            site.sidecar
                .node_rows()
                .await
                .iter()
                .any(|node| node["source"] == "zookeeper")
        },
    )
    .await;
    is_served(&mut component, "found").await;
}

#[tokio::test]
async fn a_live_node_that_is_unregistered_keeps_its_sessions() {
    let mut site = Site::start(Record::Plain).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    let node = site.node_of_session().await.expect("the session has a node");
    withdraw(&mut site, node, 2).await;
    is_served(&mut component, "unregistered").await;
    assert_eq!(
        site.node_of_session().await,
        Some(node),
        "the session has moved, though its connection works"
    );
}

#[tokio::test]
async fn a_node_added_later_is_known_within_a_second_and_used_when_the_others_die() {
    let mut site = Site::start_with(Record::Plain, 2, |sidecar| sidecar).await;
    let mut component = component_of(Library::NatsPython, &site.sidecar.url()).await;
    let new_node = &site.cluster.nodes[2];
    site.registrar
        .announce(Record::Plain, new_node.name(), new_node.address())
        .await;
    let announced = Instant::now();
    eventually("the new node is known", TIMEOUT, async || {
        site.sidecar.node_rows().await.len() == 3
    })
    .await;
    assert!(
        announced.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        announced.elapsed()
    );

    site.cluster.nodes[0].kill();
    site.cluster.nodes[1].kill();
    eventually("the session is on the new node", TIMEOUT, async || {
        site.node_of_session().await == Some(2)
    })
    .await;
    is_served(&mut component, "new-node").await;
}
