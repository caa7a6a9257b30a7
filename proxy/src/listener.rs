//! The sockets that listen for components. Each accepted connection is passed to a worker.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use standin_daemon::listen;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::worker::Workers;

/// Accepts connections until the task is ended.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<SidecarState>, workers: Arc<Workers>) {
    let failed = || shared.metrics.connections_refused.increment("accept_error");
    loop {
        let (stream, component) = listen::accept(&listener, "connection", TcpStream::into_std, failed).await;
        admit(stream, component, &shared, &workers);
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
