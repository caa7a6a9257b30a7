//! Accepts the connections of clients and assigns them to workers, or refuses them above the limit.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;

use standin_daemon::listen;
use standin_wire::encode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tracing::{error, warn};

use crate::shared::Shared;
use crate::worker::Newcomer;

/// Accepts clients and assigns them to workers, until the task is aborted.
pub(crate) async fn clients(listener: TcpListener, shared: Arc<Shared>, workers: Vec<Sender<Newcomer>>) {
    let mut id = 0;
    loop {
        let (stream, peer) = listen::accept(&listener, "connection", TcpStream::into_std, || ()).await;
        if !shared.connection_accepted() {
            let bound = shared.connections_bound();
            warn!(%peer, bound, "maximum connections exceeded; the connection is refused");
            refuse(stream);
            continue;
        }
        id += 1;
        let worker = &workers[shared.worker_of(id)];
        if worker.send(Newcomer::Client { stream, peer, id }).await.is_err() {
            shared.connection_closed();
            error!("worker ended; the connection is closed");
        }
    }
}

/// Sends the `-ERR`, as much of it as the socket accepts without waiting, and closes the connection.
fn refuse(mut stream: StdStream) {
    let mut line = Vec::new();
    encode::err(b"maximum connections exceeded", &mut line);
    // The client is refused even if the `-ERR` cannot be sent.
    let _ = io::Write::write_all(&mut stream, &line);
}
