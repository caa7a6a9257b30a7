//! A network of one's own: any number of machines (network namespaces) on one switch, and what can go wrong with it.
//!
//! The switch is a bridge in a namespace of its own, so the machine that runs the tests sees and loses nothing. Addresses are
//! 10.78.0.1, .2, … and exist inside only; each machine also has its own loopback. Needs root and iproute2.
//!
//! Each fault is silence or delay, as a broken cable is to the other side, never a reset; [`Lan::mend`] takes all of them back.
//! Delay and loss do not need `netem`, which many small kernels lack: the switch drops what comes from the machine, and
//! `cable.py` beside this file, which sees it all the same, hands it in again later, or not at all.

use crate::netns::{Netns, ip, unique};
use crate::peers;
use crate::process::{Process, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// The most machines on one switch: more than any test needs.
const HOSTS_MAX: usize = 32;

const BRIDGE: &str = "switch";
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What the switch does with all that comes from a machine whose cable is slow: a classic BPF program that returns
/// `TC_ACT_SHOT`, drop.
const DROP_ALL: &str = "1,6 0 0 2";

/// Machines 0, 1, … and the switch between them; all is removed when it is dropped.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<Netns>,
    switch: Netns,
    /// (sender, receiver) of what is lost.
    silenced: BTreeSet<(usize, usize)>,
    /// Machines with a slow cable, and the process that is the cable.
    slow: BTreeMap<usize, Process>,
}

impl Lan {
    /// Makes so many machines, all joined and up.
    pub fn new(size: usize) -> Self {
        assert!(
            (1..=HOSTS_MAX).contains(&size),
            "a Lan has 1 to {HOSTS_MAX} machines"
        );
        let unique = unique();
        let host = |number: usize| {
            let address = Ipv4Addr::new(10, 78, 0, number as u8 + 1);
            Netns::named(format!("standin-{unique}h{number}"), "eth0", address)
        };
        // Dropped, and so removed again, if one of the steps fails.
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
        // Made inside the namespaces at once, so the machine's own network never sees it.
        let peer = ["peer", "name", &port, "netns", self.switch.name()];
        let cable = ["link", "add", "eth0", "netns", host.name(), "type", "veth"];
        ip(&[&cable[..], &peer[..]].concat());
        self.switch.ip(&["link", "set", &port, "master", BRIDGE, "up"]);
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["address", "add", &format!("{}/24", host.address()), "dev", "eth0"]);
        host.ip(&["link", "set", "eth0", "up"]);
    }

    /// The machines.
    pub fn hosts(&self) -> &[Netns] {
        &self.hosts
    }

    /// One machine.
    pub fn host(&self, number: usize) -> &Netns {
        &self.hosts[number]
    }

    /// Parts these groups of machines from each other, both ways. A machine in none of them still reaches all.
    pub fn part(&mut self, groups: &[&[usize]]) {
        for (place, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(other, _)| *other != place);
            for other in others.flat_map(|(_, other)| *other) {
                for host in *group {
                    self.silence(*host, *other);
                }
            }
        }
    }

    /// From now on nothing that machine `from` sends arrives at machine `to`; the way back is as it was.
    pub fn silence(&mut self, from: usize, to: usize) {
        assert_ne!(from, to, "a machine always reaches itself");
        if self.silenced.insert((from, to)) {
            self.hosts[from].send_nothing_to(&self.hosts[to]);
        }
    }

    /// From now on all that this machine sends is late by `delay`, and of its frames this share (0.05: 5 %) is lost. On
    /// a connection with much to send, a frame is up to 64 KiB. What a machine receives is as the sender's cable is.
    pub async fn slow(&mut self, host: usize, delay: Duration, loss: f64) {
        self.mend_slow(host);
        let port = port_name(host);
        let mut cable = Program::new(peers::python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cable.py"))
            .args([&*port, BRIDGE])
            .args([delay.as_secs_f64().to_string(), loss.to_string()])
            .inside(&self.switch)
            .start(format!("cable of machine {host}"));
        cable.wait_for_line("ready", START_PATIENCE).await;
        self.tc(&["qdisc", "add", "dev", &port, "clsact"]);
        let filter = ["filter", "add", "dev", &port, "ingress"];
        self.tc(&[&filter[..], &["bpf", "direct-action", "bytecode", DROP_ALL]].concat());
        self.slow.insert(host, cable);
    }

    /// [`slow`](Self::slow) for every machine: a round trip takes twice the delay.
    pub async fn slow_all(&mut self, delay: Duration, loss: f64) {
        for host in 0..self.hosts.len() {
            self.slow(host, delay, loss).await;
        }
    }

    /// Takes every fault back. What is on its way over a slow cable is lost.
    pub fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.silenced) {
            self.hosts[from].send_again_to(&self.hosts[to]);
        }
        for host in 0..self.hosts.len() {
            self.mend_slow(host);
        }
    }

    fn mend_slow(&mut self, host: usize) {
        if let Some(cable) = self.slow.remove(&host) {
            drop(cable);
            self.tc(&["qdisc", "delete", "dev", &port_name(host), "clsact"]);
        }
    }

    fn tc(&self, arguments: &[&str]) {
        self.switch.run("tc", arguments);
    }
}

/// The name of the switch's end of a machine's cable.
fn port_name(number: usize) -> String {
    format!("port{number}")
}
