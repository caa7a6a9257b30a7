//! A sidecar without ZooKeeper: with the address of one node, and with a cluster of an older version.

use crate::scenario::all_that_components_do;
use crate::site::{TIMEOUT, component_of, is_served, session_moves_from};
use e2e::{Library, Mesh, ServerKind, Sidecar, eventually};

#[tokio::test]
async fn the_address_of_one_node_gives_a_component_the_whole_cluster() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 3).await;
    let sidecar = Sidecar::builder()
        .upstream([cluster.nodes[0].url()])
        .start()
        .await;
    let mut component = component_of(Library::NatsPython, &sidecar.url()).await;
    eventually("the node has named the others in INFO", TIMEOUT, async || {
        sidecar.node_rows().await.len() >= 3
    })
    .await;

    cluster.nodes[0].kill();
    session_moves_from(cluster.nodes[0].address(), &sidecar).await;
    is_served(&mut component, "moved").await;
}

#[tokio::test]
async fn a_component_survives_the_loss_of_a_node_of_an_older_cluster() {
    let mut cluster = Mesh::start(ServerKind::OldNatsServer, 3).await;
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut component = component_of(Library::Node02, &sidecar.url()).await;
    let node = sidecar.wait_for_node_of_session().await;
    let index = cluster.index_of(node).expect("a node of the cluster");
    cluster.nodes[index].kill();
    session_moves_from(node, &sidecar).await;
    is_served(&mut component, "moved").await;
    all_that_components_do(Library::Node14, &sidecar.url(), &sidecar.url()).await;
}
