//! The task of the keeper. It accepts and dials connections, lets the [`Keeper`] judge them, hands links to the workers, and watches
//! the registry.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Watch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::{Keeper, TICK};
use crate::accept::accept;
use crate::mesh::membership::Membership;
use crate::mesh::orders::{Order, Standing};
use crate::mesh::pending_handshakes::PendingHandshakes;
use crate::mesh::session::{self, Pace};
use crate::mesh::sockets::{connect, ends_first};
use crate::route::event::RouteEvent;
use crate::route::handshake::{HandshakeError, Linked, Origin, Question, Verdict, shake};
use crate::route::hello::{Hello, Peer};
use crate::settings::Route;
use crate::shared::Shared;
use crate::worker::Newcomer;

/// Time limit for the links to end when the node leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of route events in the keeper's queue. While the queue is full, a route that has an event for it reads nothing.
const EVENTS_MAX: usize = 1024;
/// Maximum number of handshakes that wait for the keeper's verdict.
const QUESTIONS_MAX: usize = 64;

/// Parameters of the keeper's task.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Membership,
    pub(crate) routes: Vec<Route>,
    pub(crate) listener: TcpListener,
    pub(crate) workers: Vec<Sender<Newcomer>>,
    pub(crate) watch: Option<Watch>,
    pub(crate) connect_timeout: Duration,
    pub(crate) sync_timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) pending_bytes_max: usize,
}

struct Task {
    keeper: Keeper,
    shared: Arc<Shared>,
    routes: Vec<Route>,
    listener: TcpListener,
    workers: Vec<Sender<Newcomer>>,
    watch: Option<Watch>,
    has_read: bool,
    connect_timeout: Duration,
    pending_bytes_max: usize,
    standing: watch::Sender<Standing>,
    shakes: JoinSet<(Origin, Result<Linked, HandshakeError>)>,
    pending: PendingHandshakes,
    questions: Sender<Question>,
}

/// Runs the keeper until [`Order::Leave`], or until the sender of the orders is dropped.
pub(crate) async fn run(parts: Parts, mut orders: Receiver<Order>, standing: watch::Sender<Standing>) {
    let (questions, mut asked) = channel(QUESTIONS_MAX);
    let (events, mut happened) = channel(EVENTS_MAX);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shared = Arc::clone(&parts.shared);
    let mut task = Task {
        keeper: Keeper::new(
            Arc::clone(&shared),
            parts.membership,
            parts.pace,
            parts.sync_timeout,
            events,
        ),
        shared,
        routes: parts.routes,
        listener: parts.listener,
        workers: parts.workers,
        has_read: parts.watch.is_none(),
        watch: parts.watch,
        connect_timeout: parts.connect_timeout,
        pending_bytes_max: parts.pending_bytes_max,
        standing,
        shakes: JoinSet::new(),
        pending: PendingHandshakes::default(),
        questions,
    };
    task.read_registry();
    loop {
        task.dial();
        task.publish();
        let next_dial = task.keeper.membership.next_dial();
        tokio::select! {
            (stream, peer) = accept(&task.listener, "link") => task.greet(stream, peer),
            Some(question) = asked.recv() => task.answer(question),
            Some((number, event)) = happened.recv() => task.keeper.happened(number, event, Instant::now()),
            Some(shaken) = task.shakes.join_next() => match shaken {
                Ok((origin, result)) => task.shaken(origin, result).await,
                // `PendingHandshakes` has evicted it.
                Err(error) if error.is_cancelled() => {}
                Err(error) => error!("handshake panicked: {error}"),
            },
            () = registry_news(&mut task.watch, task.has_read) => {
                task.has_read = true;
                task.read_registry();
            }
            () = until(next_dial) => {}
            _ = ticks.tick() => task.keeper.tick(),
            order = orders.recv() => if task.obey(order).is_break() {
                break;
            },
        }
    }
    task.leave(happened).await;
}

impl Task {
    /// Reports the node's standing, and tells the registry which silent run this node supersedes.
    fn publish(&mut self) {
        if let Some(watch) = &self.watch {
            watch.supersede(self.keeper.membership.silent_namesake());
        }
        let now = self.keeper.standing(self.has_read);
        self.standing.send_if_modified(|known| {
            let differs = *known != now;
            *known = now;
            differs
        });
    }

