//! Three real ZooKeeper servers with an elected leader, so that a test can kill one of them.

use crate::condition::found;
use crate::netns::Netns;
use crate::port::{free_address, free_port};
use crate::zookeeper::{Membership, USUAL_PORT, ZooKeeper};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

const SIZE: usize = 3;
const ELECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// `initLimit` and `syncLimit` count ticks of 500 ms: a start may take 10 s on a busy machine, and a silent server is dropped
/// after 2 s. `cnxTimeout` is in milliseconds, and keeps an unreachable server from delaying an election.
const TIMES: &str = "initLimit=20\nsyncLimit=4\ncnxTimeout=1000\n";

/// An ensemble of servers 0, 1 and 2.
#[derive(Debug)]
pub struct Ensemble {
    /// The servers.
    pub servers: Vec<ZooKeeper>,
}

impl Ensemble {
    /// Starts three servers on loopback and waits until all of them serve.
    pub async fn start() -> Self {
        let address = || (free_address(), None, free_port(), free_port());
        Self::start_at([address(), address(), address()]).await
    }

    /// Starts a server in each namespace, at its own address and ZooKeeper's usual ports.
    pub async fn start_on_usual_ports(hosts: [&Netns; SIZE]) -> Self {
        let address = |netns: &'_ Netns| SocketAddr::new(netns.address(), USUAL_PORT);
        Self::start_at(hosts.map(|netns| (address(netns), Some(netns), 2888, 3888))).await
    }

    /// Starts the servers. Each has an address for clients, a namespace, and the ports for the others: quorum and election.
    async fn start_at(places: [(SocketAddr, Option<&Netns>, u16, u16); SIZE]) -> Self {
        let mut settings = TIMES.to_owned();
        for (number, (address, _, quorum, election)) in (1..).zip(&places) {
            let ip = address.ip();
            let _ = writeln!(settings, "server.{number}={ip}:{quorum}:{election}");
        }
        let server = |(number, (address, netns, ..)): (usize, (SocketAddr, Option<&Netns>, u16, u16))| {
            let membership = Membership {
                number,
                settings: settings.clone(),
            };
            ZooKeeper::described(address, netns, Some(membership))
        };
        let mut ensemble = Self {
            servers: (1..).zip(places).map(server).collect(),
        };
        for server in &mut ensemble.servers {
            server.launch();
        }
        for server in &mut ensemble.servers {
            server.wait_until_serving().await;
        }
        ensemble
    }

    /// Returns `HOST:PORT,HOST:PORT,HOST:PORT`, the value of `--zookeeper`.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(ZooKeeper::hosts).collect();
        hosts.join(",")
    }

    /// Waits until one server leads, and returns its index.
    pub async fn wait_for_leader(&self) -> usize {
        found("one ZooKeeper server leads", ELECTION_TIMEOUT, async || {
            for (index, server) in self.servers.iter().enumerate() {
                if server.mode().await.as_deref() == Some("leader") {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    /// Kills one server. Its data stays.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }
}
