//! The task of the keeper. It accepts and dials connections, lets the [`Keeper`] judge them, hands routes to the workers, and watches
//! the registry.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::SockRef;
use standin_daemon::half_open::HalfOpen;
use standin_daemon::listen::accept;
use standin_daemon::settings::Secret;
use standin_daemon::tcp;
use standin_registry::{Node, Watch};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::{ClusterStatus, Keeper, Order, TICK};
use crate::cluster_figures::ClusterFigures;
use crate::mesh::membership::Membership;
use crate::mesh::session;
use crate::mesh::sockets::{NOT_ALLOWED, connect, with_high_descriptor};
use crate::route::event::RouteEvent;
use crate::route::handshake::{self, AcceptedRoute, HandshakeError, Origin, Verdict, VerdictRequest};
use crate::route::hello::{Hello, Peer};
use crate::shared::Shared;
use crate::worker::Newcomer;

/// Time limit for the routes to end when the node leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of route events in the keeper's queue. While the queue is full, a route that has an event for it reads nothing.
const EVENTS_MAX: usize = 1024;
/// Maximum number of handshakes that wait for the keeper's verdict.
const VERDICT_REQUESTS_MAX: usize = 64;
/// Maximum number of accepted connections whose handshake is pending.
const HANDSHAKES_MAX: usize = 256;

struct Task {
    keeper: Keeper,
    listener: TcpListener,
    workers: Vec<Sender<Newcomer>>,
    watch: Option<Watch>,
    /// The registry was read, or there is none.
    has_read: bool,
    status: watch::Sender<ClusterStatus>,
    handshakes: JoinSet<(Origin, Result<AcceptedRoute, HandshakeError>)>,
    /// Accepted connections whose handshake is pending, with their peers and tasks.
    half_open: HalfOpen<(SocketAddr, AbortHandle)>,
    /// Number of the newest accepted connection.
    last_accepted: u64,
    verdict_requests: Sender<VerdictRequest>,
}

