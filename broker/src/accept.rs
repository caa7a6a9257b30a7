//! Accepts the connections of clients and assigns them to workers, or refuses them above a limit.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;

use standin_daemon::admission::Refusal;
use standin_daemon::listen;
use standin_wire::encode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tracing::{error, warn};

use crate::accepted_client::AcceptedClient;
use crate::shared::Shared;
use crate::worker::Newcomer;

/// Accepts clients and assigns them to workers, until the task is aborted.
pub(crate) async fn clients(listener: TcpListener, shared: Arc<Shared>, workers: Vec<Sender<Newcomer>>) {
    let mut id = 0;
    loop {
        let (stream, peer) = listen::accept(&listener, "connection", TcpStream::into_std, || ()).await;
        id += 1;
        match shared.admit(id, peer) {
            Ok(None) => {}
            Ok(Some(evicted)) => {
                warn!(peer = %evicted.peer, "too many connections before login; the oldest is closed");
                if let Some(task) = evicted.task {
                    task.abort();
                }
            }
            Err(refusal) => {
                log_refusal(refusal, peer, &shared);
                refuse(stream);
                continue;
            }
        }
        let client = AcceptedClient {
            shared: Arc::clone(&shared),
            peer,
            id,
        };
        let worker = &workers[shared.worker_of(id)];
        if worker.send(Newcomer::Client { stream, client }).await.is_err() {
            error!("worker ended; the connection is closed");
        }
    }
}

fn log_refusal(refusal: Refusal, peer: SocketAddr, shared: &Shared) {
    let bound = match refusal {
        Refusal::AddressConnectionsMax => "limits.max_address_connections",
        Refusal::AddressConnectsMax => "limits.max_address_connects_per_second",
        Refusal::ConnectionsMax | Refusal::Evicted => shared.connections_bound(),
    };
    warn!(%peer, bound, "maximum connections exceeded; the connection is refused");
}

/// Sends the `-ERR`, as much of it as the socket accepts without waiting, and closes the connection.
fn refuse(mut stream: StdStream) {
    let mut line = Vec::new();
    encode::err(b"maximum connections exceeded", &mut line);
    // The client is refused even if the `-ERR` cannot be sent.
    let _ = io::Write::write_all(&mut stream, &line);
}
