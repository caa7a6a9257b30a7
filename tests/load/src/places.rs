//! The nodes to which publishers and subscribers connect: all to one server, or to nodes of a cluster.

use std::net::SocketAddr;

use clap::Args;

use crate::Outcome;
use crate::connection::Connection;
use crate::ends::reach;

/// Addresses of publishers and subscribers.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// Address to which all connect.
    #[arg(long, value_name = "ADDRESS", required_unless_present_all = ["publishers_at", "subscribers_at"])]
    server: Option<SocketAddr>,
    /// Addresses to which the publishers connect instead, in turn.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    publishers_at: Vec<SocketAddr>,
    /// Addresses to which the subscribers connect instead, in turn.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    subscribers_at: Vec<SocketAddr>,
}

impl Places {
    /// Returns the address of publisher `number`.
    pub(crate) fn publisher(&self, number: usize) -> SocketAddr {
        let places = self.publishers();
        places[number % places.len()]
    }

    /// Returns the address of subscriber `number`.
    pub(crate) fn subscriber(&self, number: usize) -> SocketAddr {
        let places = self.subscribers();
        places[number % places.len()]
    }

    /// Waits until the publishers' nodes have the interest of every subscription made before. Interest is sent in order, so a probe
    /// subscribes last and waits for a message.
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

/// Returns `places`, or the server if there are none. The command line requires one of them.
fn or_server<'a>(places: &'a [SocketAddr], server: &'a Option<SocketAddr>) -> &'a [SocketAddr] {
    if places.is_empty() {
        server.as_slice()
    } else {
        places
    }
}
