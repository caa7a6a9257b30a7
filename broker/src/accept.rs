//! Accepts connections. Those of clients are assigned to a worker, or refused above the limit.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use standin_daemon::listen::plain;
use standin_wire::encode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tracing::{error, warn};

use crate::shared::Shared;
use crate::worker::Newcomer;

/// Pause after an error of `accept` that would repeat at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts the next connection. Logs errors and retries; `what` is the kind of connection that the log names.
pub(crate) async fn accept(listener: &TcpListener, what: &str) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, plain(peer)),
            // The peer closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => accept_failed(what, &error).await,
        }
    }
}

async fn accept_failed(what: &str, error: &io::Error) {
    warn!("cannot accept a {what}: {error}; when out of file descriptors, raise the limit (ulimit -n)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Accepts clients and assigns them to workers, until the task is aborted.
pub(crate) async fn clients(listener: TcpListener, shared: Arc<Shared>, workers: Vec<Sender<Newcomer>>) {
    let mut id = 0;
    loop {
        let (stream, peer) = accept(&listener, "connection").await;
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                accept_failed("connection", &error).await;
                continue;
            }
        };
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
