//! The threads that run sessions. Each thread has its own runtime, and a session stays on its thread from its first byte
//! to its last. So no message crosses threads or takes a lock.

use std::io;
use std::net::TcpStream as StdStream;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use socket2::SockRef;
use standin_daemon::tcp;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error};

use crate::identity::Identity;
use crate::peer::Peer;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::task::FormerTask;
use crate::{sockets, task};

/// A connection that was just accepted, or that the former program has left, and its session. The session is in the table already, so that
/// no more than `limits.connections_max` connections are accepted.
pub(crate) struct AcceptedConnection {
    pub(crate) stream: StdStream,
    pub(crate) session: Arc<SessionInfo>,
    /// The session in the former program.
    pub(crate) former: Option<Box<FormerTask>>,
}

/// All workers of a sidecar.
pub(crate) struct Workers(Vec<Worker>);

struct Worker {
    /// Bounded by `limits.connections_max`.
    queue: UnboundedSender<AcceptedConnection>,
    /// Live sessions.
    live: Arc<AtomicUsize>,
    runtime: Handle,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts `count` threads. With `has_sessions`, one is enough.
    pub(crate) fn start(count: usize, has_sessions: bool, shared: &Arc<SidecarState>) -> io::Result<Self> {
        let start_one = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (queue, connections) = unbounded_channel();
            let live = Arc::new(AtomicUsize::new(0));
            let serving = receive(connections, Arc::clone(shared), Arc::clone(&live));
            let thread = std::thread::Builder::new().name(format!("sessions-{number}"));
            // The thread ends when the queue is closed and the last session has ended.
            let thread = thread.spawn(move || runtime.block_on(serving))?;
            Ok(Worker {
                queue,
                live,
                runtime: handle,
                thread,
            })
        };
        let mut workers = Vec::new();
        for number in 0..count {
            match start_one(number) {
                Ok(worker) => workers.push(worker),
                Err(error) if has_sessions && number > 0 => {
                    error!(
                        wanted = count,
                        started = number,
                        "cannot start all worker threads, going on with fewer: {error}"
                    );
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self(workers))
    }

    /// Passes a connection to a worker.
    pub(crate) fn take(&self, connection: AcceptedConnection) {
        let counts = self.0.iter().map(|worker| worker.live.load(Relaxed));
        let number = choose_worker(&counts.collect::<Vec<_>>());
        let worker = &self.0[number];
        worker.live.fetch_add(1, Relaxed);
        if worker.queue.send(connection).is_err() {
            error!(worker = number, "worker has ended; the connection is closed");
        }
    }

    /// Returns the runtime of each thread.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.0.iter().map(|worker| worker.runtime.clone()).collect()
    }

    /// Accepts no more connections. Returns the threads, which end with the last session of the sidecar.
    pub(crate) fn finish(self) -> Vec<JoinHandle<()>> {
        self.0.into_iter().map(|worker| worker.thread).collect()
    }
}

/// Returns the worker for the next session: the first one that has at most one more session than the least loaded. So the
/// shares are nearly even, and two components that send messages to each other are mostly on one thread. That thread is awake
/// when the message comes back from the node, which saves some microseconds (`tests/bench sidecar --only passing`, p50).
fn choose_worker(live: &[usize]) -> usize {
    let fewest = live.iter().min().copied().unwrap_or(0);
    live.iter().position(|count| *count <= fewest + 1).unwrap_or(0)
}

/// Runs the sessions of one worker until the queue is closed and the last session of the sidecar has ended.
async fn receive(
    mut connections: UnboundedReceiver<AcceptedConnection>,
    shared: Arc<SidecarState>,
    live: Arc<AtomicUsize>,
) {
    while let Some(connection) = connections.recv().await {
        let serving = run_session(connection, Arc::clone(&shared));
        let live = Arc::clone(&live);
        tokio::spawn(async move {
            serving.await;
            live.fetch_sub(1, Relaxed);
        });
    }
    shared.sessions.emptied().await;
}

/// Runs one session and updates the counters at its beginning and end. A panic in it ends only this session.
async fn run_session(connection: AcceptedConnection, shared: Arc<SidecarState>) {
    let AcceptedConnection {
        stream,
        session,
        former,
    } = connection;
    // A reference, because a copy would be kept as long as the session.
    let (id, component) = (session.id, &session.component);
    if shared.stopping.load(Relaxed) {
        session.send(SessionCommand::ShutDown);
    }
    shared.metrics.sessions.increment(1.0);
    if former.is_none() {
        shared.metrics.sessions_total.increment(1);
        debug!(session = id, %component, "component connected");
    }
    let serving = serve(Arc::clone(&shared), Arc::clone(&session), stream, former);
    match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            debug!(session = id, %component, "component's connection broke before its session began: {error}")
        }
        Err(_) => {
            shared.metrics.sessions_failed.increment(1);
            if let Some(node) = session.status().node.take() {
                shared.book.count_session(&node, false);
            }
            error!(session = id, %component, "session panicked; other sessions are not affected");
        }
    }
    shared.sessions.remove(id);
    shared.admission.closed(id, component.ip());
    shared.metrics.sessions.decrement(1.0);
}

/// Runs the session of a connection.
async fn serve(
    shared: Arc<SidecarState>,
    session: Arc<SessionInfo>,
    stream: StdStream,
    former: Option<Box<FormerTask>>,
) -> io::Result<()> {
    let (stream, identity) = prepared(&shared, &session, stream, former.is_none())?;
    task::run(shared, session, stream.into(), identity, former).await;
    Ok(())
}

/// Returns the connection for the session's task. Sets the options of the socket if it `is_new`, and not of the former program.
fn prepared(
    shared: &SidecarState,
    session: &SessionInfo,
    stream: StdStream,
    is_new: bool,
) -> io::Result<(TcpStream, Arc<Identity>)> {
    let stream = TcpStream::from_std(stream)?;
    let settings = shared.settings.load();
    let mut local = None;
    if let Peer::Tcp(_) | Peer::Proxied(_) = session.component {
        if is_new {
            let socket = SockRef::from(&stream);
            tcp::send_at_once(&socket)?;
            // Detects the loss of a component's host before the PINGs do, and keeps firewalls from dropping an idle
            // connection. On loopback the cost is one empty segment each way per `socket.keepalive_secs`.
            sockets::keep_alive(&socket, settings.socket.keepalive_secs.duration())?;
        }
        // A component behind a load balancer must reconnect to the balancer.
        local = Some(match session.component {
            Peer::Proxied(addresses) => addresses.destination,
            _ => stream.local_addr()?,
        });
    }
    let mark = shared.book.self_check.mark();
    let (id, listener, component) = (session.id, session.listener, &session.component);
    let identity = Identity::new(&settings, id, listener, component, local, mark);
    Ok((stream, Arc::new(identity)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<F>(_: impl FnOnce(AcceptedConnection, Arc<SidecarState>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn workers_have_even_shares_and_the_first_two_sessions_share_a_worker() {
        for workers in [1, 2, 3, 8] {
            let mut live = vec![0; workers];
            for count in 1..=100 {
                let chosen = choose_worker(&live);
                live[chosen] += 1;
                let (most, fewest) = (live.iter().max().unwrap(), live.iter().min().unwrap());
                assert!(most - fewest <= 2, "{live:?}");
                assert!(count != 2 || live[0] == 2, "{live:?}");
            }
        }
    }

    #[test]
    fn the_future_of_a_session_stays_small() {
        let bytes = future_bytes(run_session);
        assert!(
            bytes <= 2048,
            "{bytes} bytes, more than a quarter of an idle session's memory"
        );
    }
}
