//! One node: its listener, its workers, what they share; start and stop.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use standin_wire::{Info, encode};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tracing::{debug, error, info, warn};

use crate::client::Client;
use crate::closing::Reason;
use crate::identity;
use crate::outbox::Outbox;
use crate::settings::Settings;
use crate::subscriptions::Subscriptions;
use crate::task;

/// The version of `nats-server` whose protocol and behaviour this follows: client libraries decide by it what a server can do.
pub const VERSION: &str = "2.15.1";
/// Connections waiting to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 1024;
/// Pause after an error of `accept` that would come again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a node cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The address for clients cannot be had.
    #[error("cannot listen for clients on {address}: {error}; give another address (-a) or port (-p)")]
    Listen {
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

/// The clients that are connected.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_id: Mutex<HashMap<u64, Arc<Outbox>>>,
    none_left: Notify,
}

impl Clients {
    pub(crate) fn insert(&self, outbox: Arc<Outbox>) {
        self.lock().insert(outbox.id, outbox);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn close_all(&self, reason: Reason) {
        self.lock().values().for_each(|outbox| outbox.close(reason));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Outbox>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) workers: usize,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) clients: Clients,
    pub(crate) slow_consumers: AtomicU64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    server_id: String,
    stopping: AtomicBool,
    /// Clients in all stages, from the accepted connection to the closed one.
    live: AtomicU64,
}

impl Shared {
    /// INFO for the client with this number.
    pub(crate) fn info(&self, client_id: u64, peer: SocketAddr, local: Option<SocketAddr>) -> String {
        let name = &self.settings.server_name;
        let listen = self.settings.listen;
        let info = Info {
            server_id: self.server_id.clone(),
            server_name: if name.is_empty() { &self.server_id } else { name }.clone(),
            version: VERSION.to_owned(),
            proto: 1,
            host: listen.ip().to_string(),
            port: local.map_or(listen.port(), |local| local.port()),
            headers: true,
            auth_required: self.settings.access.is_required(),
            max_payload: self.settings.payload_bytes_max as i64,
            client_id,
            client_ip: peer.ip().to_string(),
            ..Info::default()
        };
        info.line()
    }

    /// Adds what the client has sent since last asked.
    pub(crate) fn count_in(&self, client: &mut Client) {
        self.messages_in
            .fetch_add(std::mem::take(&mut client.messages_in), Relaxed);
        self.bytes_in
            .fetch_add(std::mem::take(&mut client.bytes_in), Relaxed);
    }

    fn ended(&self) {
        if self.live.fetch_sub(1, Relaxed) == 1 {
            self.clients.none_left.notify_waiters();
        }
    }
}

/// A connection just taken.
struct Newcomer {
    stream: StdStream,
    peer: SocketAddr,
    id: u64,
}

/// A running node. Dropped, it stops listening and closes its clients; [`Server::stop`] also waits for them.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: AbortHandle,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves from then on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start(settings: Settings) -> Result<Self, RunError> {
        let address = settings.listen;
        let listener = bind(address).map_err(|error| RunError::Listen { address, error })?;
        Self::start_on(listener, settings)
    }

    /// As [`start`](Self::start), on a socket that listens already; `settings.listen` is not looked at for that.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start_on(listener: StdListener, settings: Settings) -> Result<Self, RunError> {
        let wanted = settings.listen;
        let listen_error = |error| RunError::Listen {
            address: wanted,
            error,
        };
        listener.set_nonblocking(true).map_err(listen_error)?;
        let listener = TcpListener::from_std(listener).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if settings.workers > 0 {
            settings.workers
        } else {
            cores()
        };
        let shared = Arc::new(Shared {
            settings,
            workers,
            subscriptions: Subscriptions::new(),
            clients: Clients::default(),
            slow_consumers: AtomicU64::new(0),
            messages_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            server_id: identity::server_id(),
            stopping: AtomicBool::new(false),
            live: AtomicU64::new(0),
        });
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for number in 0..workers {
            let (queue, thread) = start_worker(number, &shared).map_err(RunError::Worker)?;
            queues.push(queue);
            threads.push(thread);
        }
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), queues)).abort_handle();
        info!("Listening for client connections on {address}");
        Ok(Self {
            shared,
            address,
            accepting,
            threads,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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
        self.shared.clients.close_all(Reason::Shutdown);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, queues: Vec<UnboundedSender<Newcomer>>) {
    let mut id = 0;
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                let max = shared.settings.connections_max as u64;
                if shared.live.load(Relaxed) >= max {
                    warn!(%peer, "maximum connections exceeded ({max}); the connection is refused");
                    refuse(stream);
                    continue;
                }
                id += 1;
                shared.live.fetch_add(1, Relaxed);
                let queue = &queues[id as usize % queues.len()];
                if queue.send(Newcomer { stream, peer, id }).is_err() {
                    shared.ended();
                    error!("a worker is gone; the connection is closed");
                }
            }
            // The client gave up while it waited: nothing to take.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("cannot take a connection: {error}; if files are short, raise the limit (ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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

fn start_worker(
    number: usize,
    shared: &Arc<Shared>,
) -> io::Result<(UnboundedSender<Newcomer>, JoinHandle<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (queue, newcomers) = unbounded_channel();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(format!("clients-{number}"));
    let thread = thread.spawn(move || {
        task::become_worker(number, &shared);
        // Ends when nobody takes connections any more and the last client is gone.
        runtime.block_on(serve(newcomers, shared));
    })?;
    Ok((queue, thread))
}

async fn serve(mut newcomers: UnboundedReceiver<Newcomer>, shared: Arc<Shared>) {
    while let Some(newcomer) = newcomers.recv().await {
        tokio::spawn(serve_one(newcomer, Arc::clone(&shared)));
    }
    loop {
        let none_left = shared.clients.none_left.notified();
        tokio::pin!(none_left);
        none_left.as_mut().enable();
        if shared.live.load(Relaxed) == 0 {
            return;
        }
        none_left.await;
    }
}

/// One client from its first byte to its last. A panic in it ends only this one.
async fn serve_one(newcomer: Newcomer, shared: Arc<Shared>) {
    let Newcomer { stream, peer, id } = newcomer;
    let serving = async {
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        if shared.stopping.load(Relaxed) {
            return Ok(Reason::Shutdown);
        }
        io::Result::Ok(task::run(Arc::clone(&shared), stream, peer, id).await)
    };
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Ok(reason)) => debug!(client = id, %peer, "client connection closed: {}", reason.as_str()),
        Ok(Err(error)) => debug!(client = id, %peer, "client connection broke at once: {error}"),
        Err(_) => {
            shared.clients.remove(id);
            error!(client = id, %peer, "a bug ended the connection; the others go on");
        }
    }
    shared.ended();
}
