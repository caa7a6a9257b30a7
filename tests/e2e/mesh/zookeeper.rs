//! Nodes are registered in a real ZooKeeper only while they serve, and the mesh stays complete while ZooKeeper fails.

use std::time::Duration;

use e2e::raw::CONNECT_NEW;
use e2e::zookeeper::NODES_PATH;
use e2e::{
    Ensemble, Frame, Mesh, MeshBuilder, Program, Publishing, RawClient, Receiving, Registrar, ServerKind,
    TIMEOUT, ZooKeeper, eventually, peers,
};
use serde_json::Value;

const LONG_TIMEOUT: Duration = Duration::from_secs(30);

fn builder(hosts: impl Into<String>) -> MeshBuilder {
    Mesh::builder(ServerKind::Standin, 3)
        .zookeeper(hosts)
        .setting("cluster.sync_timeout_ms", 2000)
        .setting("nodes.zookeeper_session_timeout_ms", 4000)
}

/// Returns the record of this node; null if it is not registered.
async fn record(registrar: &mut Registrar, id: &str) -> Value {
    let text = registrar.get(&format!("{NODES_PATH}/{id}")).await;
    serde_json::from_str(&text).unwrap_or_default()
}

/// Starts to publish from a client of the first node to one of the second.
async fn flow(mesh: &Mesh) -> (Publishing, Receiving) {
    let subscriber = mesh.nodes[1].subscriber("flow").await;
    let publisher = mesh.nodes[0].client().await;
    (
        Publishing::start(publisher, "p", "flow", Duration::from_millis(2)),
        Receiving::start(subscriber, "the subscriber"),
    )
}

/// Stops publishing, and checks that no message was lost.
async fn nothing_is_lost((publishing, receiving): (Publishing, Receiving)) {
    let (_, ledger) = publishing.stop().await;
    receiving.has_all(&ledger).await;
    assert!(
        ledger.total() > 50,
        "only {} messages were published",
        ledger.total()
    );
}

/// Other hosts do not reach pages at a loopback address.
#[tokio::test]
async fn a_record_names_the_pages_only_if_other_hosts_reach_them() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    for (name, addr) in [("local", "127.0.0.1"), ("open", "0.0.0.0")] {
        let mut broker = Program::new(peers::broker_binary())
            .args(["-p", "-1", "--cluster", "nats://0.0.0.0:-1", "-n", name])
            .args(["--zookeeper", &zookeeper.hosts(), "--advertise", "10.1.2.3:4222"])
            .env("STANDIN_HTTP_ADDR", addr)
            .env("STANDIN_HTTP_PORT", "-1")
            .start(name);
        broker.wait_for_line("Server is ready", TIMEOUT).await;
        let found = record(&mut registrar, name).await;
        assert_eq!(found["client"], "10.1.2.3:4222", "{found}");
        assert_eq!(found["http"].is_string(), name == "open", "{found}");
    }
}

#[tokio::test]
async fn a_nodes_record_describes_it_then_shows_that_it_drains_and_is_removed_after_its_last_client() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = builder(zookeeper.hosts()).describe();
    mesh.nodes[2].set("cluster.zone", "north");
    mesh.nodes[2].set("cluster.weight", 7);
    mesh.nodes[2].set("process.lame_duck_grace_secs", 60);
    mesh.start_all().await;
    assert_eq!(registrar.children(NODES_PATH).await, ["n1", "n2", "n3"]);
    let found = record(&mut registrar, "n3").await;
    let node = &mesh.nodes[2];
    let expected = serde_json::json!({
        "v": 1, "id": "n3", "client": node.address().to_string(), "mesh": node.cluster_address().to_string(),
        "http": node.http().address.to_string(), "tls": false, "zone": "north", "weight": 7, "state": "up",
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&found[key], value, "{key} of {found}");
    }
    assert!(
        found["version"]
            .as_str()
            .is_some_and(|version| !version.is_empty())
    );

    let mut client = RawClient::open_with(node.address(), CONNECT_NEW)
        .await
        .subscribed("a")
        .await;
    let mut elsewhere = RawClient::open_with(mesh.nodes[0].address(), CONNECT_NEW).await;
    mesh.nodes[2].terminate();
    let lame = until_info(&mut client, |info| info["ldm"] == true).await;
    // The record is changed before clients are told.
    assert_eq!(record(&mut registrar, "n3").await["state"], "draining", "{lame}");
    let urls = lame["connect_urls"].as_array().expect("addresses");
    assert_eq!(urls.len(), 2, "the other nodes only: {lame}");
    // New clients are refused. The connected one is served until it leaves.
    eventually("new clients are refused", TIMEOUT, async || {
        mesh.nodes[2].connect().await.is_err()
    })
    .await;
    elsewhere.publish("a", "still").await;
    client.expect_message("1", "a", "still").await;
    client.publish("b", "x").await;
    assert!(client.flush().await.is_empty());
    assert_eq!(registrar.children(NODES_PATH).await, ["n1", "n2", "n3"]);
    client.close().await;
    registrar.until_registered(&["n1", "n2"]).await;
    let end = mesh.nodes[2].process().wait_for_end(TIMEOUT).await;
    assert!(end.success(), "{end:?}");
    mesh.wait_until_agreed().await;
    for index in [0, 1] {
        let process = mesh.nodes[index].process();
        process.assert_no_line("is lost");
    }
}

