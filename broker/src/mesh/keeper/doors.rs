//! How a connection with another node becomes a link: it is dialled or accepted, introduces itself, [`Membership`] judges it, and a
//! worker gets it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::super::sockets::{connect, ends_first};
use super::super::task;
use super::Keeper;
use crate::closing::Reason;
use crate::route::frame;
use crate::route::handshake::{HandshakeError, Linked, Origin, Question, Verdict, shake};
use crate::route::hello::{Hello, Peer, Why, put_json};
use crate::route::link::Link;
use crate::worker::Newcomer;

impl Keeper {
    /// Dials those whose time has come.
    pub(super) fn dial(&mut self) {
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

    /// Another node has connected, or whoever it is.
    pub(super) fn greet(&mut self, stream: TcpStream, peer: SocketAddr) {
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

    /// Judges who has introduced itself.
    pub(super) fn answer(&mut self, question: Question) {
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
            self.take_cluster_name();
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

    /// The node has the name of the cluster that it has joined, if it had none. Who was linked before under no name either introduces
    /// itself anew: it may have joined another cluster meanwhile.
    fn take_cluster_name(&self) {
        let membership = &self.parts.membership;
        let name = &membership.own().cluster;
        if self.parts.shared.set_cluster_name(name) {
            info!(cluster = name, "cluster name taken over from the cluster joined");
            for number in membership.with_other_names() {
                self.with_link(number, |link| link.outbox.close(Reason::Refused));
            }
        }
    }

    /// An introduction has ended, with a link or without.
    pub(super) async fn shaken(&mut self, origin: Origin, result: Result<Linked, HandshakeError>) {
        let now = Instant::now();
        self.is_through(&origin);
        let error = match result {
            Ok(linked) => return self.install(linked).await,
            Err(error) => error,
        };
        let fault = match &error {
            HandshakeError::RefusedByPeer { why, .. } | HandshakeError::RefusedHere { why, .. } => {
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
                } else if matches!(error, HandshakeError::Client(_))
                    && self.complaints.is_news(&format!("{} client", peer.ip()), now)
                {
                    warn!(%peer, "{error}");
                } else {
                    debug!(%peer, "a connection to the mesh's port came to nothing: {error}");
                }
                return;
            }
        };
        match &error {
            HandshakeError::RefusedByPeer { text, .. } | HandshakeError::RefusedHere { text, .. } => {
                self.refusals.insert(at.clone(), text.clone());
            }
            _ => drop(self.refusals.remove(&at)),
        }
        let membership = &mut self.parts.membership;
        let refused = match &error {
            HandshakeError::RefusedByPeer { id, run, why, .. } => Some((id, run, *why, true)),
            HandshakeError::RefusedHere { id, run, why, .. } => Some((id, run, *why, false)),
            _ => None,
        };
        let first = match refused {
            Some((id, run, why, theirs)) => {
                membership.answered(&at, id, run);
                membership.dial_refused(&at, id, why, theirs, now)
            }
            None => membership.dial_failed(&at, error.is_unheard(), now),
        };
        // Both have dialled, and the other connection is the link.
        let is_linked = matches!(
            &error,
            HandshakeError::RefusedByPeer { why: Why::Linked, .. }
                | HandshakeError::RefusedHere { why: Why::Linked, .. }
        );
        match (fault.is_some() || error.is_foreign(), first && !is_linked) {
            (true, true) => error!("no link with {at}: {error}"),
            (false, true) => info!("no link with {at} yet: {error}"),
            (_, false) => debug!("no link with {at}: {error}"),
        }
    }

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
        let worker = &self.parts.workers[self.parts.shared.home(number)];
        if worker.send(newcomer).await.is_err() {
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
}
