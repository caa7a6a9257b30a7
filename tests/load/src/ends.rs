//! The two ends of a measurement with one publisher and one subscriber.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::Outcome;
use crate::connection::{Connection, publish};

/// Pause before [`reach`] publishes again.
const REACH_AGAIN: Duration = Duration::from_millis(20);

/// Addresses of the publisher and the subscriber.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Ends {
    /// Address to which the publisher connects.
    #[arg(long)]
    pub(crate) publisher: SocketAddr,
    /// Address to which the subscriber connects.
    #[arg(long)]
    pub(crate) subscriber: SocketAddr,
}

impl Ends {
    /// Returns the publisher and the subscriber of `subject`, once a message from the one has reached the other.
    pub(crate) fn connect(self, subject: &str) -> Outcome<(Connection, Connection)> {
        let mut subscriber = Connection::open(self.subscriber)?;
        subscriber.subscribe(subject)?;
        let mut publisher = Connection::open(self.publisher)?;
        reach(&mut publisher, &mut subscriber, subject)?;
        Ok((publisher, subscriber))
    }
}

/// Publishes until the subscriber receives a message. In a cluster the interest takes a moment to reach the publisher's node.
pub(crate) fn reach(publisher: &mut Connection, subscriber: &mut Connection, subject: &str) -> Outcome<()> {
    reach_again(publisher, subscriber, subject, REACH_AGAIN)
}

/// Does the same as [`reach`], but publishes again after `timeout` instead of [`REACH_AGAIN`].
pub(crate) fn reach_again(
    publisher: &mut Connection,
    subscriber: &mut Connection,
    subject: &str,
    timeout: Duration,
) -> Outcome<()> {
    let mut heard = false;
    while !heard {
        publisher.send(&publish(subject, None, b"first"))?;
        subscriber.receive_within(timeout, |_| heard = true)?;
    }
    publisher.send(&publish(subject, None, b"last"))?;
    let mut last = false;
    while !last {
        subscriber.receive(|message| last |= message.reply_and_payload().1 == b"last")?;
    }
    Ok(())
}
