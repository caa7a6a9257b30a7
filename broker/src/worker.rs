//! The threads that serve clients and routes: each worker is one thread, and a connection stays with its worker.

use std::io;
use std::net::TcpStream as StdStream;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use socket2::SockRef;
use standin_tls::stream::{Detached, Stream};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::accepted_client::AcceptedClient;
use crate::client::session;
use crate::close_reason::CloseReason;
use crate::shared::Shared;
use crate::turn;

/// Maximum number of connections that wait for a worker. At this number, no more are accepted.
const NEWCOMERS_MAX: usize = 1024;

/// Function that serves a route on its socket until the route ends.
type ServeRoute = dyn FnOnce(io::Result<Stream>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send;

pub(crate) enum Newcomer {
    Client {
        stream: StdStream,
        client: AcceptedClient,
    },
    Route(Box<ServeRoute>, Detached),
}

/// Handle of one worker. The worker ends when all senders of its queue are dropped, all clients of the node are closed, and the worker's
/// routes have ended.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) newcomers: Sender<Newcomer>,
    pub(crate) runtime: Handle,
    pub(crate) thread: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(number: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (newcomers, queue) = channel(NEWCOMERS_MAX);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("clients-{number}"));
        let thread = thread.spawn(move || {
            turn::begin(number, &shared);
            runtime.block_on(serve(queue, shared));
        })?;
        Ok(Self {
            newcomers,
            runtime: handle,
            thread,
        })
    }
}

async fn serve(mut newcomers: Receiver<Newcomer>, shared: Arc<Shared>) {
    let flushing = tokio::spawn(turn::keep_flushing());
    let cutting = tokio::spawn(turn::keep_making_cuts(Arc::clone(&shared)));
    let watching = tokio::spawn(turn::watch_for_pauses(Arc::clone(&shared)));
    let mut routes = JoinSet::new();
    while let Some(newcomer) = newcomers.recv().await {
        match newcomer {
            Newcomer::Client { stream, client } => {
                let id = client.id;
                let task = tokio::spawn(serve_client(stream, client)).abort_handle();
                let is_half_open = shared
                    .admission
                    .update(id, |half_open| half_open.task = Some(task.clone()));
                if !is_half_open {
                    // The client was evicted while it waited for this worker.
                    task.abort();
                }
            }
            Newcomer::Route(serve, stream) => {
                routes.spawn(serve_route(serve, stream));
            }
        }
        while routes.try_join_next().is_some() {}
    }
    shared.all_clients_closed().await;
    while routes.join_next().await.is_some() {}
    flushing.abort();
    cutting.abort();
    watching.abort();
}

/// Serves one route until its end. A panic ends only this route.
async fn serve_route(serve: Box<ServeRoute>, stream: Detached) {
    let serving = async { serve(stream.attach()).await };
    if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
        error!("route panicked; other routes are not affected");
    }
}

/// Serves one client until its end. A panic ends only this client.
async fn serve_client(stream: StdStream, client: AcceptedClient) {
    let AcceptedClient { shared, peer, id } = &client;
    let (peer, id) = (*peer, *id);
    let serving = async {
        let stream = TcpStream::from_std(stream)?;
        // Unlike routes, clients on this host keep the system's congestion control: with Reno, the throughput of messages to a hundred
        // local clients is a third lower (`tests/bench broker --only throughput`).
        SockRef::from(&stream).set_tcp_nodelay(true)?;
        if shared.stopping.load(Relaxed) {
            return Ok(CloseReason::Shutdown);
        }
        debug!(client = id, %peer, "client connection created");
        io::Result::Ok(session::run(Arc::clone(shared), stream, peer, id).await)
    };
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Ok(reason)) => debug!(client = id, %peer, "client connection closed: {}", reason.as_str()),
        Ok(Err(error)) => debug!(client = id, %peer, "client connection broke at once: {error}"),
        Err(_) => {
            shared.clients.remove(id, CloseReason::Panicked, 0);
            error!(client = id, %peer, "client connection panicked; other connections are not affected");
        }
    }
}