async fn until_info(client: &mut RawClient, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let frame: Frame = client.read_command().await;
        if frame.verb() == "INFO" && wanted(&frame.json()) {
            return frame.json();
        }
    }
}

#[tokio::test]
async fn while_zookeeper_is_down_the_mesh_stays_complete_and_nodes_are_registered_again_when_it_is_back() {
    let mut zookeeper = ZooKeeper::start().await;
    let mut mesh = builder(zookeeper.hosts()).start().await;
    let flow = flow(&mesh).await;
    zookeeper.kill();
    for index in [0, 1, 2] {
        mesh.nodes[index].logs("zookeeper: connection lost").await;
    }
    mesh.wait_until_agreed().await;
    // A node dies, is started again, and is found at its old address.
    mesh.nodes[2].kill();
    mesh.wait_until_whole().await;
    mesh.nodes[2].restart().await;
    assert!(
        mesh.nodes[2].process().has_line("serving without"),
        "{}",
        mesh.nodes[2].process().tail()
    );
    mesh.wait_until_agreed().await;

    zookeeper.start_again().await;
    let mut registrar = zookeeper.registrar().await;
    registrar.until_registered(&["n1", "n2", "n3"]).await;
    // The record of the third node must be that of its present run, not of the killed one.
    let id = mesh.nodes[2].http().get_json("/varz").await.expect("a page")["server_id"].clone();
    eventually("the record is of the present run", LONG_TIMEOUT, async || {
        record(&mut registrar, "n3").await["run"] == id
    })
    .await;
    nothing_is_lost(flow).await;
    mesh.wait_until_agreed().await;
    mesh.nodes[0].terminate();
    registrar.until_registered(&["n2", "n3"]).await;
}

#[tokio::test]
async fn a_node_is_registered_again_after_its_session_expired_and_after_its_znode_was_deleted() {
    let zookeeper = ZooKeeper::start().await;
    let mut registrar = zookeeper.registrar().await;
    let mut mesh = builder(zookeeper.hosts()).start().await;
    let flow = flow(&mesh).await;
    mesh.nodes[2].freeze().await;
    registrar.until_registered(&["n1", "n2"]).await;
    mesh.wait_until_whole().await;
    mesh.nodes[2].thaw();
    registrar.until_registered(&["n1", "n2", "n3"]).await;
    mesh.wait_until_whole().await;

    // No route is closed because a record is missing.
    let mark = mesh.nodes[0].process().mark();
    for id in ["n1", "n2", "n3"] {
        registrar.delete(&format!("{NODES_PATH}/{id}")).await;
    }
    for node in &mut mesh.nodes {
        node.logs("was deleted by another client, created again").await;
    }
    registrar.until_registered(&["n1", "n2", "n3"]).await;
    assert!(
        mesh.nodes[0]
            .process()
            .lines()
            .iter()
            .skip(mark)
            .all(|line| !line.text.contains("the route with"))
    );
    nothing_is_lost(flow).await;
    mesh.wait_until_agreed().await;
}

#[tokio::test]
async fn an_ensemble_that_loses_its_leader_keeps_all_nodes_registered_and_registers_a_new_one() {
    let mut ensemble = Ensemble::start().await;
    let mut mesh = builder(ensemble.hosts()).start().await;
    let flow = flow(&mesh).await;
    let leader = ensemble.wait_for_leader().await;
    ensemble.kill(leader);
    ensemble.wait_for_leader().await;
    let survivor = (leader + 1) % 3;
    let mut registrar = ensemble.servers[survivor].registrar().await;
    let new_node = mesh.start_one_more().await;
    mesh.wait_until_whole().await;
    registrar.until_registered(&["n1", "n2", "n3", "n4"]).await;
    assert!(mesh.nodes[new_node].stop(TIMEOUT).await.success());
    registrar.until_registered(&["n1", "n2", "n3"]).await;
    nothing_is_lost(flow).await;
    mesh.wait_until_agreed().await;
}
