//! Three real ZooKeeper servers that elect a leader among them, so that a test can take one away.

use crate::condition::found;
use crate::lan::Lan;
use crate::netns::Netns;
use crate::port::free_port;
use crate::zookeeper::{Membership, Registrar, SESSION_TIMEOUT, ZooKeeper};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const SIZE: usize = 3;
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

/// In ticks of 500 ms: a start may take 10 s on a busy machine, a silent server is given up after 2 s. And in
/// milliseconds: a server behind a cut cable does not hold up an election.
const TIMES: &str = "initLimit=20\nsyncLimit=4\ncnxTimeout=1000\n";

/// Servers 0, 1 and 2.
#[derive(Debug)]
pub struct Ensemble {
    /// The servers, for [`ZooKeeper::kill`], [`ZooKeeper::process`] and the like.
    pub servers: Vec<ZooKeeper>,
}

impl Ensemble {
    /// Starts three servers on loopback and waits until all serve.
    pub async fn start() -> Self {
        Self::start_at([None; SIZE]).await
    }

    /// Starts one server on each of these three machines of a [`Lan`] and waits until all serve.
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

    /// `HOST:PORT,HOST:PORT,HOST:PORT`, as `--zookeeper` takes it.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(ZooKeeper::hosts).collect();
        hosts.join(",")
    }

    /// The server that leads; `None` while none does, or while two say so, as just after a partition.
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
        found("one ZooKeeper server leads", ELECTION_PATIENCE, async || {
            self.leader().await
        })
        .await
    }

    /// Kills one server; its data stays.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts a killed server again with the data it had, and waits until it serves: not before two are there.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].start_again().await;
    }

    /// A session of its own, with whichever servers live, from where the first is.
    pub async fn registrar(&self) -> Registrar {
        self.servers[0].registrar_at(&self.hosts(), SESSION_TIMEOUT).await
    }
}
