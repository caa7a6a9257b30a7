//! A private network: any number of hosts (network namespaces) on one switch, with partitions, delay and loss.
//!
//! The switch is a bridge in its own namespace, so the network of the machine that runs the tests is not touched. The hosts have
//! the addresses 10.78.0.1, .2, …, and each has its own loopback. Needs root, iproute2 and util-linux.
//!
//! A fault is silence, loss or delay, as on a bad cable, and never a reset. [`Lan::heal`] ends all faults.
//! Delay and loss work without `netem`, which many small kernels lack: the switch drops every frame that arrives from the slow
//! host. `cable.py` beside this file gets a copy of each frame before the drop, and sends the copy later, or not at all.

use crate::netns::{Netns, ip, unique};
use crate::peers;
use crate::process::{Process, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// Limit on the hosts of one switch, more than any test needs.
const HOSTS_MAX: usize = 32;

const BRIDGE: &str = "switch";
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A classic BPF program that returns `TC_ACT_SHOT` (drop) for every frame: what the switch does with the frames of a host whose
/// cable is slow.
const DROP_ALL: &str = "1,6 0 0 2";

/// Hosts 0, 1, … and the switch between them. They are removed when the `Lan` is dropped.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<Netns>,
    switch: Netns,
    /// Pairs (sender, receiver) between which every frame is lost.
    silenced: BTreeSet<(usize, usize)>,
    /// Hosts with a slow cable, and the process (`cable.py`) that delays and drops their frames.
    slow: BTreeMap<usize, Process>,
}

impl Lan {
    /// Makes this many hosts, all connected to the switch.
    pub fn new(size: usize) -> Self {
        assert!(
            (1..=HOSTS_MAX).contains(&size),
            "a Lan has 1 to {HOSTS_MAX} hosts"
        );
        let unique = unique();
        let host = |number: usize| {
            let address = Ipv4Addr::new(10, 78, 0, number as u8 + 1);
            Netns::named(format!("standin-{unique}h{number}"), "eth0", address)
        };
        // Created before the steps that can fail: after a failure, its drop removes the namespaces that exist.
        let lan = Self {
            hosts: (0..size).map(host).collect(),
            switch: Netns::named(format!("standin-{unique}s"), BRIDGE, Ipv4Addr::UNSPECIFIED),
            silenced: BTreeSet::new(),
            slow: BTreeMap::new(),
        };
        ip(&["netns", "add", lan.switch.name()]);
        lan.switch.ip(&["link", "add", BRIDGE, "type", "bridge"]);
        lan.switch.ip(&["link", "set", BRIDGE, "up"]);
        for number in 0..size {
            lan.plug_in(number);
        }
        lan
    }

    fn plug_in(&self, number: usize) {
        let (host, port) = (&self.hosts[number], port_name(number));
        ip(&["netns", "add", host.name()]);
        // The pair is created in the namespaces, so it never exists in the network of the machine itself.
        let peer = ["peer", "name", &port, "netns", self.switch.name()];
        let cable = ["link", "add", "eth0", "netns", host.name(), "type", "veth"];
        ip(&[&cable[..], &peer[..]].concat());
        self.switch.ip(&["link", "set", &port, "master", BRIDGE, "up"]);
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["address", "add", &format!("{}/24", host.address()), "dev", "eth0"]);
        host.ip(&["link", "set", "eth0", "up"]);
    }

    /// Returns one host.
    pub fn host(&self, number: usize) -> &Netns {
        &self.hosts[number]
    }

    /// Gives every host a default route, as the network of a container has one. Nothing answers there. A broker advertises the address
    /// from which packets to elsewhere are sent.
    pub fn add_default_routes(&self) {
        for host in &self.hosts {
            host.ip(&["route", "add", "default", "dev", "eth0"]);
        }
    }

    /// Partitions these groups of hosts from each other, in both directions. A host in no group still reaches all.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        for (place, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(other, _)| *other != place);
            for other in others.flat_map(|(_, other)| *other) {
                for host in *group {
                    self.silence(*host, *other);
                }
            }
        }
    }

    /// Drops everything that host `from` sends to host `to`. The other direction is not changed.
    pub fn silence(&mut self, from: usize, to: usize) {
        assert_ne!(from, to, "a host always reaches itself");
        if self.silenced.insert((from, to)) {
            self.hosts[from].send_nothing_to(&self.hosts[to]);
        }
    }

    /// Delays everything that this host sends by `delay`, and drops this share of its frames (0.05: 5 %). On a busy
    /// connection, segmentation offload makes frames of up to 64 KiB. What the host receives is not changed.
    pub async fn slow(&mut self, host: usize, delay: Duration, loss: f64) {
        self.heal_slow(host);
        let port = port_name(host);
        let mut cable = Program::new(peers::python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cable.py"))
            .args([&*port, BRIDGE])
            .args([delay.as_secs_f64().to_string(), loss.to_string()])
            .inside(&self.switch)
            .start(format!("cable of host {host}"));
        cable.wait_for_line("ready", START_TIMEOUT).await;
        self.tc(&["qdisc", "add", "dev", &port, "clsact"]);
        let filter = ["filter", "add", "dev", &port, "ingress"];
        self.tc(&[&filter[..], &["bpf", "direct-action", "bytecode", DROP_ALL]].concat());
        self.slow.insert(host, cable);
    }

    /// Applies [`slow`](Self::slow) to every host. A round trip then takes twice the delay.
    pub async fn slow_all(&mut self, delay: Duration, loss: f64) {
        for host in 0..self.hosts.len() {
            self.slow(host, delay, loss).await;
        }
    }

    /// Ends every fault. Frames on their way over a slow cable are lost.
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.silenced) {
            self.hosts[from].send_again_to(&self.hosts[to]);
        }
        for host in 0..self.hosts.len() {
            self.heal_slow(host);
        }
    }

    fn heal_slow(&mut self, host: usize) {
        if let Some(cable) = self.slow.remove(&host) {
            drop(cable);
            self.tc(&["qdisc", "delete", "dev", &port_name(host), "clsact"]);
        }
    }

    fn tc(&self, arguments: &[&str]) {
        self.switch.run("tc", arguments);
    }
}

/// Returns the name of the switch's end of a host's cable.
fn port_name(number: usize) -> String {
    format!("port{number}")
}
