//! Each client library directly on real nats-server nodes. This tests the test programs, and shows the behaviour
//! that the sidecar must preserve.

use crate::scenario::all_that_components_do;
use e2e::{Component, Library, Mesh, Node, ServerKind, eventually};
use std::time::Duration;

#[tokio::test]
async fn each_library_works_directly() {
    let node = Node::start(ServerKind::NatsServer, &[]).await;
    for library in Library::ALL {
        all_that_components_do(library, &node.url(), &node.url()).await;
    }
}

#[tokio::test]
async fn components_work_across_the_nodes_of_an_older_cluster() {
    let cluster = Mesh::start(ServerKind::OldNatsServer, 3).await;
    all_that_components_do(Library::Node08, &cluster.nodes[0].url(), &cluster.nodes[2].url()).await;
}

/// The problem that the sidecar solves.
#[tokio::test]
async fn a_killed_node_is_noticed_by_a_component_that_talks_to_it_directly() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    for library in [Library::Node02, Library::NatsPython, Library::C, Library::Go] {
        let mut component = Component::connect(library, &cluster.nodes[0].url()).await;
        component.subscribe("all", ">");
        component.flush().await;
        cluster.nodes[0].kill();
        let troubled = async || !component.troubles().is_empty();
        eventually(
            format!("{library:?} notices that its node is gone"),
            Duration::from_secs(20),
            troubled,
        )
        .await;
        cluster.restart(0).await;
    }
}
