//! Three real ZooKeeper servers with an elected leader, so that a test can kill one of them.

use crate::condition::found;
use crate::port::{free_address, free_port};
use crate::zookeeper::{Membership, ZooKeeper};
use std::fmt::Write as _;
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
        let mut settings = TIMES.to_owned();
        for number in 1..=SIZE {
            let (quorum, election) = (free_port(), free_port());
            let _ = writeln!(settings, "server.{number}=127.0.0.1:{quorum}:{election}");
        }
        let server = |number: usize| {
            let membership = Membership {
                number,
                settings: settings.clone(),
            };
            ZooKeeper::described(free_address(), None, Some(membership))
        };
        let mut ensemble = Self {
            servers: (1..=SIZE).map(server).collect(),
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
