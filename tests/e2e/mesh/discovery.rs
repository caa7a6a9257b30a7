//! Discovery: INFO lists the nodes that accept clients, so a library with one address finds another node when its node dies.

use std::time::Duration;

use e2e::raw::{CONNECT_NEW, CONNECT_OLD};
use e2e::{Component, Library, Mesh, RawClient, ServerKind, TIMEOUT, eventually};
use serde_json::Value;

/// Returns what INFO must list: the address of node `own`, and the sorted addresses of the `others`.
fn urls(mesh: &Mesh, own: usize, others: &[usize]) -> (String, Vec<String>) {
    let url = |index: &usize| mesh.nodes[*index].address().to_string();
    let mut others: Vec<String> = others.iter().map(url).collect();
    others.sort();
    (url(&own), others)
}

/// Returns what INFO lists: the first address, and the other ones sorted.
fn listed(info: &Value) -> (String, Vec<String>) {
    let list = info["connect_urls"].as_array().cloned().unwrap_or_default();
    let mut list = list.iter().filter_map(|url| url.as_str().map(str::to_owned));
    let own = list.next().unwrap_or_default();
    let mut others: Vec<String> = list.collect();
    others.sort();
    (own, others)
}

/// Reads until an INFO lists these addresses.
async fn until_listed(client: &mut RawClient, expected: (String, Vec<String>)) {
    loop {
        let frame = client.read_command().await;
        if frame.verb() == "INFO" && listed(&frame.json()) == expected {
            return;
        }
    }
}

#[tokio::test]
async fn info_lists_its_own_node_first_and_is_sent_again_when_nodes_join_or_leave() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut current = RawClient::open_with(mesh.nodes[1].address(), CONNECT_NEW).await;
    assert_eq!(listed(&current.info()), urls(&mesh, 1, &[0, 2]));
    assert_eq!(current.info()["cluster"], "mesh");
    let mut old = RawClient::open_with(mesh.nodes[1].address(), CONNECT_OLD).await;
    assert_eq!(listed(&old.info()), urls(&mesh, 1, &[0, 2]));
    // It sends CONNECT after the change.
    let mut slow = RawClient::connect(mesh.nodes[1].address()).await;

    let fourth = mesh.start_one_more().await;
    until_listed(&mut current, urls(&mesh, 1, &[0, 2, fourth])).await;
    slow.send(format!("{CONNECT_NEW}\r\n")).await;
    until_listed(&mut slow, urls(&mesh, 1, &[0, 2, fourth])).await;
    mesh.nodes[0].kill();
    until_listed(&mut current, urls(&mesh, 1, &[2, fourth])).await;
    // A lame duck is not listed, though it still runs.
    mesh.nodes[0].set("process.lame_duck_grace_secs", 60);
    mesh.nodes[0].restart().await;
    until_listed(&mut current, urls(&mesh, 1, &[0, 2, fourth])).await;
    let mut held = mesh.nodes[0].client().await;
    mesh.nodes[0].enter_lame_duck();
    until_listed(&mut current, urls(&mesh, 1, &[2, fourth])).await;
    held.flush().await;
    mesh.wait_until_whole().await;
    held.close().await;
    mesh.nodes[0].process().wait_for_end(TIMEOUT).await;

    // A client of protocol 0 gets only the first INFO.
    old.publish("a", "x").await;
    assert!(old.flush().await.is_empty(), "no second INFO");
    mesh.wait_until_whole().await;
}

#[tokio::test]
async fn a_node_with_no_advertise_is_not_listed() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    mesh.nodes[2].add_flags(&["--no_advertise"]);
    mesh.start_all().await;
    let client = RawClient::open_with(mesh.nodes[0].address(), CONNECT_NEW).await;
    assert_eq!(listed(&client.info()), urls(&mesh, 0, &[1]));
    let client = RawClient::open_with(mesh.nodes[2].address(), CONNECT_NEW).await;
    assert_eq!(client.info().get("connect_urls"), None, "INFO lists nodes");
}

