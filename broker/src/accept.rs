//! Connections from outside: accepted, and those of clients shared out to the workers or refused.

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

/// Pause after an error of `accept` that would come again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts the next connection. What keeps it from being accepted is logged, as what could not be taken: `what`.
pub(crate) async fn accept(listener: &TcpListener, what: &str) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, plain(peer)),
            // The other side gave up while it waited: nothing to take.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => not_taken(what, &error).await,
        }
    }
}

async fn not_taken(what: &str, error: &io::Error) {
    warn!("cannot take a {what}: {error}; if files are short, raise the limit (ulimit -n)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Accepts clients and shares them out, for ever.
pub(crate) async fn clients(listener: TcpListener, shared: Arc<Shared>, workers: Vec<Sender<Newcomer>>) {
    let mut id = 0;
    loop {
        let (stream, peer) = accept(&listener, "connection").await;
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                not_taken("connection", &error).await;
                continue;
            }
        };
        if !shared.began() {
            let bound = shared.connections_bound();
            warn!(%peer, bound, "maximum connections exceeded; the connection is refused");
            refuse(stream);
            continue;
        }
        id += 1;
        let worker = &workers[shared.home(id)];
        if worker.send(Newcomer::Client { stream, peer, id }).await.is_err() {
            shared.ended();
            error!("a worker is gone; the connection is closed");
        }
    }
}

/// Says why, as far as the socket takes it at once, and closes.
fn refuse(mut stream: StdStream) {
    let mut line = Vec::new();
    encode::err(b"maximum connections exceeded", &mut line);
    // A client that cannot be told is refused all the same.
    let _ = io::Write::write_all(&mut stream, &line);
}
