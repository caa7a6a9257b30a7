//! The keeper of the routes. It judges each connection, handles the events of the routes, and reports the node's status in the
//! cluster. It handles no messages of clients. A value without sockets: the sockets belong to its [`task`].

pub(super) mod task;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::membership::Membership;
use super::orders::ClusterStatus;
use super::rate_limited_log::RateLimitedLog;
use super::session::{Beginning, Events, Pace};
use crate::closing::Reason;
use crate::route::Route;
use crate::route::event::RouteEvent;
use crate::route::frame;
use crate::route::handshake::{HandshakeError, Origin, Verdict};
use crate::route::hello::{Hello, Peer, RefusalReason, put_json};
use crate::shared::Shared;

/// Interval at which changed sizes of queue groups are announced, and at which the node checks whether it must give up its id.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The keeper of the routes.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    pub(super) membership: Membership,
    pace: Pace,
    sync_timeout: Duration,
    /// Sender of the routes' events to the keeper's task.
    events: Events,
    log_limit: RateLimitedLog,
    /// Text of the last refusal, by dialled address.
    refusals: HashMap<String, String>,
    /// Number of ticks in a row in which this node was outnumbered by a namesake. Ticks are counted, not time, so that a pause of
    /// the process does not count.
    outnumbered_ticks: u128,
    /// Number of routes so far. The next route has the next number.
    numbers: u64,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        membership: Membership,
        pace: Pace,
        sync_timeout: Duration,
        events: Events,
    ) -> Self {
        Self {
            shared,
            membership,
            pace,
            sync_timeout,
            events,
            log_limit: RateLimitedLog::default(),
            refusals: HashMap::new(),
            outnumbered_ticks: 0,
            numbers: 0,
        }
    }

    /// Returns the node's status in the cluster.
    pub(super) fn status(&mut self, has_read: bool) -> ClusterStatus {
        let membership = &self.membership;
        if !membership.is_outnumbered() {
            self.outnumbered_ticks = 0;
        }
        ClusterStatus {
            has_read,
            awaited: membership.awaited(),
            namesake_precedes: membership.namesake_precedes(),
            has_living_namesake: membership.has_living_namesake(),
            is_displaced: membership.is_superseded()
                || self.outnumbered_ticks * TICK.as_millis() >= self.sync_timeout.as_millis(),
            refusal: membership.refusal().map(|(at, why)| {
                let known = self.refusals.get(&at);
                let text = known.map_or_else(|| why.text().to_owned(), Clone::clone);
                (at, text)
            }),
            routes: membership.len(),
        }
    }

    /// Tells all peers that the node accepts clients.
    pub(super) fn serve(&mut self) {
        self.membership.serve();
        self.broadcast(&frame::bare(frame::SERVING));
    }

    /// Tells all peers that the node accepts no more clients.
    pub(super) fn drain(&mut self) {
        if !self.membership.own().draining {
            self.membership.drain();
            self.broadcast(&frame::bare(frame::DRAINING));
        }
    }

    /// Sends GOODBYE over all routes, and closes them.
    pub(super) fn leave(&mut self) {
        self.membership.leave();
        let routes = self.shared.interest.routes.load();
        routes.iter().for_each(|route| close_with_goodbye(route));
    }

    /// Does the work of each [`TICK`].
    pub(super) fn tick(&mut self) {
        if self.membership.is_outnumbered() {
            self.outnumbered_ticks += 1;
        }
        let interest = &self.shared.interest;
        if interest.announce_members() {
            interest
                .routes
                .load()
                .iter()
                .for_each(|route| route.outbox.wake());
        }
    }

    /// Judges a peer that has sent HELLO, or also WELCOME (`welcome`). If the verdict is `Accept`, the returned number is the number of
    /// the route.
    pub(super) fn judge(
        &mut self,
        hello: &Hello,
        welcome: bool,
        dialled: bool,
        now: Instant,
    ) -> (Verdict, u64) {
        let number = self.numbers + 1;
        let verdict = if welcome {
            self.membership.judge_welcome(hello, dialled, number, now)
        } else {
            self.membership.judge_hello(hello, dialled, now)
        };
        match verdict {
            Verdict::Refuse {
                why,
                probe: Some(number),
            } => self.with_route(
                number,
                if why.is_duplicate() {
                    Route::claim
                } else {
                    Route::probe
                },
            ),
            Verdict::Accept { replaces } => {
                self.numbers = number;
                self.take_cluster_name();
                if let Some(replaced) = replaces {
                    self.with_route(replaced, |route| route.outbox.close(Reason::Stale));
                }
            }
            _ => {}
        }
        (verdict, number)
    }

    /// Takes over the name of the cluster that the node has joined, if the node had none. Then closes the routes whose peers sent no
    /// name, so that they send HELLO again: they may have joined another cluster since.
    fn take_cluster_name(&self) {
        let name = &self.membership.own().cluster;
        if self.shared.set_cluster_name(name) {
            info!(cluster = name, "cluster name taken over from the cluster joined");
            for number in self.membership.with_other_names() {
                self.with_route(number, |route| route.outbox.close(Reason::Refused));
            }
        }
    }

    /// Handles a connection that did not become a route: logs the reason, and records it for the next dial.
    pub(super) fn connection_failed(&mut self, origin: Origin, error: &HandshakeError, now: Instant) {
        let fault = match error {
            HandshakeError::RefusedByPeer { why, .. } | HandshakeError::RefusedHere { why, .. } => {
                Some(*why).filter(|why| why.is_fault())
            }
            _ => None,
        };
        let at = match origin {
            Origin::Dialled(at) => at,
            Origin::Accepted(peer) => {
                // Limited by IP address, because the peer could change its id each time.
                let is_due = |why| self.log_limit.is_due(&format!("{} {why:?}", peer.ip()), now);
                if fault.is_some_and(is_due) {
                    error!(%peer, "link not accepted: {error}");
                } else if matches!(error, HandshakeError::Client(_))
                    && self.log_limit.is_due(&format!("{} client", peer.ip()), now)
                {
                    warn!(%peer, "{error}");
                } else {
                    debug!(%peer, "connection did not become a link: {error}");
                }
                return;
            }
        };
        match error {
            HandshakeError::RefusedByPeer { text, .. } | HandshakeError::RefusedHere { text, .. } => {
                self.refusals.insert(at.clone(), text.clone());
            }
            _ => drop(self.refusals.remove(&at)),
        }
        let membership = &mut self.membership;
        let first = match error {
            HandshakeError::RefusedByPeer { id, run, why, .. } => {
                membership.answered(&at, id, run);
                membership.dial_refused(&at, id, *why, true, now)
            }
            HandshakeError::RefusedHere { id, run, why, .. } => {
                membership.answered(&at, id, run);
                membership.dial_refused(&at, id, *why, false, now)
            }
            _ => membership.dial_failed(&at, error.is_connection_refused(), now),
        };
        // Both nodes dialled at the same time, and the other connection is the route.
        let is_linked = matches!(
            error,
            HandshakeError::RefusedByPeer {
                why: RefusalReason::Linked,
                ..
            } | HandshakeError::RefusedHere {
                why: RefusalReason::Linked,
                ..
            }
        );
        match (fault.is_some() || error.is_foreign(), first && !is_linked) {
            (true, true) => error!("no link with {at}: {error}"),
            (false, true) => info!("no link with {at} yet: {error}"),
            (_, false) => debug!("no link with {at}: {error}"),
        }
    }

    /// Records that a connection has become route `number`, and announces its node to the other peers. Returns the parameters of its
    /// session.
    pub(super) fn begin_session(
        &mut self,
        number: u64,
        peer: Hello,
        dialled: Option<&str>,
        address: SocketAddr,
        now: Instant,
    ) -> Beginning {
        self.membership.route_established(&peer, dialled, now);
        let by = if dialled.is_some() { "dialled" } else { "accepted" };
        info!(link = number, %address, "linked with {} ({by}), version {}", peer.id, peer.version);
        self.announce_node(&peer);
        let known = self.membership.known();
        let others: Vec<Peer> = known.into_iter().filter(|other| other.id != peer.id).collect();
        let mut greeting = Vec::new();
        put_json(&mut greeting, frame::PEERS, &others);
        Beginning {
            shared: Arc::clone(&self.shared),
            number,
            peer,
            address,
            dialled: dialled.is_some(),
            greeting,
            pace: self.pace,
            events: self.events.clone(),
        }
    }

    /// Sends the new peer's id and address to all peers.
    fn announce_node(&self, hello: &Hello) {
        let newcomer = [Peer {
            id: hello.id.clone(),
            mesh: hello.mesh.clone(),
        }];
        let mut frame = Vec::new();
        put_json(&mut frame, frame::PEERS, &newcomer);
        self.broadcast(&frame);
    }

    /// Handles an event of a route.
    pub(super) fn handle_event(&mut self, number: u64, event: RouteEvent, now: Instant) {
        match event {
            RouteEvent::Established => {
                // State changes between the handshake and the start of the session were not sent to this peer.
                self.with_route(number, |route| {
                    if self.membership.own().serving {
                        route.outbox.append(&frame::bare(frame::SERVING));
                    }
                    if self.membership.own().draining {
                        route.outbox.append(&frame::bare(frame::DRAINING));
                    }
                    if self.membership.is_leaving() {
                        close_with_goodbye(route);
                    }
                    route.outbox.wake();
                });
                self.shared.set_peers();
            }
            RouteEvent::SnapshotSent => self.membership.snapshot_sent(number),
            RouteEvent::Synced => self.membership.synced(number),
            RouteEvent::Peers(peers) => self.membership.named_by_peer(&peers, now),
            RouteEvent::Serving => {
                self.membership.serves(number);
                self.shared.set_peers();
            }
            RouteEvent::Draining => {
                self.membership.drains(number);
                self.shared.set_peers();
            }
            RouteEvent::ClaimAnswered => self.membership.claim_answered(number, now),
            RouteEvent::Goodbye => {
                info!(link = number, "peer leaves");
            }
            RouteEvent::Lost {
                peer,
                reason,
                sent_goodbye,
                unsent_bytes,
                undelivered,
            } => {
                let was = self.membership.route_ended(number, sent_goodbye, now);
                self.shared.set_peers();
                let why = reason.as_str();
                if sent_goodbye || !was || self.membership.is_leaving() {
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

    fn with_route(&self, number: u64, act: impl FnOnce(&Route)) {
        let routes = self.shared.interest.routes.load();
        if let Some(route) = routes.iter().find(|route| route.number == number) {
            act(route);
        }
    }

    fn broadcast(&self, frame: &[u8]) {
        for route in self.shared.interest.routes.load().iter() {
            route.send(frame);
        }
    }
}

/// Sends GOODBYE over a route and closes it, unless it is closing already.
fn close_with_goodbye(route: &Route) {
    if route.outbox.reason().is_none() {
        route.outbox.append(&frame::bare(frame::GOODBYE));
        route.outbox.close(Reason::Shutdown);
    }
}
