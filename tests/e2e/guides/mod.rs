//! The guides in `deploy/`: their commands run as they stand, and the log lines and metrics that they name exist.

mod move_over;
mod run;
mod take_over;
mod trouble;

use std::panic::Location;
use std::time::Duration;

use e2e::{Lan, Machine, ZooKeeper, eventually, settled};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a machine on this host of the network, with one more address. `hosts` are lines for `/etc/hosts`.
async fn machine(lan: &Lan, host: usize, address: &str, hosts: &str) -> Machine {
    let machine = Machine::start(lan.host(host), hosts).await;
    machine.run(&format!("ip address add {address}/24 dev eth0"));
    machine
}

/// Lines for `/etc/hosts`: the three servers of ZooKeeper in the guides are one here.
fn zookeeper_hosts(zookeeper: &ZooKeeper) -> String {
    format!("{} zk1 zk2 zk3", zookeeper.address().ip())
}

/// Changes a block for 10.0.0.2 into that of another node, as the guide says.
fn for_node(block: &str, number: usize) -> String {
    block
        .replace("10.0.0.2", &format!("10.0.0.{number}"))
        .replace("node-2", &format!("node-{number}"))
}

/// Writes the settings file of the server of a machine, and starts the server.
fn start_nats_server(machine: &Machine, address: &str) {
    machine.run(&format!(
        "printf 'host: {address}\\nport: 4222\\n' >/etc/nats-server.conf\nsystemctl start nats-server"
    ));
}

/// Returns the rows of `/sessionz` or `/nodez` of the sidecar of a machine.
fn rows(machine: &Machine, page: &str) -> Vec<Value> {
    let text = machine.run(&format!("curl -s 127.0.0.1:8223{page}"));
    let page: Value = serde_json::from_str(&text).expect("the page is JSON");
    page["items"].as_array().cloned().unwrap_or_default()
}

/// Waits until the sidecar of a machine has proved exactly these nodes. Node N has the address 10.0.0.N.
async fn nodes_become(machine: &Machine, wanted: &[usize]) {
    let wanted: Vec<String> = wanted
        .iter()
        .map(|number| format!("10.0.0.{number}:4222"))
        .collect();
    let what = format!("the nodes that are up are {wanted:?}");
    settled(Location::caller(), &what, TIMEOUT, async || {
        let rows = rows(machine, "/nodez");
        let up = rows.iter().filter(|row| row["state"] == "up");
        let mut up: Vec<&str> = up.filter_map(|row| row["client"].as_str()).collect();
        up.sort_unstable();
        if up == wanted {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
}

/// Waits until the sidecar of a machine has this number of sessions, and each of them has a node.
async fn sessions_become(machine: &Machine, count: usize) {
    eventually(
        format!("there are {count} sessions with a node"),
        TIMEOUT,
        async || {
            let rows = rows(machine, "/sessionz");
            rows.len() == count && rows.iter().all(|row| row["state"] == "flowing")
        },
    )
    .await;
}