    /// Executes an order. Returns `Break` if the keeper is to leave.
    fn obey(&mut self, order: Option<Order>) -> ControlFlow<()> {
        match order {
            Some(Order::ReadRegistry(done)) => {
                self.read_registry();
                self.publish();
                // The caller may no longer wait.
                let _ = done.send(());
            }
            Some(Order::Serve) => self.keeper.serve(),
            Some(Order::Drain) => self.keeper.drain(),
            Some(Order::Leave) | None => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn read_registry(&mut self) {
        let Some(watch) = &self.watch else { return };
        let snapshot = watch.snapshot();
        let nodes: Vec<Peer> = snapshot
            .registered
            .iter()
            .filter_map(|node| peer_of(node))
            .collect();
        let own = self.keeper.membership.own();
        let mut namesakes = snapshot
            .registered
            .iter()
            .filter(|node| *node.id == *own.id && *node.run != *own.run);
        let namesake_run = namesakes.next().map(|node| node.run.to_string());
        let membership = &mut self.keeper.membership;
        membership.registered(&nodes, namesake_run, Instant::now());
    }

    /// Dials the addresses that are due.
    fn dial(&mut self) {
        let now = Instant::now();
        for at in self.keeper.membership.dials(now) {
            debug!("dialling {at}");
            let mut own = self.keeper.membership.own().clone();
            let route = self.routes.iter().find(|route| route.endpoint.to_string() == at);
            if let Some((user, password)) = route.and_then(|route| route.credentials.clone()) {
                (own.user, own.password) = (user, password);
            }
            let (limit, questions) = (self.connect_timeout, self.questions.clone());
            self.shakes.spawn(async move {
                let origin = Origin::Dialled(at.clone());
                let linked = match timeout(limit, connect(&at, &own.mesh)).await {
                    Ok(Ok(stream)) => shake(stream, &own, origin.clone(), limit, questions).await,
                    Ok(Err(error)) => Err(HandshakeError::Connect(error)),
                    Err(_) => Err(HandshakeError::Timeout(limit)),
                };
                (origin, linked)
            });
        }
    }

    /// Starts the handshake of an accepted connection.
    fn greet(&mut self, stream: TcpStream, peer: SocketAddr) {
        // The accepting side must not reveal the cluster's credentials.
        let own = Hello {
            user: String::new(),
            password: String::new(),
            ..self.keeper.membership.own().clone()
        };
        let (limit, questions) = (self.connect_timeout, self.questions.clone());
        let task = self.shakes.spawn(async move {
            let origin = Origin::Accepted(peer);
            let linked = shake(stream, &own, origin.clone(), limit, questions).await;
            (origin, linked)
        });
        let text = "too many pending handshakes on the port for other nodes; the oldest are closed";
        if let Some(oldest) = self.pending.add(peer, task)
            && self.keeper.complaints.is_news(text, Instant::now())
        {
            warn!(peer = %oldest, "{text}");
        }
    }

    fn is_through(&mut self, origin: &Origin) {
        if let Origin::Accepted(peer) = origin {
            self.pending.remove(*peer);
        }
    }

    /// Answers the question of a handshake with the keeper's verdict.
    fn answer(&mut self, question: Question) {
        let dialled = question.origin.dialled().is_some();
        let (hello, welcome) = (&question.hello, question.welcome);
        let (verdict, number) = self.keeper.judge(hello, welcome, dialled, Instant::now());
        if matches!(verdict, Verdict::Accept { .. }) {
            self.is_through(&question.origin);
        }
        if question.answer.send((verdict, number)).is_err() {
            // The handshake has ended meanwhile, so the link that may have been recorded is removed.
            self.keeper.membership.link_lost(number, false, Instant::now());
        }
    }

    /// Handles the end of a handshake.
    async fn shaken(&mut self, origin: Origin, result: Result<Linked, HandshakeError>) {
        self.is_through(&origin);
        match result {
            Ok(linked) => self.install(linked).await,
            Err(error) => self.keeper.not_linked(origin, &error, Instant::now()),
        }
    }

    /// Hands a link to its worker.
    async fn install(&mut self, linked: Linked) {
        let now = Instant::now();
        let Linked {
            number,
            stream,
            hello,
            origin,
            address,
            rest,
        } = linked;
        let beginning = self.keeper.begin(number, hello, origin.dialled(), address, now);
        let stream = match stream.into_std() {
            Ok(stream) => ends_first(stream, self.shared.policy.load().connections_max),
            Err(error) => {
                error!("the link broke at once: {error}");
                self.keeper.membership.link_lost(number, false, now);
                return;
            }
        };
        let pending_bytes_max = self.pending_bytes_max;
        let serve = Box::new(move |socket| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(session::run(beginning, rest, pending_bytes_max, socket))
        });
        let newcomer = Newcomer::Link(serve, stream);
        let worker = &self.workers[self.shared.home(number)];
        if worker.send(newcomer).await.is_err() {
            error!("worker ended; the connection is closed");
            self.keeper.membership.link_lost(number, false, now);
        }
    }

    /// Sends GOODBYE over all links. Returns when they have ended, or after [`LEAVE_TIMEOUT`].
    async fn leave(mut self, mut happened: Receiver<(u64, RouteEvent)>) {
        self.shakes.shutdown().await;
        self.keeper.leave();
        let gone = async {
            while self.keeper.membership.len() > 0 {
                match happened.recv().await {
                    Some((number, event)) => self.keeper.happened(number, event, Instant::now()),
                    None => break,
                }
            }
        };
        if timeout(LEAVE_TIMEOUT, gone).await.is_err() {
            warn!("links did not end in time");
        }
        if let Some(watch) = self.watch.take() {
            watch.close().await;
        }
    }
}

/// Returns the id and the mesh address of a registered node, or `None` if it has no mesh address.
pub(crate) fn peer_of(node: &standin_registry::Node) -> Option<Peer> {
    Some(Peer {
        id: node.id.to_string(),
        mesh: node.mesh.as_ref()?.to_string(),
    })
}

/// Waits for the first answer of the registry, or after that for a change.
async fn registry_news(watch: &mut Option<Watch>, has_read: bool) {
    match watch {
        Some(watch) if has_read => watch.changed().await,
        Some(watch) => watch.answered().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
