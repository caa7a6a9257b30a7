//! The task that keeps the links: it listens, dials, asks [`Membership`] what becomes of each connection, hands links to the workers,
//! and follows the registry. Everything here is rare; messages never pass it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Watch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::complaints::Complaints;
use super::frame;
use super::guests::Guests;
use super::handshake::{HandshakeError, Linked, Origin, Question, shake};
use super::hello::{Hello, Peer, Why, put_json};
use super::inbound::Heard;
use super::links::Link;
use super::membership::{Membership, Verdict};
use super::orders::{Order, Standing};
use super::sockets::{connect, ends_first};
use super::task::{self, LinkEvent, Pace};
use crate::closing::Reason;
use crate::settings::Route;
use crate::shared::Shared;
use crate::worker::Newcomer;

/// Pause after an error of `accept` that would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the others are told how many members a queue group has, and is looked whether this node still has its place.
const TICK: Duration = Duration::from_millis(100);
/// How long links may take to end in order.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the keeper is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Membership,
    pub(crate) routes: Vec<Route>,
    pub(crate) listener: TcpListener,
    pub(crate) workers: Vec<UnboundedSender<Newcomer>>,
    pub(crate) watch: Option<Watch>,
    pub(crate) connect_timeout: Duration,
    pub(crate) sync_timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) pending_bytes_max: usize,
}

struct Keeper {
    parts: Parts,
    standing: watch::Sender<Standing>,
    has_read: bool,
    complaints: Complaints,
    /// For so many ticks another node has had this one's place. While the process does not run, nothing is known.
    displaced_ticks: u128,
    numbers: u64,
    shakes: JoinSet<(Origin, Result<Linked, HandshakeError>)>,
    guests: Guests,
    questions: UnboundedSender<Question>,
    events: UnboundedSender<LinkEvent>,
}

/// Keeps the links until it is told to leave, or nobody can tell it any more.
pub(crate) async fn run(
    parts: Parts,
    mut orders: UnboundedReceiver<Order>,
    standing: watch::Sender<Standing>,
) {
    let (questions, mut asked) = unbounded_channel();
    let (events, mut happened) = unbounded_channel();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = Keeper {
        has_read: parts.watch.is_none(),
        parts,
        standing,
        complaints: Complaints::default(),
        displaced_ticks: 0,
        numbers: 0,
        shakes: JoinSet::new(),
        guests: Guests::default(),
        questions,
        events,
    };
    keeper.read_registry();
    loop {
        keeper.dial();
        keeper.publish();
        let next_dial = keeper.parts.membership.next_dial();
        tokio::select! {
            accepted = keeper.parts.listener.accept() => keeper.accepted(accepted).await,
            Some(question) = asked.recv() => keeper.answer(question),
            Some(event) = happened.recv() => keeper.happened(event),
            Some(shaken) = keeper.shakes.join_next() => match shaken {
                Ok((origin, result)) => keeper.shaken(origin, result),
                // One of too many.
                Err(error) if error.is_cancelled() => {}
                Err(error) => error!("a bug ended a handshake: {error}"),
            },
            () = registry_news(&mut keeper.parts.watch, keeper.has_read) => {
                keeper.has_read = true;
                keeper.read_registry();
            }
            () = until(next_dial) => {}
            _ = ticks.tick() => keeper.tick(),
            order = orders.recv() => match order {
                Some(Order::Meet(nodes, done)) => {
                    keeper.parts.membership.registered_too(&nodes, Instant::now());
                    keeper.publish();
                    // Who asked may have given up.
                    let _ = done.send(());
                }
                Some(Order::Serve) => {
                    keeper.parts.membership.serve();
                    keeper.tell_all(&frame::bare(frame::SERVING));
                }
                Some(Order::Drain) => {
                    keeper.parts.membership.drain();
                    keeper.tell_all(&frame::bare(frame::DRAINING));
                }
                Some(Order::Leave) | None => break,
            }
        }
    }
    keeper.leave(happened).await;
}

