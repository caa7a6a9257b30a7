//! Three real ZooKeeper servers with an elected leader, so that a test can kill one of them.

use crate::condition::found;
use crate::lan::Lan;
use crate::netns::Netns;
use crate::port::free_port;
use crate::zookeeper::{Membership, Registrar, SESSION_TIMEOUT, ZooKeeper};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
        Self::start_at([None; SIZE]).await
    }

    /// Starts one server on each of these three hosts of a [`Lan`] and waits until all of them serve.
    pub async fn start_on(lan: &Lan, hosts: [usize; SIZE]) -> Self {
        Self::start_at(hosts.map(|host| Some(lan.host(host)))).await
    }

    async fn start_at(places: [Option<&Netns>; SIZE]) -> Self {
        let ips = places.map(|place| place.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Netns::address));
        let mut settings = TIMES.to_owned();
        for (index, ip) in ips.iter().enumerate() {
            let (quorum, election) = (free_port(), free_port());
            let _ = writeln!(settings, "server.{}={ip}:{quorum}:{election}", index + 1);
        }
        let server = |index: usize| {
            let membership = Membership {
                number: index + 1,
                settings: settings.clone(),
            };
            let address = SocketAddr::new(ips[index], free_port());
            ZooKeeper::described(address, places[index], Some(membership))
        };
        let mut ensemble = Self {
            servers: (0..SIZE).map(server).collect(),
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

    /// Returns the leader; `None` while there is none, or while two servers claim to lead, as just after a partition.
    pub async fn leader(&self) -> Option<usize> {
        let mut leader = None;
        for (index, server) in self.servers.iter().enumerate() {
            if server.mode().await.as_deref() == Some("leader") && leader.replace(index).is_some() {
                return None;
            }
        }
        leader
    }

    /// Waits until one server leads, and returns it.
    pub async fn wait_for_leader(&self) -> usize {
        found("one ZooKeeper server leads", ELECTION_TIMEOUT, async || {
            self.leader().await
        })
        .await
    }

    /// Kills one server. Its data stays.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts a killed server again with its old data, and waits until it serves, which needs two running servers.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].start_again().await;
    }

    /// Opens a session with any running server, from the network namespace of the first one.
    pub async fn registrar(&self) -> Registrar {
        self.servers[0].registrar_at(&self.hosts(), SESSION_TIMEOUT).await
    }
}