/// Old npm clients hang on a longer line. Clients that accept a later INFO get the complete list in it.
#[tokio::test]
async fn the_first_info_is_below_512_bytes_for_any_number_of_nodes() {
    const SIZE: usize = 8;
    let mut mesh = Mesh::builder(ServerKind::Standin, SIZE).describe();
    let name = |index: usize| format!("node-{index}-of-a-cluster-with-long-names.example.org:4222");
    for (index, node) in mesh.nodes.iter_mut().enumerate() {
        node.add_flags(&["--advertise", &name(index)]);
    }
    mesh.start_all().await;
    let mut client = RawClient::connect(mesh.nodes[0].address()).await;
    assert!(
        client.info_frame().bytes().len() < 512,
        "{:?}",
        client.info_frame()
    );
    let (own, some) = listed(&client.info());
    assert_eq!(own, name(0));
    assert!(!some.is_empty() && some.len() < SIZE - 1, "{some:?}");
    client.send(format!("{CONNECT_NEW}\r\n")).await;
    until_listed(&mut client, (name(0), (1..SIZE).map(name).collect())).await;
    mesh.wait_until_agreed().await;
}

/// Gives a library the address of one node, kills that node, and checks that the library moves to another one with its
/// subscriptions.
async fn moves_by_itself(library: Library) {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut component = Component::connect(library, &mesh.nodes[0].url()).await;
    component.subscribe("all", "news.>");
    component.subscribe_queue("member", "work", "crew");
    component.flush().await;
    let mut counterpart = mesh.nodes[2].subscriber("up").await;
    counterpart.publish("news.1", "before").await;
    eventually("the message arrives", TIMEOUT, async || {
        component.payloads("all") == ["before"]
    })
    .await;
    mesh.nodes[0].kill();
    eventually("messages arrive again", Duration::from_secs(30), async || {
        counterpart.publish("news.2", "after").await;
        counterpart.publish("work", "after").await;
        counterpart.flush().await;
        ["all", "member"]
            .iter()
            .all(|name| component.payloads(name).iter().any(|payload| payload == "after"))
    })
    .await;
    // The last message must be received once, because the component has one subscription, on one node.
    counterpart.publish("news.3", "last").await;
    counterpart.flush().await;
    eventually("the last message arrives", TIMEOUT, async || {
        component.payloads("all").iter().any(|payload| payload == "last")
    })
    .await;
    component.publish("up", "hi");
    loop {
        let frame = counterpart.read_command().await;
        if frame.verb() == "MSG" {
            assert_eq!(frame.payload(), b"hi");
            break;
        }
    }
    component.flush().await;
    assert_eq!(
        component
            .payloads("all")
            .iter()
            .filter(|payload| *payload == "last")
            .count(),
        1
    );
    mesh.wait_until_agreed().await;
}

cases! {
    moves_by_itself =>
    node_0_8_moves_to_another_node_by_itself(Library::Node08);
    node_1_4_moves_to_another_node_by_itself(Library::Node14);
    node_now_moves_to_another_node_by_itself(Library::NodeNow);
    nats_py_moves_to_another_node_by_itself(Library::NatsPy);
    c_moves_to_another_node_by_itself(Library::C);
    go_moves_to_another_node_by_itself(Library::Go);
}

#[tokio::test]
async fn rust_moves_to_another_node_by_itself() {
    use futures_util::StreamExt;
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let client = async_nats::connect(mesh.nodes[0].url()).await.expect("admitted");
    let mut subscription = client.subscribe("news.>").await.expect("subscribed");
    client.flush().await.expect("flushed");
    mesh.nodes[0].kill();
    let mut counterpart = mesh.nodes[2].client().await;
    eventually("messages arrive again", Duration::from_secs(30), async || {
        counterpart.publish("news.1", "after").await;
        counterpart.flush().await;
        tokio::time::timeout(Duration::from_millis(50), subscription.next())
            .await
            .is_ok()
    })
    .await;
    mesh.wait_until_agreed().await;
}

/// Checks a library that ignores the list, with publisher and subscriber on different nodes.
async fn works_across_nodes(library: Library) {
    let mut mesh = Mesh::start(ServerKind::Standin, 2).await;
    crate::scenario::all_that_components_do(library, &mesh.nodes[0].url(), &mesh.nodes[1].url()).await;
    mesh.start_one_more().await;
    crate::scenario::all_that_components_do(library, &mesh.nodes[2].url(), &mesh.nodes[0].url()).await;
    mesh.wait_until_agreed().await;
}

cases! {
    works_across_nodes =>
    node_0_2_ignores_the_list_and_works_across_nodes(Library::Node02);
    nats_python_ignores_the_list_and_works_across_nodes(Library::NatsPython);
}
