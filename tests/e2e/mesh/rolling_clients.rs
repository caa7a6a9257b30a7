//! Fifty sessions of old and of current client libraries, while each of three brokers, two of them behind slow routes, is restarted twice.
//! No client notices anything (promise S13).

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Mesh, Relay, ServerKind, Sidecar, TIMEOUT};

use crate::fifty_sessions;

const SIDECARS: usize = 3;
const ROUNDS: usize = 2;
/// Nodes whose routes are slow, and by how much.
const SLOW_NODES: usize = 2;
const ROUTE_DELAY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn s13_fifty_sessions_of_old_and_new_clients_notice_no_rolling_restart() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    let mut relays = Vec::new();
    for node in &mut mesh.nodes[..SLOW_NODES] {
        let relay = Relay::start(node.cluster_address(), ROUTE_DELAY).await;
        node.set("cluster.advertise", relay.address());
        relays.push(relay);
    }
    mesh.start_all().await;
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        sidecars.push(Sidecar::builder().nodes(&mesh.nodes).start().await);
    }
    let addresses: Vec<SocketAddr> = sidecars.iter().map(Sidecar::address).collect();
    let restarts = async {
        for _ in 0..ROUNDS {
            for index in 0..mesh.nodes.len() {
                assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
                mesh.nodes[index].restart().await;
                mesh.wait_until_whole().await;
            }
        }
    };
    fifty_sessions::notice_nothing(&addresses, 30, restarts).await;
}
