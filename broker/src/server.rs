//! One node as a value: started from settings, reloaded, made a lame duck, stopped.

use std::future::{Future, pending};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use socket2::Socket;
use standin_daemon::listen::{bind_dual_stack, bound_address};
use standin_daemon::settings::{Effect, changes, reloaded};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::accept;
use crate::closing::Reason;
use crate::mesh::{Mesh, MeshError};
use crate::monitor;
use crate::settings::{ListenAddress, Settings};
use crate::shared::Shared;
use crate::worker::Worker;

/// The version of `nats-server` whose protocol and behaviour this follows: client libraries decide by it what a server can do.
pub const VERSION: &str = "2.15.1";

/// Why a node cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// An address cannot be had.
    #[error("cannot listen for {what} on {address}: {error}; give another address (-a) or port ({flag})")]
    Listen {
        /// `clients`, `other nodes` or `HTTP`.
        what: &'static str,
        /// The flag of its port.
        flag: &'static str,
        /// What was asked for.
        address: ListenAddress,
        /// What the system said.
        error: io::Error,
    },
    /// No thread, or no event queue for one.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// It cannot be one of several.
    #[error("cannot join the mesh: {0}")]
    Mesh(#[from] MeshError),
    /// It was told to stop before it served.
    #[error("stopped before it served")]
    Stopped,
}

impl RunError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Worker(_) => "worker",
            Self::Mesh(_) => "mesh",
            Self::Stopped => "stopped",
        }
    }
}

/// Sockets that listen already, for a program or a test that must know their addresses before.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub clients: Option<StdListener>,
    /// For other nodes.
    pub mesh: Option<StdListener>,
}