impl Keeper {
    fn publish(&mut self) {
        let membership = &self.parts.membership;
        if !membership.is_displaced() {
            self.displaced_ticks = 0;
        }
        let now = Standing {
            has_read: self.has_read,
            awaited: membership.awaited(),
            namesake_precedes: membership.namesake_precedes(),
            has_living_namesake: membership.has_living_namesake(),
            is_displaced: self.displaced_ticks * TICK.as_millis() >= self.parts.sync_timeout.as_millis(),
            refusal: membership.refusal(),
            links: membership.len(),
        };
        self.standing.send_if_modified(|known| {
            let differs = *known != now;
            *known = now;
            differs
        });
    }

    fn read_registry(&mut self) {
        let Some(watch) = &self.parts.watch else { return };
        let snapshot = watch.snapshot();
        let nodes: Vec<Peer> = snapshot
            .registered
            .iter()
            .filter_map(|node| peer_of(node))
            .collect();
        self.parts.membership.registered(&nodes, Instant::now());
    }

    fn dial(&mut self) {
        let now = Instant::now();
        for at in self.parts.membership.dials(now) {
            debug!("dialling {at}");
            let mut own = self.parts.membership.own().clone();
            let route = self
                .parts
                .routes
                .iter()
                .find(|route| route.endpoint.to_string() == at);
            if let Some((user, password)) = route.and_then(|route| route.credentials.clone()) {
                (own.user, own.password) = (user, password);
            }
            let (limit, questions) = (self.parts.connect_timeout, self.questions.clone());
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

    async fn accepted(&mut self, accepted: std::io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => self.greet(stream, peer),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("cannot take a link: {error}; if files are short, raise the limit (ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Somebody has connected.
    fn greet(&mut self, stream: TcpStream, peer: SocketAddr) {
        // What lets this node in elsewhere is not shown to whoever asks.
        let own = Hello {
            user: String::new(),
            password: String::new(),
            ..self.parts.membership.own().clone()
        };
        let (limit, questions) = (self.parts.connect_timeout, self.questions.clone());
        let task = self.shakes.spawn(async move {
            let origin = Origin::Accepted(peer);
            let linked = shake(stream, &own, origin.clone(), limit, questions).await;
            (origin, linked)
        });
        let text =
            "too many connections to the mesh's port introduce themselves at once; the oldest are closed";
        if let Some(oldest) = self.guests.came(peer, task)
            && self.complaints.is_news(text, Instant::now())
        {
            warn!(peer = %oldest, "{text}");
        }
    }

    fn is_through(&mut self, origin: &Origin) {
        if let Origin::Accepted(peer) = origin {
            self.guests.is_through(*peer);
        }
    }

    fn answer(&mut self, question: Question) {
        let membership = &mut self.parts.membership;
        let (hello, dialled) = (&question.hello, question.origin.dialled().is_some());
        let (number, now) = (self.numbers + 1, Instant::now());
        let verdict = if question.welcome {
            membership.welcomed(hello, dialled, number, now)
        } else {
            membership.greet(hello, dialled, now)
        };
        if matches!(verdict, Verdict::Accept { .. }) {
            self.numbers = number;
            self.is_through(&question.origin);
        }
        match verdict {
            Verdict::Refuse {
                why,
                probe: Some(number),
            } => self.with_link(
                number,
                if why.is_duplicate() {
                    Link::claim
                } else {
                    Link::probe
                },
            ),
            Verdict::Accept {
                replaces: Some(number),
            } => self.with_link(number, |link| link.outbox.close(Reason::Stale)),
            _ => {}
        }
        if question.answer.send((verdict, number)).is_err() {
            // The connection ended meanwhile.
            self.parts.membership.link_lost(number, false, Instant::now());
        }
    }

    fn with_link(&self, number: u64, act: impl FnOnce(&Link)) {
        let links = self.parts.shared.interest.links.load();
        if let Some(link) = links.iter().find(|link| link.number == number) {
            act(link);
        }
    }

    fn shaken(&mut self, origin: Origin, result: Result<Linked, HandshakeError>) {
        let now = Instant::now();
        self.is_through(&origin);
        let error = match result {
            Ok(linked) => return self.install(linked),
            Err(error) => error,
        };
        let fault = match &error {
            HandshakeError::Refused { why, .. } | HandshakeError::Refuses { why, .. } => {
                Some(*why).filter(|why| why.is_fault())
            }
            _ => None,
        };
        let at = match origin {
            Origin::Dialled(at) => at,
            Origin::Accepted(peer) => {
                // Whatever names it gives itself.
                let is_news = |why| self.complaints.is_news(&format!("{} {why:?}", peer.ip()), now);
                if fault.is_some_and(is_news) {
                    error!(%peer, "a node that wants a link: {error}");
                } else {
                    debug!(%peer, "a connection to the mesh's port came to nothing: {error}");
                }
                return;
            }
        };
        let membership = &mut self.parts.membership;
        let first = match &error {
            HandshakeError::Refused { id, why } => membership.dial_refused(&at, id, *why, true, now),
            HandshakeError::Refuses { id, why } => membership.dial_refused(&at, id, *why, false, now),
            _ => membership.dial_failed(&at, error.is_unheard(), now),
        };
        // Both have dialled, and the other connection is the link.
        let is_linked = matches!(
            &error,
            HandshakeError::Refused { why: Why::Linked, .. }
                | HandshakeError::Refuses { why: Why::Linked, .. }
        );
        match (fault.is_some(), first && !is_linked) {
            (true, true) => error!("no link with {at}: {error}"),
            (false, true) => info!("no link with {at} yet: {error}"),
            (_, false) => debug!("no link with {at}: {error}"),
        }
    }

    fn install(&mut self, linked: Linked) {
        let now = Instant::now();
        let Linked {
            number,
            stream,
            hello,
            origin,
            address,
            rest,
        } = linked;
        let dialled = origin.dialled();
        self.parts.membership.link_stands(&hello, dialled, now);
        let by = if dialled.is_some() { "dialled" } else { "accepted" };
        info!(link = number, %address, "linked with {} ({by}), version {}", hello.id, hello.version);
        let stream = match stream.into_std() {
            Ok(stream) => ends_first(stream, self.parts.shared.policy.load().connections_max),
            Err(error) => {
                error!("the link broke at once: {error}");
                self.parts.membership.link_lost(number, false, now);
                return;
            }
        };
        self.tell_of(&hello);
        let known = self.parts.membership.known();
        let others: Vec<Peer> = known.into_iter().filter(|peer| peer.id != hello.id).collect();
        let mut greeting = Vec::new();
        put_json(&mut greeting, frame::PEERS, &others);
        let parts = task::Parts {
            shared: Arc::clone(&self.parts.shared),
            number,
            peer: hello,
            address,
            dialled: dialled.is_some(),
            greeting,
            came: rest,
            pace: self.parts.pace,
            pending_bytes_max: self.parts.pending_bytes_max,
            events: self.events.clone(),
        };
        let serve = Box::new(move |socket| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(task::run(parts, socket))
        });
        let newcomer = Newcomer::Link(serve, stream);
        let worker = &self.parts.workers[number as usize % self.parts.workers.len()];
        if worker.send(newcomer).is_err() {
            error!("a worker is gone; the link is closed");
            self.parts.membership.link_lost(number, false, now);
        }
    }

    /// Names a newcomer to all others.
    fn tell_of(&self, hello: &Hello) {
        let newcomer = [Peer {
            id: hello.id.clone(),
            mesh: hello.mesh.clone(),
        }];
        let mut word = Vec::new();
        put_json(&mut word, frame::PEERS, &newcomer);
        self.tell_all(&word);
    }

    fn tell_all(&self, word: &[u8]) {
        for link in self.parts.shared.interest.links.load().iter() {
            link.outbox.append(word);
            link.outbox.wake();
        }
    }

    fn tick(&mut self) {
        if self.parts.membership.is_displaced() {
            self.displaced_ticks += 1;
        }
        self.tell_members();
    }

    fn tell_members(&self) {
        let interest = &self.parts.shared.interest;
        if interest.local.tell_members() {
            interest.links.load().iter().for_each(|link| link.outbox.wake());
        }
    }

    fn happened(&mut self, event: LinkEvent) {
        let now = Instant::now();
        match event {
            LinkEvent::Stands(number) => {
                // What it missed between its handshake and now.
                self.with_link(number, |link| {
                    if self.parts.membership.own().serving {
                        link.outbox.append(&frame::bare(frame::SERVING));
                    }
                    if self.parts.membership.own().draining {
                        link.outbox.append(&frame::bare(frame::DRAINING));
                    }
                    if self.parts.membership.is_leaving() {
                        part(link);
                    }
                    link.outbox.wake();
                });
                self.parts.shared.set_peers();
            }
            LinkEvent::Told(number) => self.parts.membership.told(number),
            LinkEvent::Heard(number, Heard::Synced) => self.parts.membership.synced(number),
            LinkEvent::Heard(_, Heard::Peers(peers)) => self.parts.membership.named(&peers, now),
            LinkEvent::Heard(number, Heard::Serving) => {
                self.parts.membership.serves(number);
                self.parts.shared.set_peers();
            }
            LinkEvent::Heard(number, Heard::Draining) => {
                self.parts.membership.drains(number);
                self.parts.shared.set_peers();
            }
            LinkEvent::Lives(number) => self.parts.membership.lives(number, now),
            LinkEvent::Heard(number, Heard::Goodbye) => {
                info!(link = number, "the node at the other end leaves");
            }
            LinkEvent::Lost {
                number,
                peer,
                reason,
                leaves,
                unsent_bytes,
                undelivered,
            } => {
                let was = self.parts.membership.link_lost(number, leaves, now);
                self.parts.shared.set_peers();
                let why = reason.as_str();
                if leaves || !was || self.parts.membership.is_leaving() {
                    info!(
                        link = number,
                        unsent_bytes, undelivered, "the link with {peer} has ended: {why}"
                    );
                } else {
                    warn!(
                        link = number,
                        unsent_bytes, undelivered, "the link with {peer} is lost: {why}; it is dialled again"
                    );
                }
            }
        }
    }

    /// Says goodbye, and returns when the links have ended.
    async fn leave(mut self, mut happened: UnboundedReceiver<LinkEvent>) {
        self.shakes.shutdown().await;
        self.parts.membership.leave();
        self.parts
            .shared
            .interest
            .links
            .load()
            .iter()
            .for_each(|link| part(link));
        let gone = async {
            while self.parts.membership.len() > 0 {
                match happened.recv().await {
                    Some(event) => self.happened(event),
                    None => break,
                }
            }
        };
        if timeout(LEAVE_TIMEOUT, gone).await.is_err() {
            warn!("links did not end in time");
        }
        if let Some(watch) = self.parts.watch.take() {
            watch.close().await;
        }
    }
}

/// The node as another one would name it; `None` when it is no node of a mesh.
pub(crate) fn peer_of(node: &standin_registry::Node) -> Option<Peer> {
    Some(Peer {
        id: node.id.to_string(),
        mesh: node.mesh.as_ref()?.to_string(),
    })
}

/// Says goodbye over a link, once, and ends it.
fn part(link: &Link) {
    if link.outbox.reason().is_none() {
        link.outbox.append(&frame::bare(frame::GOODBYE));
        link.outbox.close(Reason::Shutdown);
    }
}

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
