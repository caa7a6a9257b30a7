//! Connections of load balancers whose PROXY protocol header is not complete. Their number is limited: the oldest one is closed for a
//! new one. They have no session yet, because the session shows the client that the header names.

use std::net::{SocketAddr, TcpStream as StdStream};

use standin_daemon::half_open::HalfOpen;
use tokio::task::{AbortHandle, JoinSet};

use crate::proxy_header::{self, Addresses, ProxyHeaderError};

/// Result of [`proxy_header::receive`].
pub(super) type Received = Result<Option<(StdStream, Option<Addresses>)>, ProxyHeaderError>;

/// Connections whose header is not complete. Dropping it closes them.
#[derive(Default)]
pub(super) struct PendingHeaders {
    tasks: JoinSet<(u64, SocketAddr, Received)>,
    by_number: HalfOpen<AbortHandle>,
    next_number: u64,
}

impl PendingHeaders {
    /// Adds a connection from `balancer`. If there are more than `max` then, closes the oldest and returns `true`.
    pub(super) fn add(&mut self, stream: StdStream, balancer: SocketAddr, max: usize) -> bool {
        self.next_number += 1;
        let number = self.next_number;
        let reading = async move { (number, balancer, proxy_header::receive(stream).await) };
        let task = self.tasks.spawn(reading);
        let oldest = self.by_number.add(number, task, max);
        oldest.map(|oldest| oldest.abort()).is_some()
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until the header of a connection is complete, or cannot become so. Returns the balancer and the connection; `None` if there
    /// are no connections. Dropping the future loses no connection.
    pub(super) async fn next(&mut self) -> Option<(SocketAddr, Received)> {
        loop {
            match self.tasks.join_next().await? {
                Ok((number, balancer, received)) => {
                    self.by_number.remove(number);
                    return Some((balancer, received));
                }
                // Its task was ended for a newer one.
                Err(_) => self.by_number.retain(|task| !task.is_finished()),
            }
        }
    }
}
