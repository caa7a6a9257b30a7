//! Where publishers and subscribers connect: all at one server, or at nodes of a cluster.

use std::net::SocketAddr;

use clap::Args;

use crate::Outcome;
use crate::connection::Connection;
use crate::flow::reach;

/// See the file's head.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// Where all connect.
    #[arg(long, value_name = "ADDRESS", required_unless_present_all = ["publishers_at", "subscribers_at"])]
    server: Option<SocketAddr>,
    /// Where the publishers connect instead, in turn.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    publishers_at: Vec<SocketAddr>,
    /// Where the subscribers connect instead, in turn.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    subscribers_at: Vec<SocketAddr>,
}

impl Places {
    /// Where publisher `number` connects.
    pub(crate) fn publisher(&self, number: usize) -> SocketAddr {
        let places = self.publishers();
        places[number % places.len()]
    }

    /// Where subscriber `number` connects.
    pub(crate) fn subscriber(&self, number: usize) -> SocketAddr {
        let places = self.subscribers();
        places[number % places.len()]
    }

    /// Waits until the publishers' nodes know of every subscription that has been made at the subscribers'. Interest travels
    /// in order: when one that was made later can be reached through a cluster, all can.
    pub(crate) fn wait_for_interest(&self, name: &str) -> Outcome<()> {
        for (number, &place) in self.subscribers().iter().enumerate() {
            for &other in self.publishers().iter().filter(|&&other| other != place) {
                let subject = format!("{name}.probe.{number}.{other}").replace([':', '[', ']'], "-");
                let mut probe = Connection::open(place)?;
                probe.subscribe(&subject)?;
                reach(&mut Connection::open(other)?, &mut probe, &subject)?;
            }
        }
        Ok(())
    }

    fn publishers(&self) -> &[SocketAddr] {
        or_server(&self.publishers_at, &self.server)
    }

    fn subscribers(&self) -> &[SocketAddr] {
        or_server(&self.subscribers_at, &self.server)
    }
}

/// Without places of their own they are at the server, which is there then.
fn or_server<'a>(places: &'a [SocketAddr], server: &'a Option<SocketAddr>) -> &'a [SocketAddr] {
    if places.is_empty() {
        server.as_slice()
    } else {
        places
    }
}
