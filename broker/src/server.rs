//! One running node: start, reload, lame duck mode, stop.

use std::future::{Future, pending};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use socket2::Socket;
use standin_daemon::http::PageAccess;
use standin_daemon::listen::{bind_dual_stack, bound_address, start};
use standin_daemon::settings::{changes, reloaded};
use standin_tls::files::TlsError;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::accept;
use crate::close_reason::CloseReason;
use crate::mesh::{Mesh, MeshError};
use crate::monitor;
use crate::settings::{ListenAddress, Settings, SettingsError};
use crate::shared::Shared;
use crate::worker::Worker;

/// The version of `nats-server` whose protocol and behaviour this server follows. Client libraries derive the server's features from it.
pub const VERSION: &str = "2.15.1";

/// Connections that may wait to be accepted on the mesh and HTTP sockets.
const BACKLOG: u32 = 128;

/// Errors of [`Server::start`].
#[derive(Debug, Error)]
pub enum RunError {
    /// A socket cannot be bound or cannot listen.
    #[error("cannot listen for {what} on {address}: {error}; give another address (-a) or port ({flag})")]
    Listen {
        /// `clients`, `other nodes` or `HTTP`.
        what: &'static str,
        /// The flag that sets the port.
        flag: &'static str,
        /// The configured address.
        address: ListenAddress,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A worker thread or its runtime cannot be started.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[source] io::Error),
    /// A file of TLS cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// A file that the settings name cannot be used.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The node cannot join the other nodes.
    #[error("cannot join the mesh: {0}")]
    Mesh(#[from] MeshError),
    /// The node was stopped while it was starting.
    #[error("stopped while starting")]
    Stopped,
}

impl RunError {
    /// Returns the stable name of the error, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Worker(_) => "worker",
            Self::Tls(_) => "tls",
            Self::Settings(_) => "settings",
            Self::Mesh(_) => "mesh",
            Self::Stopped => "stopped",
        }
    }
}

/// Sockets that already listen, for a program or a test that must know their addresses before the start.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub clients: Option<StdListener>,
    /// For other nodes.
    pub mesh: Option<StdListener>,
}

/// A running node. On drop it stops listening and closes its clients; [`Server::stop`] also waits until they are closed.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    http_address: Option<SocketAddr>,
    page_access: watch::Sender<PageAccess>,
    mesh: Option<Mesh>,
    accepting: Option<AbortHandle>,
    serving_http: Option<AbortHandle>,
    threads: Vec<JoinHandle<()>>,
    workers: Vec<Handle>,
}

