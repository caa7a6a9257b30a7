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

macro_rules! each_library_through_the_sidecar {
    ($($name:ident: $library:ident, $record:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                works_through_the_sidecar(Library::$library, Record::$record).await;
            }
        )*
    };
}

each_library_through_the_sidecar! {
    node_0_2_works_through_the_sidecar_with_nodes_registered_as_plain_addresses: Node02, Plain;
    node_0_8_works_through_the_sidecar_with_nodes_registered_by_nerve: Node08, Nerve;
    node_1_4_works_through_the_sidecar_with_nodes_registered_by_curator: Node14, Curator;
    node_now_works_through_the_sidecar_with_nodes_registered_as_server_sets: NodeNow, ServerSet;
    nats_python_works_through_the_sidecar_with_nodes_registered_by_standin: NatsPython, Own;
    nats_py_works_through_the_sidecar_with_nodes_registered_as_plain_addresses: NatsPy, Plain;
    c_works_through_the_sidecar_with_nodes_registered_by_nerve: C, Nerve;
    go_works_through_the_sidecar_with_nodes_registered_by_curator: Go, Curator;
}