/// Runs the keeper until [`Order::Leave`], or until the sender of the orders is dropped.
pub(crate) async fn run(
    shared: Arc<Shared>,
    membership: Membership,
    listener: TcpListener,
    workers: Vec<Sender<Newcomer>>,
    watch: Option<Watch>,
    mut orders: Receiver<Order>,
    status: watch::Sender<ClusterStatus>,
) {
    let (verdict_requests, mut requests) = channel(VERDICT_REQUESTS_MAX);
    let (events, mut events_in) = channel(EVENTS_MAX);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = Task {
        keeper: Keeper::new(shared, membership, events),
        listener,
        workers,
        has_read: watch.is_none(),
        watch,
        status,
        handshakes: JoinSet::new(),
        half_open: HalfOpen::default(),
        last_accepted: 0,
        verdict_requests,
    };
    task.read_registry();
    loop {
        task.dial();
        task.publish();
        let next_dial = task.keeper.membership.next_dial();
        tokio::select! {
            (stream, peer) = accept(&task.listener, "route", Ok, || ()) => task.answer(stream, peer),
            Some(request) = requests.recv() => task.judge(request),
            Some((number, event)) = events_in.recv() => task.keeper.handle_event(number, event, Instant::now()),
            Some(ended) = task.handshakes.join_next() => match ended {
                Ok((origin, result)) => task.handshake_ended(origin, result).await,
                // The handshake was evicted.
                Err(error) if error.is_cancelled() => {}
                Err(error) => error!("handshake panicked: {error}"),
            },
            () = registry_news(&mut task.watch, task.has_read) => {
                task.has_read = true;
                task.read_registry();
            }
            () = sleep_until(next_dial.unwrap_or_else(Instant::now).into()), if next_dial.is_some() => {}
            _ = ticks.tick() => {
                task.keeper.tick();
                task.update_figures();
            }
            order = orders.recv() => match order {
                Some(Order::ReadRegistry(done)) => {
                    task.read_registry();
                    task.publish();
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                Some(Order::Serve) => task.keeper.serve(),
                Some(Order::Drain) => task.keeper.drain(),
                Some(Order::Leave) | None => break,
            },
        }
    }
    task.leave(events_in).await;
}

impl Task {
    /// Reports the node's status, and tells the registry which run of a silent namesake this node supersedes.
    fn publish(&mut self) {
        if let Some(watch) = &self.watch {
            watch.supersede(self.keeper.membership.silent_namesake());
        }
        let now = self.keeper.status(self.has_read);
        self.status.send_if_modified(|known| {
            let differs = *known != now;
            *known = now;
            differs
        });
    }

    /// Updates the node's figures about the cluster.
    fn update_figures(&self) {
        let mut figures = ClusterFigures {
            unlinked_nodes: self.keeper.membership.unlinked(),
            ..ClusterFigures::default()
        };
        if let Some(watch) = &self.watch {
            figures.registry = watch.health().zookeeper.state;
            figures.registered_nodes = watch.snapshot().registered.len();
            figures.is_registered = watch.is_registered();
        }
        let shared = &self.keeper.shared;
        if **shared.cluster_figures.load() != figures {
            shared.cluster_figures.store(Arc::new(figures));
        }
    }

    fn read_registry(&mut self) {
        let Some(watch) = &self.watch else { return };
        let registered = &watch.snapshot().registered;
        let allowed = self.keeper.shared.settings.load().allowed_nodes();
        let (mut nodes, mut refused) = (Vec::new(), Vec::new());
        for (node, mesh) in registered
            .iter()
            .filter_map(|node| Some((node, node.mesh.as_ref()?)))
        {
            if allowed.refuses(mesh) {
                refused.push(mesh);
                continue;
            }
            let (id, mesh) = (node.id.to_string(), mesh.to_string());
            nodes.push(Peer { id, mesh });
        }
        if let Some(first) = refused.first()
            && self.keeper.log_limit.is_due(NOT_ALLOWED, Instant::now())
        {
            let count = refused.len();
            warn!(%first, count, "registered nodes are not used: {NOT_ALLOWED}");
        }
        let membership = &mut self.keeper.membership;
        let own = membership.own();
        let namesake = |node: &&Arc<Node>| *node.id == *own.id && *node.run != *own.run;
        let namesake_run = registered.iter().find(namesake).map(|node| node.run.to_string());
        membership.registered(&nodes, namesake_run, Instant::now());
    }

    fn dial(&mut self) {
        let now = Instant::now();
        for at in self.keeper.membership.dials(now) {
            debug!("dialling {at}");
            let mut own = self.keeper.membership.own().clone();
            let settings = self.keeper.shared.settings.load();
            let (routes, allowed) = (settings.routes(), settings.allowed_nodes());
            let route = routes.into_iter().find(|route| route.endpoint.to_string() == at);
            if let Some((user, password)) = route.and_then(|route| route.credentials) {
                (own.user, own.password) = (user, password);
            }
            let (limit, verdict_requests) = self.handshake_parameters();
            let tls = self.keeper.shared.policy.load().route_tls.clone();
            self.handshakes.spawn(async move {
                let origin = Origin::Dialled(at.clone());
                let result = match timeout(limit, connect(&at, &own.mesh, &allowed)).await {
                    Ok(Ok(socket)) => {
                        let host = at.rsplit_once(':').map_or(&*at, |(host, _)| host);
                        let stream = match tls {
                            Some(tls) => tls.connect(socket, host).await.map_err(HandshakeError::Tls),
                            None => Ok(socket.into()),
                        };
                        match stream {
                            Ok(stream) => {
                                handshake::perform(stream, &own, &origin, limit, verdict_requests).await
                            }
                            Err(error) => Err(error),
                        }
                    }
                    Ok(Err(error)) => Err(HandshakeError::Connect(error)),
                    Err(_) => Err(HandshakeError::Timeout(limit)),
                };
                (origin, result)
            });
        }
    }

    fn handshake_parameters(&self) -> (Duration, Sender<VerdictRequest>) {
        let settings = self.keeper.shared.settings.load();
        let limit = settings.cluster.connect_timeout_ms.duration();
        (limit, self.verdict_requests.clone())
    }

    fn answer(&mut self, socket: TcpStream, peer: SocketAddr) {
        // The accepting side must not reveal the cluster's credentials.
        let own = Hello {
            user: String::new(),
            password: Secret::default(),
            ..self.keeper.membership.own().clone()
        };
        let (limit, verdict_requests) = self.handshake_parameters();
        let tls = self.keeper.shared.policy.load().route_tls.clone();
        let task = self.handshakes.spawn(async move {
            let origin = Origin::Accepted(peer);
            let beginning = async {
                tcp::send_at_once(&SockRef::from(&socket))?;
                match tls {
                    Some(tls) => tls.accept(socket).await.map_err(HandshakeError::Tls),
                    None => Ok(socket.into()),
                }
            };
            let result = match beginning.await {
                Ok(stream) => handshake::perform(stream, &own, &origin, limit, verdict_requests).await,
                Err(error) => Err(error),
            };
            (origin, result)
        });
        let text = "too many pending handshakes on the port for other nodes; the oldest are closed";
        self.last_accepted += 1;
        let added = self
            .half_open
            .add(self.last_accepted, (peer, task), HANDSHAKES_MAX);
        let Some((oldest, task)) = added else { return };
        task.abort();
        self.keeper.shared.evicted_handshakes.fetch_add(1, Relaxed);
        if self.keeper.log_limit.is_due(text, Instant::now()) {
            warn!(peer = %oldest, "{text}");
        }
    }

    fn remove_pending(&mut self, origin: &Origin) {
        if let Origin::Accepted(peer) = origin {
            self.half_open.retain(|(pending, _)| pending != peer);
        }
    }

    /// Answers the request of a handshake with the keeper's verdict.
    fn judge(&mut self, request: VerdictRequest) {
        let dialled = request.origin.dialled().is_some();
        let (hello, welcome) = (&request.hello, request.welcome);
        let (verdict, number) = self.keeper.judge(hello, welcome, dialled, Instant::now());
        if matches!(verdict, Verdict::Accept { .. }) {
            self.remove_pending(&request.origin);
        }
        if request.answer.send((verdict, number)).is_err() {
            // The handshake has ended meanwhile, so the route that may have been recorded is removed.
            self.keeper.membership.route_ended(number, false, Instant::now());
        }
    }

    async fn handshake_ended(&mut self, origin: Origin, result: Result<AcceptedRoute, HandshakeError>) {
        self.remove_pending(&origin);
        match result {
            Ok(accepted) => self.install(&origin, accepted).await,
            Err(error) => self.keeper.connection_failed(origin, &error, Instant::now()),
        }
    }

    async fn install(&mut self, origin: &Origin, accepted: AcceptedRoute) {
        let now = Instant::now();
        let (number, rest) = (accepted.number, accepted.rest);
        let dialled = origin.dialled();
        let (keeper, address) = (&mut self.keeper, accepted.address);
        let parameters = keeper.begin_session(number, accepted.hello, dialled, address, now);
        let stream = match accepted.stream.detach() {
            Ok(mut stream) => {
                let clients_max = self.keeper.shared.policy.load().admission.connections_max;
                stream.socket = with_high_descriptor(stream.socket, clients_max);
                stream
            }
            Err(error) => {
                error!("the route broke at once: {error}");
                self.keeper.membership.route_ended(number, false, now);
                return;
            }
        };
        let serve = Box::new(move |socket| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(session::run(parameters, rest, socket))
        });
        let newcomer = Newcomer::Route(serve, stream);
        let worker = &self.workers[self.keeper.shared.worker_of(number)];
        if worker.send(newcomer).await.is_err() {
            error!("worker ended; the connection is closed");
            self.keeper.membership.route_ended(number, false, now);
        }
    }

    /// Sends GOODBYE over all routes. Returns when they have ended, or after [`LEAVE_TIMEOUT`].
    async fn leave(mut self, mut events_in: Receiver<(u64, RouteEvent)>) {
        self.handshakes.shutdown().await;
        self.keeper.leave();
        let all_ended = async {
            while self.keeper.membership.len() > 0 {
                match events_in.recv().await {
                    Some((number, event)) => self.keeper.handle_event(number, event, Instant::now()),
                    None => break,
                }
            }
        };
        if timeout(LEAVE_TIMEOUT, all_ended).await.is_err() {
            warn!("routes did not end in time");
        }
        if let Some(watch) = self.watch.take() {
            watch.close().await;
        }
    }
}

/// Waits for the first answer of the registry; after that, for the next change.
async fn registry_news(watch: &mut Option<Watch>, has_read: bool) {
    match watch {
        Some(watch) if has_read => watch.changed().await,
        Some(watch) => watch.answered().await,
        None => std::future::pending().await,
    }
}
