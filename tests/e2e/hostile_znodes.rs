//! Znodes of somebody who can write to ZooKeeper and means harm: they displace no good node, cost bounded memory, and with
//! `nodes.allowed_nodes` lead nobody to another address.

use crate::site::{TIMEOUT, component_of, is_served, session_moves_from};
use e2e::zookeeper::NODES_PATH;
use e2e::{Figures, Library, Mesh, Record, ScriptedNode, ServerKind, Sidecar, ZooKeeper, eventually};
use std::time::Duration;

/// The largest record. `jute.maxbuffer` is raised for it; by default ZooKeeper refuses records above 1 MiB.
const LARGE_BYTES: usize = 10 << 20;
const NODES: usize = 100_000;
/// Limit on the growth of a process. The list of all names has about 2 MB, and each large record 10.
const GROWTH_KIB_MAX: u64 = 100 << 10;

#[tokio::test]
async fn hostile_znodes_displace_no_node_and_cost_bounded_memory() {
    let zookeeper = ZooKeeper::start_with_large_requests(LARGE_BYTES + (1 << 16)).await;
    let mut registrar = zookeeper.registrar().await;
    let cluster = Mesh::builder(ServerKind::Standin, 3).zookeeper(zookeeper.hosts());
    let mut cluster = cluster.start().await;
    let mut sidecar = Sidecar::builder().zookeeper(&zookeeper).start().await;
    let mut component = component_of(Library::NatsPython, &sidecar.url()).await;
    let before: Vec<Figures> = figures(&mut cluster, &mut sidecar);

    // All names come before those of the good nodes.
    for number in 0..8 {
        let path = format!("{NODES_PATH}/a-large-{number}");
        registrar.put_bytes(&path, b"[", LARGE_BYTES).await;
    }
    registrar
        .put_bytes(&format!("{NODES_PATH}/a-binary"), &[0xff, 0xfe, 0], 1000)
        .await;
    registrar
        .put_bytes(&format!("{NODES_PATH}/a-deep"), b"[", 60_000)
        .await;
    let port = sidecar.address().port();
    for (name, record) in [
        ("a-own", sidecar.address().to_string()),
        ("a-own-name", format!("localhost:{port}")),
        ("a-any", format!("0.0.0.0:{port}")),
        ("a-port", "127.0.0.1:0".to_owned()),
        (
            "a-forged",
            r#"{"client":"127.0.0.1:9","id":"x\n2026 WARN forged"}"#.to_owned(),
        ),
    ] {
        registrar.put(&format!("{NODES_PATH}/{name}"), &record).await;
    }
    let process = sidecar.process();
    process
        .wait_for_line("bytes are above the limit of 65536", TIMEOUT)
        .await;
    process.wait_for_line("neither JSON nor host:port", TIMEOUT).await;
    process.wait_for_line("it is this sidecar itself", TIMEOUT).await;
    is_served(&mut component, "records").await;

    registrar.put_many(&format!("{NODES_PATH}/a-many-"), NODES).await;
    let process = sidecar.process();
    process
        .wait_for_line("above nodes_max = 1000 are ignored", TIMEOUT * 3)
        .await;
    for node in &mut cluster.nodes {
        node.logs("above nodes_max = 4096 are ignored").await;
    }
    is_served(&mut component, "many").await;
    let node = sidecar.wait_for_node_of_session().await;
    let victim = cluster.index_of(node).expect("a good node");
    cluster.nodes[victim].kill();
    session_moves_from(node, &sidecar).await;
    is_served(&mut component, "moved").await;
    cluster.restart(victim).await;
    cluster.wait_until_whole().await;

    let after = figures(&mut cluster, &mut sidecar);
    for (before, after) in before.iter().zip(&after) {
        let growth_kib = after.resident_kib.saturating_sub(before.resident_kib);
        assert!(growth_kib < GROWTH_KIB_MAX, "grew by {growth_kib} KiB");
    }
    let process = sidecar.process();
    assert!(process.count_lines("record skipped") <= 20, "{}", process.tail());
    assert!(
        process
            .lines()
            .iter()
            .all(|line| !line.text.starts_with("2026 WARN forged"))
    );
}

