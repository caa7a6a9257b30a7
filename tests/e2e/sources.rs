//! A sidecar without ZooKeeper: with the address of one node, and with a cluster of an older version.

use crate::scenario::all_that_components_do;
use crate::site::TIMEOUT;
use e2e::{Component, Library, Mesh, ServerKind, Sidecar, eventually};

#[tokio::test]
async fn the_address_of_one_node_gives_a_component_the_whole_cluster() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 3).await;
    let sidecar = Sidecar::builder()
        .upstream([cluster.nodes[0].url()])
        .start()
        .await;
    let mut component = Component::connect(Library::NatsPython, &sidecar.url()).await;
    component.subscribe("own", "own");
    component.flush().await;
    eventually("the node has named the others in INFO", TIMEOUT, async || {
        sidecar.node_rows().await.len() >= 3
    })
    .await;

    cluster.nodes[0].kill();
    let old = cluster.nodes[0].address();
    eventually("the session is on another node", TIMEOUT, async || {
        sidecar.node_of_session().await.is_some_and(|now| now != old)
    })
    .await;
    component.publish("own", "moved");
    component.expect_payloads("own", &["moved"]).await;
    component.assert_untroubled();
}

#[tokio::test]
async fn a_component_survives_the_loss_of_a_node_of_an_older_cluster() {
    let mut cluster = Mesh::start(ServerKind::OldNatsServer, 3).await;
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut component = Component::connect(Library::Node02, &sidecar.url()).await;
    component.subscribe("own", "own");
    component.flush().await;
    let node = e2e::found("the session has a node", TIMEOUT, async || {
        sidecar.node_of_session().await
    })
    .await;
    let index = cluster.index_of(node).expect("a node of the cluster");
    cluster.nodes[index].kill();
    eventually("the session moves", TIMEOUT, async || {
        sidecar.node_of_session().await.is_some_and(|now| now != node)
    })
    .await;
    component.publish("own", "moved");
    component.expect_payloads("own", &["moved"]).await;
    component.assert_untroubled();
    all_that_components_do(Library::Node14, &sidecar.url(), &sidecar.url()).await;
}
