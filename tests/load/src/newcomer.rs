//! Messages through a node that is just starting to subscribers on other nodes.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::connection::Connection;
use crate::flow::reach_again;

/// Pause before another attempt to connect, and before another message to a subscriber.
const AGAIN: Duration = Duration::from_millis(2);
/// Timeout for the node to accept a client.
const START_MAX: Duration = Duration::from_secs(60);

/// Publishes to each subject through the node, as soon as that accepts clients, until the subscriber with that index has received a
/// message.
pub(crate) fn reach_through(
    node: SocketAddr,
    subscribers: &mut [Connection],
    subjects: impl Iterator<Item = (usize, String)>,
) -> Outcome<()> {
    let mut publisher = open(node)?;
    for (subscriber, subject) in subjects {
        reach_again(&mut publisher, &mut subscribers[subscriber], &subject, AGAIN)?;
    }
    Ok(())
}

fn open(node: SocketAddr) -> io::Result<Connection> {
    let started = Instant::now();
    loop {
        match Connection::open(node) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && started.elapsed() < START_MAX =>
            {
                thread::park_timeout(AGAIN);
            }
            opened => return opened,
        }
    }
}