fn figures(cluster: &mut Mesh, sidecar: &mut Sidecar) -> Vec<Figures> {
    let nodes = cluster.nodes.iter().map(|node| node.figures());
    nodes.chain([sidecar.process().figures()]).collect()
}

#[tokio::test]
async fn a_node_that_is_not_allowed_is_shown_and_never_dialled() {
    let (zookeeper, cluster) = tokio::join!(ZooKeeper::start(), Mesh::start(ServerKind::NatsServer, 1));
    let mut trap = ScriptedNode::start_on([127, 0, 0, 2].into()).await;
    let port = trap.address().port();
    let mut registrar = zookeeper.registrar().await;
    let good = cluster.nodes[0].address();
    registrar.announce(Record::Plain, "good", good).await;
    registrar.announce(Record::Plain, "trap", trap.address()).await;
    // The system's resolver reads this name as 127.0.0.2.
    let by_name = format!("127.2:{port}");
    registrar
        .put_ephemeral(&format!("{NODES_PATH}/trap-by-name"), &by_name)
        .await;
    let sidecar = Sidecar::builder().zookeeper(&zookeeper);
    let sidecar = sidecar.setting("nodes.allowed_nodes", vec!["127.0.0.1", "*.example.org"]);
    let sidecar = sidecar.setting("health.idle_probe_interval_ms", 1000);
    let mut sidecar = sidecar.start().await;
    let mut component = component_of(Library::NatsPython, &sidecar.url()).await;
    is_served(&mut component, "served").await;
    let error = async |sidecar: &Sidecar, client: &str| {
        let rows = sidecar.node_rows().await;
        let row = rows.iter().find(|row| row["client"] == client).cloned();
        row.unwrap_or_default()["last_error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    eventually("both are shown with the reason", TIMEOUT, async || {
        error(&sidecar, &trap.address().to_string()).await == "not in nodes.allowed_nodes"
            && error(&sidecar, &by_name).await == "its address 127.0.0.2 is not in nodes.allowed_nodes"
    })
    .await;
    assert!(sidecar.metric("standin_nodes{state=refused}").await > 0.0);
    trap.expect_no_connection(Duration::from_secs(1)).await;
    let process = sidecar.process();
    assert_eq!(
        process.count_lines("nodes are not used: not in nodes.allowed_nodes"),
        1
    );

    sidecar.reload_with("nodes.allowed_nodes", vec!["127.0.0.0/8"]);
    trap.accept().await;
}

#[tokio::test]
async fn a_broker_dials_no_registered_node_that_is_not_allowed() {
    let zookeeper = ZooKeeper::start().await;
    let mut trap = ScriptedNode::start_on([127, 0, 0, 2].into()).await;
    let mut registrar = zookeeper.registrar().await;
    registrar.announce(Record::Own, "trap", trap.address()).await;
    let by_name = Record::Own.text("trap-by-name", trap.address());
    let by_name = by_name.replace("127.0.0.2", "127.2");
    registrar
        .put_ephemeral(&format!("{NODES_PATH}/trap-by-name"), &by_name)
        .await;
    let cluster = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(zookeeper.hosts())
        .setting("nodes.allowed_nodes", "127.0.0.1")
        .setting("cluster.sync_timeout_ms", 1000);
    let mut cluster = cluster.start().await;
    for node in &mut cluster.nodes {
        node.logs("registered nodes are not used: not in nodes.allowed_nodes")
            .await;
        node.logs("its address 127.0.0.2 is not in nodes.allowed_nodes")
            .await;
    }
    trap.expect_no_connection(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_node_with_credentials_warns_of_parents_that_everybody_can_change() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    registrar.put("/standin", "").await;
    let cluster = Mesh::builder(ServerKind::Standin, 1)
        .zookeeper(zookeeper.hosts())
        .setting("nodes.zookeeper_auth", "nodes:secret");
    let mut cluster = cluster.start().await;
    let node = &mut cluster.nodes[0];
    node.logs("/standin existed already, and everybody has the permissions ALL")
        .await;
    registrar.until_registered(&["n1"]).await;
    node.process().assert_no_line("/standin/nodes existed already");
    node.process().assert_no_line("secret");
}