/// A running node. Dropped, it stops listening and closes its clients; [`Server::stop`] also waits for them.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    http_address: Option<SocketAddr>,
    mesh: Option<Mesh>,
    accepting: Option<AbortHandle>,
    serving_http: Option<AbortHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a node, and returns when it serves: one of several first joins the others. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        Self::start_on(Sockets::default(), settings, pending()).await
    }

    /// As [`start`](Self::start), on sockets that listen already; the settings are not asked for those. It may wait for other nodes, until
    /// `stop` returns; then it leaves them in order.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start_on(
        sockets: Sockets,
        settings: Settings,
        stop: impl Future<Output = ()>,
    ) -> Result<Self, RunError> {
        let wanted = settings.listen();
        let listen_error = |error| refused("clients", "-p", &wanted, error);
        // Bound, so that others can be told the port, but nobody is let in yet.
        let (socket, address) = match sockets.clients {
            Some(listener) => {
                let address = listener.local_addr().map_err(listen_error)?;
                (Socket::from(listener), address)
            }
            None => bind(&wanted).map_err(listen_error)?,
        };
        let http = settings.http_listen().as_ref().map(listen_for_http).transpose()?;
        let backlog = settings.process.listen_backlog;
        let mesh = mesh_socket(sockets.mesh, &settings)?;
        let shared = Arc::new(Shared::new(settings, address));
        let mut server = Self {
            shared: Arc::clone(&shared),
            http_address: http.as_ref().map(|(_, address)| *address),
            mesh: None,
            accepting: None,
            serving_http: None,
            threads: Vec::new(),
        };
        let mut queues = Vec::new();
        for number in 0..shared.workers {
            let worker = Worker::start(number, &shared).map_err(RunError::Worker)?;
            queues.push(worker.newcomers);
            server.threads.push(worker.thread);
        }
        if let Some((listener, address)) = http {
            info!("Starting http monitor on {address}");
            let serving = tokio::spawn(monitor::serve(listener, Arc::clone(&shared), address));
            server.serving_http = Some(serving.abort_handle());
        }
        if let Some(listening) = mesh {
            let mesh = Mesh::start(&shared, listening, server.http_address, queues.clone())?;
            server.mesh = Some(mesh);
        }
        let joining = async {
            let Some(mesh) = &server.mesh else {
                return listen(&socket, backlog).map_err(listen_error);
            };
            let unheard = mesh.join(&[]).await?;
            mesh.reserve().await?;
            let listener = listen(&socket, backlog).map_err(listen_error)?;
            mesh.announce(&unheard).await?;
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

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Where the pages are served.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Its id, new at each start.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.server_id
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients.len()
    }

    /// How many subscriptions of clients there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.interest.local.len()
    }

    /// Where other nodes connect.
    #[must_use]
    pub fn mesh_address(&self) -> Option<SocketAddr> {
        self.shared.mesh_address()
    }

    /// How many other nodes it is linked with.
    #[must_use]
    pub fn links(&self) -> usize {
        self.shared.interest.links.load().len()
    }

    /// Other settings from now on, for connected clients as well; what needs a restart stays and is told.
    pub fn reload(&self, new: Settings) {
        let old = self.shared.settings.load();
        for change in changes(&**old, &new) {
            match change.effect {
                Effect::Now => info!(%change, "setting changed"),
                Effect::Restart => warn!(%change, "setting change needs a restart"),
            }
        }
        self.shared.reload(reloaded(&**old, new));
    }

    /// Returns, with what is to be told, when another node with the same id has this one's place in the mesh, and the node is of no use any more:
    /// no other node links with it.
    pub async fn displaced(&self) -> String {
        match &self.mesh {
            Some(mesh) => mesh.displaced().await,
            None => pending().await,
        }
        let name = self.shared.server_name(&self.shared.settings.load()).to_owned();
        format!("another node with the id {name} is alive and has this one's place")
    }

    /// Lame duck: the node's record shows `draining`, no client is accepted any more, clients are told and given time to
    /// leave. Then the record is deleted, and the clients still there are closed one by one. Returns when the last is told to go; [`Server::stop`] waits for them.
    pub async fn lame_duck(&self) {
        if let Some(mesh) = &self.mesh {
            mesh.drain().await;
        }
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.shared.set_lame_duck();
        let policy = self.shared.policy.load_full();
        let all_left = timeout(policy.lame_duck_grace, self.shared.none_left());
        let all_left = all_left.await.is_ok();
        // Sidecars have left by now. Other readers of the record do not know states, and would still come.
        if let Some(mesh) = &self.mesh {
            mesh.unregister().await;
        }
        if all_left {
            return;
        }
        let clients = self.shared.clients.open();
        info!("closing clients={} over {:?}", clients.len(), policy.lame_duck);
        let start = Instant::now();
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
        for (number, client) in (0..count).zip(&clients) {
            sleep_until(start + policy.lame_duck * number / count).await;
            client.outbox.close(Reason::Shutdown);
            if self.shared.clients.len() == 0 {
                break;
            }
        }
    }

    /// Stops listening, closes all clients, then the links, and returns when the last is gone.
    pub async fn stop(mut self) {
        let threads = std::mem::take(&mut self.threads);
        self.end();
        if let Some(mut mesh) = self.mesh.take() {
            mesh.unregister().await;
            // What clients said last goes over the links before they end; each client is closed in a bounded time.
            self.shared.none_left().await;
            mesh.leave().await;
        }
        // The workers end with their last clients, each of which is closed in a bounded time.
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a worker ended by a bug");
                }
            }
        });
        if joined.await.is_err() {
            error!("the workers could not be waited for");
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
        self.shared.clients.close_all(Reason::Shutdown);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn refused(what: &'static str, flag: &'static str, address: &ListenAddress, error: io::Error) -> RunError {
    RunError::Listen {
        what,
        flag,
        address: address.clone(),
        error,
    }
}

fn listen_for_http(wanted: &ListenAddress) -> Result<(TcpListener, SocketAddr), RunError> {
    let listen = || {
        let (socket, address) = bind(wanted)?;
        Ok((listen(&socket, 128)?, address))
    };
    listen().map_err(|error| refused("HTTP", "-m", wanted, error))
}

fn mesh_socket(
    given: Option<StdListener>,
    settings: &Settings,
) -> Result<Option<(StdListener, SocketAddr)>, RunError> {
    if let Some(listener) = given {
        let address = listener.local_addr().map_err(MeshError::Socket)?;
        return Ok(Some((listener, address)));
    }
    if !settings.is_clustered() {
        return Ok(None);
    }
    let wanted = settings.mesh_listen();
    let listener = || {
        let (socket, address) = bind(&wanted)?;
        socket.listen(128)?;
        Ok((StdListener::from(socket), address))
    };
    listener()
        .map(Some)
        .map_err(|error| refused("other nodes", "--cluster", &wanted, error))
}

/// A socket bound to `wanted`, and the address that it has.
fn bind(wanted: &ListenAddress) -> io::Result<(Socket, SocketAddr)> {
    let wanted = wanted.resolve()?;
    let socket = bind_dual_stack(wanted)?;
    let address = bound_address(&socket, wanted)?;
    Ok((socket, address))
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let listener = StdListener::from(socket.try_clone()?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
