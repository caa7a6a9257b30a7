//! The sockets that listen for components. Each accepted connection is passed to a worker.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use standin_daemon::listen;
use tokio::net::TcpListener;
use tracing::warn;

use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::worker::Workers;

/// Pause after an error of `accept` that would occur again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens a listening socket. Must be called inside a tokio runtime.
pub(crate) fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = listen::bind(address)?;
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(StdListener::from(socket))
}

/// Accepts connections until the task is ended.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<SidecarState>, workers: Arc<Workers>) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, component)| Ok((stream.into_std()?, component))) {
            Ok((stream, component)) => admit(stream, listen::plain(component), &shared, &workers),
            // The component closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                shared.metrics.connections_refused.increment("accept_error");
                warn!(
                    "cannot accept a connection: {error}; if file descriptors are exhausted, raise the limit (ulimit -n)"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Creates the session of an accepted connection, or closes the connection at the limit.
fn admit(stream: StdStream, component: SocketAddr, shared: &SidecarState, workers: &Workers) {
    let limit = shared.settings.load().connections();
    let (connections_max, connected) = (limit.that_fit(), shared.sessions.len());
    let _ = shared.near_limit.look(limit, connections_max, connected + 1);
    if connected >= connections_max {
        let bound = limit.bound(connections_max);
        shared.metrics.connections_refused.increment("connections_max");
        warn!(%component, connections_max, bound, "connection refused: too many components are connected");
        // Closed without an `-ERR`: some client libraries would not reconnect after it, and there may be room soon.
        return;
    }
    let id = shared.session_ids.fetch_add(1, Relaxed) + 1;
    let session = Arc::new(SessionInfo::new(id, component));
    shared.sessions.insert(Arc::clone(&session));
    workers.take((stream, session));
}
