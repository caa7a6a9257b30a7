//! Each client library directly on real nats-server nodes. This tests the test programs, and shows what the sidecar must keep.

use crate::scenario::all_that_components_do;
use e2e::{Component, Library, Mesh, ServerKind, eventually};
use std::time::Duration;

async fn works_directly(library: Library) {
    let cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let url = cluster.nodes[0].url();
    all_that_components_do(library, &url, &url).await;
}

cases! {
    works_directly =>
    node_0_2_works_directly(Library::Node02);
    node_0_8_works_directly(Library::Node08);
    node_1_4_works_directly(Library::Node14);
    node_now_works_directly(Library::NodeNow);
    nats_python_works_directly(Library::NatsPython);
    nats_py_works_directly(Library::NatsPy);
    c_works_directly(Library::C);
    go_works_directly(Library::Go);
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
