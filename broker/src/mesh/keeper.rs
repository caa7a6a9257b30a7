//! The task that keeps the links: it listens, dials, asks [`Membership`] what becomes of each connection, hands links to the workers,
//! and follows the registry. Everything here is rare; messages never pass it.

mod doors;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Watch;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, info, warn};

use super::complaints::Complaints;
use super::guests::Guests;
use super::inbound::Heard;
use super::membership::Membership;
use super::orders::{Order, Standing};
use super::task::{LinkEvent, Pace};
use crate::accept::accept;
use crate::closing::Reason;
use crate::route::frame;
use crate::route::handshake::{HandshakeError, Linked, Origin, Question};
use crate::route::hello::Peer;
use crate::route::link::Link;
use crate::settings::Route;
use crate::shared::Shared;
use crate::worker::Newcomer;

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
    pub(crate) workers: Vec<Sender<Newcomer>>,
    pub(crate) watch: Option<Watch>,
    pub(crate) connect_timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) pending_bytes_max: usize,
}

struct Keeper {
    parts: Parts,
    standing: watch::Sender<Standing>,
    has_read: bool,
    complaints: Complaints,
    /// Why there is no link with the node at a dialled address, in words.
    refusals: HashMap<String, String>,
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
        refusals: HashMap::new(),
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
            (stream, peer) = accept(&keeper.parts.listener, "link") => keeper.greet(stream, peer),
            Some(question) = asked.recv() => keeper.answer(question),
            Some(event) = happened.recv() => keeper.happened(event),
            Some(shaken) = keeper.shakes.join_next() => match shaken {
                Ok((origin, result)) => keeper.shaken(origin, result).await,
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
            order = orders.recv() => if keeper.obey(order).is_break() {
                break;
            },
        }
    }
    keeper.leave(happened).await;
}

impl Keeper {
    fn publish(&mut self) {
        let membership = &self.parts.membership;
        if let (Some(watch), Some(run)) = (&self.parts.watch, membership.silent_namesake()) {
            watch.supersede(run);
        }
        let now = Standing {
            has_read: self.has_read,
            awaited: membership.awaited(),
            namesake_precedes: membership.namesake_precedes(),
            has_living_namesake: membership.has_living_namesake(),
            is_displaced: membership.is_displaced(),
            refusal: membership.refusal().map(|(at, why)| {
                let known = self.refusals.get(&at);
                let text = known.map_or_else(|| why.text().to_owned(), Clone::clone);
                (at, text)
            }),
            links: membership.len(),
        };
        self.standing.send_if_modified(|known| {
            let differs = *known != now;
            *known = now;
            differs
        });
    }

    /// Breaks when it is to leave.
    fn obey(&mut self, order: Option<Order>) -> ControlFlow<()> {
        match order {
            Some(Order::ReadRegistry(done)) => {
                self.read_registry();
                self.publish();
                // Who asked may have given up.
                let _ = done.send(());
            }
            Some(Order::Serve) => {
                self.parts.membership.serve();
                self.tell_all(&frame::bare(frame::SERVING));
            }
            Some(Order::Drain) => {
                self.parts.membership.drain();
                self.tell_all(&frame::bare(frame::DRAINING));
            }
            Some(Order::Leave) | None => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn read_registry(&mut self) {
        let Some(watch) = &self.parts.watch else { return };
        let snapshot = watch.snapshot();
        let nodes: Vec<Peer> = snapshot
            .registered
            .iter()
            .filter_map(|node| peer_of(node))
            .collect();
        let own = self.parts.membership.own();
        let mut namesakes = snapshot
            .registered
            .iter()
            .filter(|node| *node.id == *own.id && *node.run != *own.run);
        let namesake_run = namesakes.next().map(|node| node.run.to_string());
        self.parts
            .membership
            .registered(&nodes, namesake_run, Instant::now());
    }

    fn with_link(&self, number: u64, act: impl FnOnce(&Link)) {
        let links = self.parts.shared.interest.links.load();
        if let Some(link) = links.iter().find(|link| link.number == number) {
            act(link);
        }
    }

    fn tell_all(&self, word: &[u8]) {
        for link in self.parts.shared.interest.links.load().iter() {
            link.outbox.append(word);
            link.outbox.wake();
        }
    }

    fn tick(&mut self) {
        self.tell_members();
    }

    fn tell_members(&self) {
        let interest = &self.parts.shared.interest;
        if interest.announce_members() {
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
