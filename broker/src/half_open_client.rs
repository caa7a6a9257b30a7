//! A client that has not logged in yet, as the [admission](standin_daemon::admission) of the node keeps it.

use std::net::SocketAddr;

use tokio::task::AbortHandle;

/// A client that has not logged in yet.
#[derive(Debug)]
pub(crate) struct HalfOpenClient {
    pub(crate) peer: SocketAddr,
    /// The task that serves the client; `None` while the connection waits for its worker. Aborting it closes the connection.
    pub(crate) task: Option<AbortHandle>,
}
