//! `deploy/run.md` and the commands of `deploy/trouble.md`, on three machines with a node each, and one with a sidecar and an old client.

use super::{for_node, machine, nodes_become, sessions_become, zookeeper_hosts};
use crate::site::is_served;
use e2e::{Component, Guide, Lan, Library, TIMEOUT, ZooKeeper, eventually};

const SETTINGS: &str = r#"
mkdir -p /etc/standin
cat >/etc/standin/proxy.toml <<'END'
[nodes]
zookeeper = "zk1:2181,zk2:2181,zk3:2181"

[http]
listen = "127.0.0.1:8223"
END
systemctl start standin-proxy
"#;

#[tokio::test]
async fn a_rolling_restart_and_the_other_commands_work_as_they_stand() {
    let (mut run, mut trouble) = (Guide::read("run.md"), Guide::read("trouble.md"));
    let lan = Lan::new(5);
    let zookeeper = ZooKeeper::start_on_usual_port(lan.host(4)).await;
    let hosts = zookeeper_hosts(&zookeeper);
    let here = machine(&lan, 0, "10.0.0.5", &hosts).await;
    let start = Guide::read("move-over.md").next("More nodes of standin-broker");
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let node = machine(&lan, number, &format!("10.0.0.{number}"), &hosts).await;
        node.run(&for_node(&start, number));
        nodes.push(node);
    }
    here.run(SETTINGS);
    // A library that never reconnects: it fails if its connection is closed.
    let url = "nats://127.0.0.1:4222";
    let mut component = Component::connect_on(&here, Library::NatsPython, url).await;
    component.subscribe("own", "own");
    component.flush().await;
    nodes_become(&here, &[1, 2, 3]).await;

    let watch = here.run(&run.next("What to watch"));
    assert!(
        watch.contains("\"nodes_proved\":3") && watch.contains("standin_sessions 1"),
        "{watch}"
    );
    let (restart, look) = (run.next("Rolling restart"), run.next("Rolling restart"));
    for (number, node) in nodes.iter().enumerate() {
        node.run(&restart);
        nodes_become(&here, &[1, 2, 3]).await;
        assert_eq!(here.run(&look).matches("\"state\":\"up\"").count(), 3);
        is_served(&mut component, &format!("restarted-{number}")).await;
    }
    here.run(&run.next("Upgrade"));
    eventually("the sidecar has replaced itself", TIMEOUT, async || {
        here.run("journalctl -u standin-proxy")
            .contains("sidecar upgraded")
    })
    .await;
    is_served(&mut component, "upgraded").await;
    here.run(&run.next("Change a setting"));
    run.assert_all_taken();

    for section in [
        "The component is refused",
        "The component is connected, and nothing arrives",
        "The list of nodes is wrong",
    ] {
        here.run(&trouble.next(section));
    }
    nodes[0].run(&trouble.next("A node of standin-broker does not come up"));
    trouble.assert_all_taken();
    sessions_become(&here, 1).await;
    component.assert_untroubled();
}
