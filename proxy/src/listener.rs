//! The sockets that listen for components. Each accepted connection is passed to a worker.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use standin_daemon::admission::Refusal;
use standin_daemon::listen;
use standin_daemon::unix_socket::UnixSocket;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::peer::Peer;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::worker::Workers;

/// A socket that listens for components.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Place of its settings in [`Policy::listeners`](crate::policy::Policy::listeners).
    pub(crate) number: usize,
    pub(crate) socket: ListenSocket,
}

#[derive(Debug)]
pub(crate) enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Listener {
    /// Returns the address of a TCP socket.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.local_addr().ok(),
            ListenSocket::Unix(_) => None,
        }
    }

    /// Returns the address for the log.
    pub(crate) fn address(&self) -> String {
        match &self.socket {
            ListenSocket::Tcp(_) => self
                .tcp_address()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            ListenSocket::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    async fn accept(&self, failed: impl Fn()) -> (StdStream, Peer) {
        let kind = "connection";
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                let (stream, peer) = listen::accept(listener, kind, TcpStream::into_std, failed).await;
                (stream, peer.into())
            }
            ListenSocket::Unix(socket) => {
                let (stream, peer) = socket.accept(kind, failed).await;
                (stream, peer.into())
            }
        }
    }
}

/// Accepts connections until the task is ended.
pub(crate) async fn serve(listener: Listener, shared: Arc<SidecarState>, workers: Arc<Workers>) {
    let failed = || shared.metrics.connections_refused.increment("accept_error");
    loop {
        let (stream, component) = listener.accept(failed).await;
        admit(stream, listener.number, component, &shared, &workers);
    }
}

/// Creates the session of an accepted connection. Closes the connection at a limit, or if this peer may not connect.
fn admit(stream: StdStream, listener: usize, component: Peer, shared: &SidecarState, workers: &Workers) {
    if !shared.policy.load().listeners[listener].allows(&component) {
        shared.metrics.connections_refused.increment("peer");
        warn!(%component, "connection refused: neither uids nor gids of the listener have this peer");
        return;
    }
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
    let session = Arc::new(SessionInfo::new(id, listener, component));
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
