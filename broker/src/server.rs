//! One node as a value: started from settings, reloaded, made a lame duck, stopped.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, Socket, Type};
use standin_daemon::settings::{Effect, changes, reloaded};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::closing::Reason;
use crate::monitor;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::worker;

/// The version of `nats-server` whose protocol and behaviour this follows: client libraries decide by it what a server can do.
pub const VERSION: &str = "2.15.1";

/// Why a node cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// An address cannot be had.
    #[error("cannot listen for {what} on {address}: {error}; give another address (-a) or port ({flag})")]
    Listen {
        /// `clients` or `HTTP`.
        what: &'static str,
        /// The flag of its port.
        flag: &'static str,
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// No thread, or no event queue for one.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
}

impl RunError {
    /// Stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Worker(_) => "worker",
        }
    }
}

/// A running node. Dropped, it stops listening and closes its clients; [`Server::stop`] also waits for them.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    http_address: Option<SocketAddr>,
    accepting: AbortHandle,
    serving_http: Option<AbortHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves from then on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start(settings: Settings) -> Result<Self, RunError> {
        let address = settings.listen();
        let backlog = settings.process.listen_backlog;
        let listener = bind(address, backlog).map_err(|error| refused("clients", "-p", address, error))?;
        Self::start_on(listener, settings)
    }

    /// As [`start`](Self::start), on a socket for clients that listens already; the settings are not asked for that.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start_on(listener: StdListener, settings: Settings) -> Result<Self, RunError> {
        let wanted = settings.listen();
        let listen_error = |error| refused("clients", "-p", wanted, error);
        let http = settings.http_listen().map(listen_for_http).transpose()?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let listener = TcpListener::from_std(listener).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let shared = Arc::new(Shared::new(settings, address));
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for number in 0..shared.workers {
            let (queue, thread) = worker::start(number, &shared).map_err(RunError::Worker)?;
            queues.push(queue);
            threads.push(thread);
        }
        let http_address = http.as_ref().map(|(_, address)| *address);
        let serving_http = http.map(|(listener, address)| {
            info!("Starting http monitor on {address}");
            tokio::spawn(monitor::serve(listener, Arc::clone(&shared), address)).abort_handle()
        });
        let accepting = tokio::spawn(worker::accept(listener, Arc::clone(&shared), queues)).abort_handle();
        info!("Listening for client connections on {address}");
        Ok(Self {
            shared,
            http_address,
            accepting,
            serving_http,
            threads,
        })
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

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.shared.subscriptions.len()
    }

    /// Other settings from now on, for connected clients as well; what needs a restart stays and is told.
    pub fn reload(&self, new: Settings) {
        let old = self.shared.settings.load();
        for change in changes(&**old, &new) {
            match change.effect {
                Effect::Now => info!("setting changed: {change}"),
                Effect::Restart => warn!("setting needs a restart to change: {change}"),
            }
        }
        self.shared.reload(reloaded(&**old, new));
    }

    /// Lame duck: nobody is taken any more, clients are told and given time to go, then those still there are closed one by
    /// one. Returns when the last is told to go; [`Server::stop`] waits for them.
    pub async fn lame_duck(&self) {
        self.accepting.abort();
        self.shared.set_lame_duck();
        let policy = self.shared.policy.load_full();
        if timeout(policy.lame_duck_grace, self.shared.none_left())
            .await
            .is_ok()
        {
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

    /// Stops listening, closes all clients, and returns when the last is gone.
    pub async fn stop(mut self) {
        let threads = std::mem::take(&mut self.threads);
        self.end();
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
        self.accepting.abort();
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

fn refused(what: &'static str, flag: &'static str, address: SocketAddr, error: io::Error) -> RunError {
    RunError::Listen {
        what,
        flag,
        address,
        error,
    }
}

fn listen_for_http(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let listen = || {
        let listener = bind(address, 128)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|error| refused("HTTP", "-m", address, error))
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
