//! Each client library through the sidecar, on a cluster of three nodes registered in ZooKeeper.
//!
//! Publisher and subscriber are two sessions, usually on different nodes.

use crate::scenario::all_that_components_do;
use crate::site::Site;
use e2e::{Library, Record};

async fn works_through_the_sidecar(library: Library, record: Record) {
    let site = Site::start(record).await;
    let url = site.sidecar.url();
    all_that_components_do(library, &url, &url).await;
}

cases! {
    works_through_the_sidecar =>
    node_0_2_works_through_the_sidecar_with_nodes_registered_as_plain_addresses(Library::Node02, Record::Plain);
    node_0_8_works_through_the_sidecar_with_nodes_registered_by_nerve(Library::Node08, Record::Nerve);
    node_1_4_works_through_the_sidecar_with_nodes_registered_by_curator(Library::Node14, Record::Curator);
    node_now_works_through_the_sidecar_with_nodes_registered_as_server_sets(Library::NodeNow, Record::ServerSet);
    nats_python_works_through_the_sidecar_with_nodes_registered_by_standin(Library::NatsPython, Record::Own);
    nats_py_works_through_the_sidecar_with_nodes_registered_as_plain_addresses(Library::NatsPy, Record::Plain);
    c_works_through_the_sidecar_with_nodes_registered_by_nerve(Library::C, Record::Nerve);
    go_works_through_the_sidecar_with_nodes_registered_by_curator(Library::Go, Record::Curator);
}
