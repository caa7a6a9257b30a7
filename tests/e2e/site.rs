//! A typical site: ZooKeeper, a cluster whose nodes are registered in it, and a sidecar that finds them there.

use e2e::sidecar::SidecarBuilder;
use e2e::{Component, Library, Mesh, Record, Registrar, ServerKind, Sidecar, ZooKeeper, eventually, found};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Connects a component that subscribes to `own`. The library `NatsPython` never reconnects, so a test
/// with it fails if the sidecar closes the connection.
pub(crate) async fn component_of(library: Library, url: &str) -> Component {
    let mut component = Component::connect(library, url).await;
    component.subscribe("own", "own");
    component.flush().await;
    component
}

/// Checks that the component receives its own message exactly once, and that its library has noticed no problem.
pub(crate) async fn is_served(component: &mut Component, payload: &str) {
    component.publish("own", payload);
    let copies = |component: &Component| {
        let payloads = component.payloads("own");
        payloads.iter().filter(|received| *received == payload).count()
    };
    eventually(format!("{payload} is received"), TIMEOUT, async || {
        copies(component) > 0
    })
    .await;
    component.flush().await;
    assert_eq!(copies(component), 1, "copies of {payload}");
    component.assert_untroubled();
}

/// Waits until the only session of the sidecar has moved away from this node, and returns its new node.
pub(crate) async fn session_moves_from(node: SocketAddr, sidecar: &Sidecar) -> SocketAddr {
    found(format!("the session leaves {node}"), TIMEOUT, async || {
        sidecar.node_of_session().await.filter(|now| *now != node)
    })
    .await
}

/// A running site.
pub(crate) struct Site {
    pub(crate) zookeeper: ZooKeeper,
    pub(crate) registrar: Registrar,
    pub(crate) cluster: Mesh,
    pub(crate) sidecar: Sidecar,
}

impl Site {
    /// Starts a cluster of three nodes, all registered with this format of record, and a sidecar with default settings.
    pub(crate) async fn start(record: Record) -> Self {
        Self::start_with(record, 3, |sidecar| sidecar).await
    }

    /// Starts a cluster of three nodes and registers the first `registered` of them. `adjust` may change the sidecar's settings.
    pub(crate) async fn start_with(
        record: Record,
        registered: usize,
        adjust: impl FnOnce(SidecarBuilder) -> SidecarBuilder,
    ) -> Self {
        let (zookeeper, cluster) = tokio::join!(ZooKeeper::start(), Mesh::start(ServerKind::NatsServer, 3));
        let mut registrar = zookeeper.registrar().await;
        for node in &cluster.nodes[..registered] {
            registrar.announce(record, node.name(), node.address()).await;
        }
        let sidecar = adjust(Sidecar::builder().zookeeper(&zookeeper).cached())
            .start()
            .await;
        let site = Self {
            zookeeper,
            registrar,
            cluster,
            sidecar,
        };
        eventually("the sidecar knows all registered nodes", TIMEOUT, async || {
            site.sidecar.node_rows().await.len() == registered
        })
        .await;
        site
    }

    /// Returns the index of the node of the only session.
    pub(crate) async fn node_of_session(&self) -> Option<usize> {
        self.cluster.index_of(self.sidecar.node_of_session().await?)
    }

    /// Waits until the only session has moved away from this node, and returns the index of its new node.
    pub(crate) async fn session_moved_from(&self, index: usize) -> usize {
        let moved = session_moves_from(self.cluster.nodes[index].address(), &self.sidecar).await;
        self.cluster.index_of(moved).expect("a node of the cluster")
    }
}