impl Server {
    /// Starts a node, and returns when it accepts clients. A clustered node joins the other nodes first. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        Self::start_on(Sockets::default(), settings, pending()).await
    }

    /// Starts a node as [`start`](Self::start) does, on given sockets instead of the addresses of the settings. If `stop` returns while the
    /// node waits for other nodes, the node leaves the mesh and the result is [`RunError::Stopped`].
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start_on(
        sockets: Sockets,
        settings: Settings,
        stop: impl Future<Output = ()>,
    ) -> Result<Self, RunError> {
        let wanted = settings.listen();
        let clients_error = |error| listen_error("clients", "-p", &wanted, error);
        // Bound, so that the port is known and can be advertised, but not listening yet: no client may connect before the node has joined.
        let (socket, address) = match sockets.clients {
            Some(listener) => {
                let address = given_address(&listener, &wanted).map_err(clients_error)?;
                (Socket::from(listener), address)
            }
            None => bind(&wanted).map_err(clients_error)?,
        };
        let http = match settings.http_listen() {
            Some(wanted) => {
                let listening = bind_and_listen(&wanted);
                let flag = if settings.tls.http.is_on() { "-ms" } else { "-m" };
                Some(listening.map_err(|error| listen_error("HTTP", flag, &wanted, error))?)
            }
            None => None,
        };
        let (page_access, access) = watch::channel(settings.page_access()?);
        let backlog = settings.process.listen_backlog;
        let mesh = mesh_socket(sockets.mesh, &settings)?;
        let shared = Arc::new(Shared::new(settings, address)?);
        let mut server = Self {
            shared: Arc::clone(&shared),
            http_address: http.as_ref().map(|(_, address)| *address),
            page_access,
            mesh: None,
            accepting: None,
            serving_http: None,
            threads: Vec::new(),
            workers: Vec::new(),
        };
        let mut queues = Vec::new();
        for number in 0..shared.workers {
            let worker = Worker::start(number, &shared).map_err(RunError::Worker)?;
            queues.push(worker.newcomers);
            server.threads.push(worker.thread);
            server.workers.push(worker.runtime);
        }
        if let Some((listener, address)) = http {
            let is_tls = shared.settings.load().tls.http.is_on();
            let scheme = if is_tls { "https" } else { "http" };
            info!("Starting {scheme} monitor on {address}");
            let serving = tokio::spawn(monitor::serve(listener, Arc::clone(&shared), address, access));
            server.serving_http = Some(serving.abort_handle());
        }
        if let Some(listening) = mesh {
            let mesh = Mesh::start(&shared, listening, server.http_address, queues.clone())?;
            server.mesh = Some(mesh);
        }
        let joining = async {
            let Some(mesh) = &server.mesh else {
                return start(socket, backlog).map_err(clients_error);
            };
            let unreached = mesh.join(&[]).await?;
            mesh.reserve().await?;
            let listener = start(socket, backlog).map_err(clients_error)?;
            mesh.announce(&unreached).await?;
            Ok(listener)
        };
        let joined = tokio::select! {
            joined = joining => joined,
            () = stop => Err(RunError::Stopped),
        };
        let listener = match joined {
            Ok(listener) => listener,
            Err(error) => {
                drop(queues);
                server.stop().await;
                return Err(error);
            }
        };
        let accepting = tokio::spawn(accept::clients(listener, Arc::clone(&shared), queues));
        server.accepting = Some(accepting.abort_handle());
        shared.serving.store(true, Relaxed);
        if let Some(mesh) = &server.mesh {
            mesh.serve().await;
        }
        info!("Listening for client connections on {address}");
        Ok(server)
    }

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Returns the runtimes of the worker threads, for the watchdog.
    #[must_use]
    pub fn workers(&self) -> Vec<Handle> {
        self.workers.clone()
    }

    /// Returns the address of the monitoring pages, if they are served.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Returns the server id, which is new at each start.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.server_id
    }

    /// Returns the number of connected clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients.len()
    }

    /// Returns the number of subscriptions of clients of this node.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.interest.local.len()
    }

    /// Returns the address for other nodes, if the node is clustered.
    #[must_use]
    pub fn mesh_address(&self) -> Option<SocketAddr> {
        self.shared.mesh_address()
    }

    /// Applies new settings, also to connected clients. A setting that needs a restart keeps its value, and its change is logged as a
    /// warning.
    ///
    /// # Errors
    /// [`RunError`] if a file that the settings name cannot be used. Nothing is changed then.
    pub fn reload(&self, new: Settings) -> Result<(), RunError> {
        let access = new.page_access()?;
        let old = self.shared.settings.load();
        for change in changes(&**old, &new) {
            if change.needs_restart {
                warn!(%change, "setting change needs a restart");
            } else {
                info!(%change, "setting changed");
            }
        }
        self.shared.reload(reloaded(&**old, new))?;
        self.page_access.send_replace(access);
        Ok(())
    }

    /// Records for `/metrics` whether a reload of the settings succeeded.
    pub fn record_reload(&self, is_successful: bool) {
        self.shared.reload_failed.store(!is_successful, Relaxed);
    }

    /// Returns the settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    /// Waits until another live node holds this node's name in the mesh, and returns the text for the log. Other nodes then refuse routes
    /// with this node, so it must exit.
    pub async fn displaced(&self) -> String {
        match &self.mesh {
            Some(mesh) => mesh.displaced().await,
            None => pending().await,
        }
        let name = self.shared.server_name(&self.shared.settings.load()).to_owned();
        format!("another node with the id {name} is alive and holds the name")
    }

    /// Runs lame duck mode. The node's record shows `draining`, no more clients are accepted, and clients get INFO with `ldm` and time to
    /// leave. Then the record is deleted, and the remaining clients are closed one by one. Returns when it has begun to close the last
    /// one; [`Server::stop`] waits until that one is closed.
    pub async fn lame_duck(&self) {
        if let Some(mesh) = &self.mesh {
            mesh.drain().await;
        }
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.shared.set_lame_duck();
        let policy = self.shared.policy.load_full();
        let all_left = timeout(policy.lame_duck_grace, self.shared.all_clients_closed());
        let all_left = all_left.await.is_ok();
        // Sidecars have left because of the state `draining`. Other readers of the record may ignore the state, so the record is deleted.
        if let Some(mesh) = &self.mesh {
            mesh.unregister().await;
        }
        if all_left {
            return;
        }
        let clients = self.shared.clients.open();
        info!(
            clients = clients.len(),
            over_ms = policy.lame_duck.as_millis(),
            "closing clients"
        );
        let start = Instant::now();
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
        for (number, client) in (0..count).zip(&clients) {
            sleep_until(start + policy.lame_duck * number / count).await;
            client.outbox.close(CloseReason::Shutdown);
            if self.shared.clients.len() == 0 {
                break;
            }
        }
    }

    /// Stops listening, closes all clients and then the routes, and returns when all are closed.
    pub async fn stop(mut self) {
        let threads = std::mem::take(&mut self.threads);
        self.end();
        if let Some(mut mesh) = self.mesh.take() {
            mesh.unregister().await;
            // The last messages of clients must go over the routes before these are closed. Closing a client takes a bounded time.
            self.shared.all_clients_closed().await;
            mesh.leave().await;
        }
        // Each worker ends when its last client is closed. Closing a client takes a bounded time.
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("worker thread panicked");
                }
            }
        });
        if joined.await.is_err() {
            error!("cannot join the worker threads");
        }
    }

    fn end(&self) {
        self.shared.stopping.store(true, Relaxed);
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        if let Some(serving) = &self.serving_http {
            serving.abort();
        }
        self.shared.clients.close_all(CloseReason::Shutdown);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen_error(
    what: &'static str,
    flag: &'static str,
    address: &ListenAddress,
    error: io::Error,
) -> RunError {
    RunError::Listen {
        what,
        flag,
        address: address.clone(),
        error,
    }
}

/// Returns the address of a given socket. A socket for both families has the address `::` even if 0.0.0.0 is `wanted`.
fn given_address(listener: &StdListener, wanted: &ListenAddress) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        return Ok(SocketAddr::new(wanted.resolve()?.ip(), address.port()));
    }
    Ok(address)
}

fn mesh_socket(
    given: Option<StdListener>,
    settings: &Settings,
) -> Result<Option<(TcpListener, SocketAddr)>, RunError> {
    if let Some(listener) = given {
        let address = listener.local_addr().map_err(MeshError::Socket)?;
        return Ok(Some((
            start(listener.into(), BACKLOG).map_err(MeshError::Socket)?,
            address,
        )));
    }
    let wanted = settings.mesh_listen();
    let is_clustered = settings.is_clustered();
    let listening = is_clustered.then(|| bind_and_listen(&wanted)).transpose();
    listening.map_err(|error| listen_error("other nodes", "--cluster", &wanted, error))
}

/// Returns a socket bound to `wanted`, and its actual address.
fn bind(wanted: &ListenAddress) -> io::Result<(Socket, SocketAddr)> {
    let wanted = wanted.resolve()?;
    let socket = bind_dual_stack(wanted)?;
    let address = bound_address(&socket, wanted)?;
    Ok((socket, address))
}

fn bind_and_listen(wanted: &ListenAddress) -> io::Result<(TcpListener, SocketAddr)> {
    let (socket, address) = bind(wanted)?;
    Ok((start(socket, BACKLOG)?, address))
}
