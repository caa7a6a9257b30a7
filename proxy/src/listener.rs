//! The sockets that listen for components. Each accepted connection is passed to a worker.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use standin_daemon::admission::Refusal;
use standin_daemon::listen;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::session_command::SessionCommand;
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

/// Creates the session of an accepted connection, or closes the connection at a limit.
fn admit(stream: StdStream, component: SocketAddr, shared: &SidecarState, workers: &Workers) {
    let settings = shared.settings.load();
    let (limit, limits, connected) = (
        settings.connections(),
        settings.admission(),
        shared.sessions.len(),
    );
    let _ = shared
        .near_limit
        .look(limit, limits.connections_max, connected + 1);
    let id = shared.session_ids.fetch_add(1, Relaxed) + 1;
    let session = Arc::new(SessionInfo::new(id, component));
    let admitted = shared
        .admission
        .admit(id, component.ip(), Arc::clone(&session), connected, limits);
    match admitted {
        Ok(None) => {}
        Ok(Some(evicted)) => {
            shared
                .metrics
                .connections_refused
                .increment(Refusal::Evicted.as_str());
            warn!(component = %evicted.component, "too many connections without CONNECT; the oldest is closed");
            evicted.send(SessionCommand::Evict);
        }
        Err(refusal) => {
            let reason = refusal.as_str();
            shared.metrics.connections_refused.increment(reason);
            let bound = limit.bound(limits.connections_max);
            warn!(%component, reason, connected, bound, "connection refused: too many components are connected");
            // Closed without an `-ERR`: some client libraries would not reconnect after it, and there may be room soon.
            return;
        }
    }
    shared.sessions.insert(Arc::clone(&session));
    workers.take((stream, session));
}
