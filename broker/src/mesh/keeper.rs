//! The keeper of the routes. It decides whether a connection becomes a route, handles the events of the routes, and reports the
//! node's status in the cluster. It handles no messages of clients. It has no sockets: they belong to its [`task`].

pub(super) mod task;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::membership::{Membership, RouteState};
use super::rate_limited_log::RateLimitedLog;
use super::session::{Events, RouteParameters};
use crate::close_reason::CloseReason;
use crate::route::event::RouteEvent;
use crate::route::handshake::{HandshakeError, Origin, Verdict};
use crate::route::hello::{Hello, Peer, RefusalReason, json_frame};
use crate::route::{Route, frame};
use crate::shared::Shared;

/// Interval at which changed sizes of queue groups are announced, and at which the node checks whether it must give up its id.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Command of the node to its keeper.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the present snapshot of the registry, then signal that it is read.
    ReadRegistry(oneshot::Sender<()>),
    /// Tell the peers that this node accepts clients.
    Serve,
    /// Tell the peers that this node accepts no more clients.
    Drain,
    /// Close all routes and end the keeper.
    Leave,
}

/// Status of this node in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClusterStatus {
    /// The registry was read, or there is none.
    pub(super) has_read: bool,
    /// Addresses for which a starting node waits.
    pub(super) awaited: Vec<String>,
    /// Another node with this node's id is known to keep the id (`true`), or exists but may give it up (`false`).
    pub(super) namesake_precedes: Option<bool>,
    /// The other node with this node's id is known to be alive.
    pub(super) has_living_namesake: bool,
    /// This node must give up its id to another node.
    pub(super) is_displaced: bool,
    /// Address of a registered node whose route was refused, and the reason. `None` if there is any route.
    pub(super) refusal: Option<(String, String)>,
    pub(super) routes: usize,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    pub(super) membership: Membership,
    /// Sender of the routes' events to the keeper's task.
    events: Events,
    log_limit: RateLimitedLog,
    /// Number of ticks in a row in which this node was outnumbered by a namesake. Ticks are counted, not time, so that a pause of
    /// the process does not count.
    outnumbered_ticks: u32,
    /// Number of the newest route. Routes are numbered upwards from 1.
    last_number: u64,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, membership: Membership, events: Events) -> Self {
        Self {
            shared,
            membership,
            events,
            log_limit: RateLimitedLog::default(),
            outnumbered_ticks: 0,
            last_number: 0,
        }
    }

    pub(super) fn status(&mut self, has_read: bool) -> ClusterStatus {
        let membership = &self.membership;
        if !membership.is_outnumbered() {
            self.outnumbered_ticks = 0;
        }
        let sync_timeout = self.shared.settings.load().cluster.sync_timeout_ms.duration();
        ClusterStatus {
            has_read,
            awaited: membership.awaited(),
            namesake_precedes: membership.namesake_precedes(),
            has_living_namesake: membership.has_living_namesake(),
            is_displaced: membership.is_superseded() || self.outnumbered_ticks * TICK >= sync_timeout,
            refusal: membership.refusal(),
            routes: membership.len(),
        }
    }

    pub(super) fn serve(&mut self) {
        self.membership.own_mut().serving = true;
        self.broadcast(&frame::bare(frame::SERVING));
    }

    pub(super) fn drain(&mut self) {
        if !std::mem::replace(&mut self.membership.own_mut().draining, true) {
            self.broadcast(&frame::bare(frame::DRAINING));
        }
    }

    pub(super) fn leave(&mut self) {
        self.membership.leave();
        let routes = self.shared.interest.routes.load();
        routes.iter().for_each(|route| close_with_goodbye(route));
    }

    pub(super) fn tick(&mut self) {
        if self.membership.is_outnumbered() {
            self.outnumbered_ticks += 1;
        }
        self.shared.interest.announce_members();
    }

    /// Decides about a peer that has sent HELLO and, if `welcome` is set, also WELCOME. With the verdict `Accept`, the returned number
    /// is that of the new route.
    pub(super) fn judge(
        &mut self,
        hello: &Hello,
        welcome: bool,
        dialled: bool,
        now: Instant,
    ) -> (Verdict, u64) {
        let number = self.last_number + 1;
        let verdict = if welcome {
            self.membership.judge_welcome(hello, dialled, number, now)
        } else {
            self.membership.judge_hello(hello, dialled, now)
        };
        match verdict {
            Verdict::Refuse {
                why,
                probe: Some(number),
            } => {
                let ping = if why.is_duplicate() {
                    Route::claim
                } else {
                    Route::probe
                };
                self.with_route(number, ping);
            }
            Verdict::Accept { replaces } => {
                self.last_number = number;
                self.take_cluster_name();
                if let Some(replaced) = replaces {
                    self.with_route(replaced, |route| route.outbox.close(CloseReason::Stale));
                }
            }
            _ => {}
        }
        (verdict, number)
    }

    /// If the node had no cluster name, takes over that of the cluster it has joined. Then closes the routes whose peers sent no name or
    /// another one, so that they send HELLO again: they may have joined another cluster since.
    fn take_cluster_name(&self) {
        let name = &self.membership.own().cluster;
        if self.shared.set_cluster_name(name) {
            info!(cluster = name, "cluster name taken over from the cluster joined");
            for number in self.membership.with_other_names() {
                self.with_route(number, |route| route.outbox.close(CloseReason::Refused));
            }
        }
    }

    /// Handles a connection that did not become a route: logs the reason, and records it for the next dial.
    pub(super) fn connection_failed(&mut self, origin: Origin, error: &HandshakeError, now: Instant) {
        let refused = match error {
            HandshakeError::Refused(refused) => Some(refused),
            _ => None,
        };
        let fault = refused.map(|refused| refused.why).filter(|why| why.is_fault());
        let at = match origin {
            Origin::Dialled(at) => at,
            Origin::Accepted(peer) => {
                if let Some(refused) = refused {
                    self.membership.accept_refused(refused, now);
                }
                // The rate limit is by IP address, because the peer could change its id each time.
                let mut is_due = |fault: &str| self.log_limit.is_due(&format!("{} {fault}", peer.ip()), now);
                if fault.is_some_and(|why| is_due(&format!("{why:?}"))) {
                    error!(%peer, "route not accepted: {error}");
                } else if matches!(error, HandshakeError::Client(_)) && is_due("client") {
                    warn!(%peer, "{error}");
                } else {
                    debug!(%peer, "connection did not become a route: {error}");
                }
                return;
            }
        };
        let membership = &mut self.membership;
        let is_first = match refused {
            Some(refused) => membership.dial_refused(&at, refused, now),
            None => membership.dial_failed(&at, error.is_connection_refused(), now),
        };
        // Both nodes dialled at the same time, and the other connection is the route.
        let is_linked = refused.is_some_and(|refused| refused.why == RefusalReason::Linked);
        match (fault.is_some() || error.is_foreign(), is_first && !is_linked) {
            (true, true) => error!("no route with {at}: {error}"),
            (false, true) => info!("no route with {at} yet: {error}"),
            (_, false) => debug!("no route with {at}: {error}"),
        }
    }

    /// Records that a connection has become route `number`, and announces the new peer to the other peers. Returns the parameters of its
    /// session.
    pub(super) fn begin_session(
        &mut self,
        number: u64,
        peer: Hello,
        dialled: Option<&str>,
        address: SocketAddr,
        now: Instant,
    ) -> RouteParameters {
        self.membership.route_established(&peer, dialled, now);
        let by = if dialled.is_some() { "dialled" } else { "accepted" };
        info!(route = number, %address, "linked with {} ({by}), version {}", peer.id, peer.version);
        self.broadcast(&json_frame(frame::PEERS, &[Peer::of(&peer)]));
        let greeting = json_frame(frame::PEERS, &self.membership.others_than(&peer.id));
        RouteParameters {
            shared: Arc::clone(&self.shared),
            number,
            peer,
            address,
            dialled: dialled.map(str::to_owned),
            greeting,
            events: self.events.clone(),
        }
    }

    pub(super) fn handle_event(&mut self, number: u64, event: RouteEvent, now: Instant) {
        let mut update = |change: &dyn Fn(&mut RouteState)| self.membership.update(number, change);
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
                self.shared.update_connect_urls();
            }
            RouteEvent::SnapshotSent => update(&|route| route.is_snapshot_sent = true),
            RouteEvent::Synced => update(&|route| route.is_synced = true),
            RouteEvent::Peers(peers) => self.membership.named_by_peer(&peers, now),
            RouteEvent::Serving => {
                update(&|route| route.peer.serving = true);
                self.shared.update_connect_urls();
            }
            RouteEvent::Draining => {
                update(&|route| route.peer.draining = true);
                self.shared.update_connect_urls();
            }
            RouteEvent::ClaimAnswered => update(&|route| route.answered_at = Some(now)),
            RouteEvent::Goodbye => info!(route = number, "peer leaves"),
            RouteEvent::Lost {
                peer,
                reason,
                sent_goodbye,
                unsent_bytes,
                undelivered,
            } => {
                let was_known = self.membership.route_ended(number, sent_goodbye, now);
                self.shared.update_connect_urls();
                let why = reason.as_str();
                if sent_goodbye || !was_known || self.membership.is_leaving() {
                    info!(
                        route = number,
                        unsent_bytes, undelivered, "the route with {peer} has ended: {why}"
                    );
                } else {
                    warn!(
                        route = number,
                        unsent_bytes,
                        undelivered,
                        "the route with {peer} is lost: {why}; it is dialled again"
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
        route.outbox.close(CloseReason::Shutdown);
    }
}
