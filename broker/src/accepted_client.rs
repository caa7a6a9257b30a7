//! An accepted connection of a client. The node has it in its counts and tables until it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::close_reason::CloseReason;
use crate::shared::Shared;

/// An accepted connection. Dropping it removes the connection from the counts and tables of the node, however its task ends, even
/// if the task is aborted because the client was evicted.
#[derive(Debug)]
pub(crate) struct AcceptedClient {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: SocketAddr,
    pub(crate) id: u64,
}

impl Drop for AcceptedClient {
    fn drop(&mut self) {
        // Does nothing if the client was removed already, with the reason of its end.
        self.shared.clients.remove(self.id, CloseReason::Evicted, 0);
        self.shared.connection_closed(self.id, self.peer);
    }
}
