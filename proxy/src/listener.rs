//! The sockets that listen for components. Each accepted connection is passed to a worker. A connection from a load balancer first has
//! to send its PROXY protocol header.

mod pending_headers;

use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use standin_daemon::admission::Refusal;
use standin_daemon::listen;
use standin_daemon::unix_socket::UnixSocket;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::peer::Peer;
use crate::rest::Phase;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::worker::{AcceptedConnection, Workers};
use pending_headers::{PendingHeaders, Received};

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

    /// Returns the file of a Unix socket, if the sidecar has made it.
    pub(crate) fn own_file(&self) -> Option<PathBuf> {
        match &self.socket {
            ListenSocket::Unix(socket) if socket.owns_file() => Some(socket.path().to_owned()),
            _ => None,
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

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.as_fd(),
            ListenSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Accepts connections until the task is ended.
pub(crate) async fn serve(listener: Listener, shared: Arc<SidecarState>, workers: Arc<Workers>) {
    let failed = || shared.metrics.connections_refused.increment("accept_error");
    let (mut pending, mut counted) = (PendingHeaders::default(), 0);
    let mut phases = shared.rest.phases();
    loop {
        let phase = *phases.borrow_and_update();
        let accepted = tokio::select! {
            accepted = listener.accept(failed), if phase == Phase::Open => expect_header(accepted, listener.number, &mut pending, &shared),
            Some((balancer, received)) = pending.next(), if phase != Phase::Closed => received_header(balancer, received, &shared),
            // The next program is about to replace this one, or was refused. The sender lives as long as this task.
            _ = phases.changed() => None,
        };
        shared.rest.count_pending_headers(counted, pending.len());
        counted = pending.len();
        if let Some((stream, component)) = accepted {
            admit(stream, listener.number, component, &shared, &workers);
        }
    }
}

/// Returns an accepted connection. If its listener expects a PROXY protocol header, adds the connection to `pending` instead. Closes it
/// if this peer may not connect.
fn expect_header(
    (stream, peer): (StdStream, Peer),
    listener: usize,
    pending: &mut PendingHeaders,
    shared: &SidecarState,
) -> Option<(StdStream, Peer)> {
    let policy = shared.policy.load();
    let policy = &policy.listeners[listener];
    if !policy.allows(&peer) {
        shared.metrics.connections_refused.increment("peer");
        warn!(component = %peer, "connection refused: uids, gids or proxy_protocol_from of the listener do not have this peer");
        return None;
    }
    let Peer::Tcp(balancer) = peer else {
        return Some((stream, peer));
    };
    if !policy.expects_proxy_header() {
        return Some((stream, peer));
    }
    let limits = shared.settings.load().admission();
    let places = limits.connections_max.saturating_sub(shared.sessions.len());
    if pending.add(stream, balancer, places.clamp(1, limits.half_open_max.max(1))) {
        shared
            .metrics
            .connections_refused
            .increment(Refusal::Evicted.as_str());
        warn!(%balancer, "too many connections without a PROXY protocol header; the oldest is closed");
    }
    None
}

/// Returns a connection whose PROXY protocol header is complete, with the client that the header names, or else the balancer. Logs why
/// there is no connection.
fn received_header(
    balancer: SocketAddr,
    received: Received,
    shared: &SidecarState,
) -> Option<(StdStream, Peer)> {
    match received {
        Ok(Some((stream, addresses))) => Some((stream, addresses.map_or(Peer::Tcp(balancer), Peer::Proxied))),
        Ok(None) => {
            debug!(%balancer, "load balancer closed its connection without a PROXY protocol header");
            None
        }
        Err(error) => {
            shared.metrics.connections_refused.increment("proxy_header");
            warn!(%balancer, "connection refused: {error}; the listener has proxy_protocol_from");
            None
        }
    }
}

/// Creates the session of an accepted connection. Closes the connection at a limit.
fn admit(stream: StdStream, listener: usize, component: Peer, shared: &SidecarState, workers: &Workers) {
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
    workers.take(AcceptedConnection {
        stream,
        session,
        former: None,
    });
}
