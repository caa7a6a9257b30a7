//! Where clients come from, and the threads that serve them and the links: each worker is one thread, and a connection stays with
//! its worker.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use standin_daemon::listen::plain;
use standin_wire::encode;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::closing::Reason;
use crate::shared::Shared;
use crate::task;

/// Pause after an error of `accept` that would come again at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What serves a link on its socket, to its end.
type ServeLink = dyn FnOnce(io::Result<TcpStream>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send;

/// A connection for a worker.
pub(crate) enum Newcomer {
    /// A client that was just taken.
    Client {
        stream: StdStream,
        peer: SocketAddr,
        id: u64,
    },
    /// A link to another node.
    Link(Box<ServeLink>, StdStream),
}

/// Takes connections and shares them out, for ever.
pub(crate) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    queues: Vec<UnboundedSender<Newcomer>>,
) {
    let mut id = 0;
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, peer)) => stream.into_std().map(|stream| (stream, plain(peer))),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                if !shared.began() {
                    let bound = shared.connections_bound();
                    warn!(%peer, bound, "maximum connections exceeded; the connection is refused");
                    refuse(stream);
                    continue;
                }
                id += 1;
                let queue = &queues[shared.home(id)];
                if queue.send(Newcomer::Client { stream, peer, id }).is_err() {
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

/// Starts worker number `number`. It ends when its queue is dropped and the last client is gone.
pub(crate) fn start(
    number: usize,
    shared: &Arc<Shared>,
) -> io::Result<(UnboundedSender<Newcomer>, JoinHandle<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (queue, newcomers) = unbounded_channel();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(format!("clients-{number}"));
    let thread = thread.spawn(move || {
        task::become_worker(number, &shared);
        runtime.block_on(serve(newcomers, shared));
    })?;
    Ok((queue, thread))
}

async fn serve(mut newcomers: UnboundedReceiver<Newcomer>, shared: Arc<Shared>) {
    let flushing = tokio::spawn(task::flush());
    let watching = tokio::spawn(task::watch_for_pauses(Arc::clone(&shared)));
    let mut links = JoinSet::new();
    while let Some(newcomer) = newcomers.recv().await {
        match newcomer {
            Newcomer::Client { stream, peer, id } => {
                tokio::spawn(serve_client(stream, peer, id, Arc::clone(&shared)));
            }
            Newcomer::Link(serve, stream) => {
                links.spawn(serve_link(serve, stream));
            }
        }
        while links.try_join_next().is_some() {}
    }
    shared.none_left().await;
    while links.join_next().await.is_some() {}
    flushing.abort();
    watching.abort();
}

/// One link from its beginning to its end. A panic in it ends only this one.
async fn serve_link(serve: Box<ServeLink>, stream: StdStream) {
    let serving = async { serve(TcpStream::from_std(stream)).await };
    if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
        error!("a bug ended a link; the others go on");
    }
}

/// One client from its first byte to its last. A panic in it ends only this one.
async fn serve_client(stream: StdStream, peer: SocketAddr, id: u64, shared: Arc<Shared>) {
    let serving = async {
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        if shared.stopping.load(Relaxed) {
            return Ok(Reason::Shutdown);
        }
        debug!(client = id, %peer, "client connection created");
        io::Result::Ok(task::run(Arc::clone(&shared), stream, peer, id).await)
    };
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Ok(reason)) => debug!(client = id, %peer, "client connection closed: {}", reason.as_str()),
        Ok(Err(error)) => debug!(client = id, %peer, "client connection broke at once: {error}"),
        Err(_) => {
            shared.clients.remove(id, Reason::Bug, 0);
            error!(client = id, %peer, "a bug ended the connection; the others go on");
        }
    }
    shared.ended();
}
