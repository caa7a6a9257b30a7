//! The keeper of the links. It judges each connection, handles the events of the links, and reports the node's standing in the
//! cluster. It handles no messages of clients. A value without sockets: the sockets belong to its [`task`].

pub(super) mod task;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::complaints::Complaints;
use super::membership::Membership;
use super::orders::Standing;
use super::session::{Beginning, Events, Pace};
use crate::closing::Reason;
use crate::route::event::RouteEvent;
use crate::route::frame;
use crate::route::handshake::{HandshakeError, Origin, Verdict};
use crate::route::hello::{Hello, Peer, Why, put_json};
use crate::route::link::Link;
use crate::shared::Shared;

/// Interval at which changed sizes of queue groups are announced, and at which the node checks whether it must give up its id.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The keeper of the links.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    pub(super) membership: Membership,
    pace: Pace,
    sync_timeout: Duration,
    /// Sender of the routes' events to the keeper's task.
    events: Events,
    complaints: Complaints,
    /// Text of the last refusal, by dialled address.
    refusals: HashMap<String, String>,
    /// Number of ticks in a row in which this node was outnumbered by a namesake. Ticks are counted, not time, so that a pause of
    /// the process does not count.
    displaced_ticks: u128,
    /// Number of links so far. The next link has the next number.
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
            complaints: Complaints::default(),
            refusals: HashMap::new(),
            displaced_ticks: 0,
            numbers: 0,
        }
    }

    /// Returns the node's standing in the cluster.
    pub(super) fn standing(&mut self, has_read: bool) -> Standing {
        let membership = &self.membership;
        if !membership.is_outnumbered() {
            self.displaced_ticks = 0;
        }
        Standing {
            has_read,
            awaited: membership.awaited(),
            namesake_precedes: membership.namesake_precedes(),
            has_living_namesake: membership.has_living_namesake(),
            is_displaced: membership.is_superseded()
                || self.displaced_ticks * TICK.as_millis() >= self.sync_timeout.as_millis(),
            refusal: membership.refusal().map(|(at, why)| {
                let known = self.refusals.get(&at);
                let text = known.map_or_else(|| why.text().to_owned(), Clone::clone);
                (at, text)
            }),
            links: membership.len(),
        }
    }

    /// Tells all peers that the node accepts clients.
    pub(super) fn serve(&mut self) {
        self.membership.serve();
        self.tell_all(&frame::bare(frame::SERVING));
    }

    /// Tells all peers that the node accepts no more clients.
    pub(super) fn drain(&mut self) {
        if !self.membership.own().draining {
            self.membership.drain();
            self.tell_all(&frame::bare(frame::DRAINING));
        }
    }

    /// Sends GOODBYE over all links, and closes them.
    pub(super) fn leave(&mut self) {
        self.membership.leave();
        let links = self.shared.interest.links.load();
        links.iter().for_each(|link| part(link));
    }

    /// Does the work of each [`TICK`].
    pub(super) fn tick(&mut self) {
        if self.membership.is_outnumbered() {
            self.displaced_ticks += 1;
        }
        let interest = &self.shared.interest;
        if interest.announce_members() {
            interest.links.load().iter().for_each(|link| link.outbox.wake());
        }
    }

    /// Judges a peer that has sent HELLO, or also WELCOME (`welcome`). If the verdict is `Accept`, the returned number is the number of
    /// the link.
    pub(super) fn judge(
        &mut self,
        hello: &Hello,
        welcome: bool,
        dialled: bool,
        now: Instant,
    ) -> (Verdict, u64) {
        let number = self.numbers + 1;
        let verdict = if welcome {
            self.membership.welcomed(hello, dialled, number, now)
        } else {
            self.membership.greet(hello, dialled, now)
        };
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
            Verdict::Accept { replaces } => {
                self.numbers = number;
                self.take_cluster_name();
                if let Some(replaced) = replaces {
                    self.with_link(replaced, |link| link.outbox.close(Reason::Stale));
                }
            }
            _ => {}
        }
        (verdict, number)
    }

    /// Takes over the name of the cluster that the node has joined, if the node had none. Then closes the links whose peers sent no
    /// name, so that they send HELLO again: they may have joined another cluster since.
    fn take_cluster_name(&self) {
        let name = &self.membership.own().cluster;
        if self.shared.set_cluster_name(name) {
            info!(cluster = name, "cluster name taken over from the cluster joined");
            for number in self.membership.with_other_names() {
                self.with_link(number, |link| link.outbox.close(Reason::Refused));
            }
        }
    }

    /// Handles a connection that did not become a link: logs the reason, and records it for the next dial.
    pub(super) fn not_linked(&mut self, origin: Origin, error: &HandshakeError, now: Instant) {
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
                let is_news = |why| self.complaints.is_news(&format!("{} {why:?}", peer.ip()), now);
                if fault.is_some_and(is_news) {
                    error!(%peer, "link not accepted: {error}");
                } else if matches!(error, HandshakeError::Client(_))
                    && self.complaints.is_news(&format!("{} client", peer.ip()), now)
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
            _ => membership.dial_failed(&at, error.is_unheard(), now),
        };
        // Both nodes dialled at the same time, and the other connection is the link.
        let is_linked = matches!(
            error,
            HandshakeError::RefusedByPeer { why: Why::Linked, .. }
                | HandshakeError::RefusedHere { why: Why::Linked, .. }
        );
        match (fault.is_some() || error.is_foreign(), first && !is_linked) {
            (true, true) => error!("no link with {at}: {error}"),
            (false, true) => info!("no link with {at} yet: {error}"),
            (_, false) => debug!("no link with {at}: {error}"),
        }
    }

    /// Records that a connection has become link `number`, and announces its node to the other peers. Returns the parameters of its
    /// session.
    pub(super) fn begin(
        &mut self,
        number: u64,
        peer: Hello,
        dialled: Option<&str>,
        address: SocketAddr,
        now: Instant,
    ) -> Beginning {
        self.membership.link_stands(&peer, dialled, now);
        let by = if dialled.is_some() { "dialled" } else { "accepted" };
        info!(link = number, %address, "linked with {} ({by}), version {}", peer.id, peer.version);
        self.tell_of(&peer);
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
    fn tell_of(&self, hello: &Hello) {
        let newcomer = [Peer {
            id: hello.id.clone(),
            mesh: hello.mesh.clone(),
        }];
        let mut word = Vec::new();
        put_json(&mut word, frame::PEERS, &newcomer);
        self.tell_all(&word);
    }

    /// Handles an event of a link.
    pub(super) fn happened(&mut self, number: u64, event: RouteEvent, now: Instant) {
        match event {
            RouteEvent::Stands => {
                // State changes between the handshake and the start of the session were not sent to this peer.
                self.with_link(number, |link| {
                    if self.membership.own().serving {
                        link.outbox.append(&frame::bare(frame::SERVING));
                    }
                    if self.membership.own().draining {
                        link.outbox.append(&frame::bare(frame::DRAINING));
                    }
                    if self.membership.is_leaving() {
                        part(link);
                    }
                    link.outbox.wake();
                });
                self.shared.set_peers();
            }
            RouteEvent::Told => self.membership.told(number),
            RouteEvent::Synced => self.membership.synced(number),
            RouteEvent::Peers(peers) => self.membership.named(&peers, now),
            RouteEvent::Serving => {
                self.membership.serves(number);
                self.shared.set_peers();
            }
            RouteEvent::Draining => {
                self.membership.drains(number);
                self.shared.set_peers();
            }
            RouteEvent::Lives => self.membership.lives(number, now),
            RouteEvent::Goodbye => {
                info!(link = number, "peer leaves");
            }
            RouteEvent::Lost {
                peer,
                reason,
                leaves,
                unsent_bytes,
                undelivered,
            } => {
                let was = self.membership.link_lost(number, leaves, now);
                self.shared.set_peers();
                let why = reason.as_str();
                if leaves || !was || self.membership.is_leaving() {
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

    fn with_link(&self, number: u64, act: impl FnOnce(&Link)) {
        let links = self.shared.interest.links.load();
        if let Some(link) = links.iter().find(|link| link.number == number) {
            act(link);
        }
    }

    fn tell_all(&self, word: &[u8]) {
        for link in self.shared.interest.links.load().iter() {
            link.say(word);
        }
    }
}

/// Sends GOODBYE over a link and closes it, unless it is closing already.
fn part(link: &Link) {
    if link.outbox.reason().is_none() {
        link.outbox.append(&frame::bare(frame::GOODBYE));
        link.outbox.close(Reason::Shutdown);
    }
}
