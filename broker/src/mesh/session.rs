//! The session of one route: it delivers the peer's messages to local clients, announces the local interest to the peer, and checks by
//! PING that the peer is alive.
//!
//! At first it sends the complete interest in pieces, as fast as the peer reads them. Changes are sent between the pieces.
//!
//! *Architecture invariants:* a message from a route goes to local clients only, never to another route. A route ends when it
//! is silent or blocked, or when it violates the protocol. The peer's interest is removed with it. While a route cannot keep up, its
//! publishers are paused for short times; at the limit on pending bytes it is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use socket2::SockRef;
use standin_daemon::linger;
use standin_tls::stream::Stream;
use standin_wire::MoveId;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::error;

use crate::account;
use crate::cache::CachedRecipients;
use crate::close_reason::CloseReason;
use crate::flush::PeerFlush;
use crate::moving::Source;
use crate::outbox::Outbox;
use crate::route::Route;
use crate::route::event::RouteEvent;
use crate::route::frame::{self, FRAME_BYTES_MAX, Frame, Message};
use crate::route::hello::{Hello, MOVES};
use crate::route::incoming::Incoming;
use crate::router::Router;
use crate::shared::Shared;
use crate::shell::{self, Session, Shell};
use crate::subscriptions::Cursor;

/// Number of pending bytes above which no further piece of the complete interest is sent.
const SNAPSHOT_PENDING_BYTES_MAX: usize = 1024 * 1024;
/// Number of the peer's subscriptions that are removed per step after the end of the route.
const REMOVED_PER_TURN: usize = 4096;
/// Maximum number of pieces of the complete interest that are sent in one turn.
const PIECES_PER_TURN: usize = 16;

/// Delay before an event is sent again to a keeper whose queue is full. Until then, nothing is read from the peer.
const KEEPER_RETRY: Duration = Duration::from_millis(10);

/// Sender of events to the keeper. Each event has the number of its route.
pub(crate) type Events = Sender<(u64, RouteEvent)>;

/// Parameters of a route's session, besides its socket.
pub(crate) struct RouteParameters {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) peer: Hello,
    pub(crate) address: SocketAddr,
    pub(crate) dialled: Option<String>,
    /// Frames that are sent first.
    pub(crate) greeting: Vec<u8>,
    pub(crate) events: Events,
}

pub(crate) struct RouteSession {
    shared: Arc<Shared>,
    pub(crate) route: Arc<Route>,
    /// Silence of the peer after which a PING is sent.
    ping_interval: Duration,
    /// Silence of the peer after which the route ends, once a PING is sent.
    ping_timeout: Duration,
    incoming: Incoming,
    flush: PeerFlush,
    /// Subject of the last message, and its recipients.
    last: Option<(Vec<u8>, CachedRecipients)>,
    messages_in: u64,
    bytes_in: u64,
    /// Progress of sending the complete interest; `None` once it is sent.
    snapshot: Option<Cursor>,
    events: Events,
    /// Events for which the keeper's queue had no room.
    unsent: Vec<RouteEvent>,
    sent_goodbye: bool,
    /// Reason for the end of the route, and the number of unsent bytes.
    lost: Option<(CloseReason, usize)>,
    last_received: Instant,
    pinged: Option<Instant>,
    took_pong: bool,
    /// The PING was sent because another node claims the peer's id.
    claimed: bool,
}

/// Serves one route until its end. `received` are the bytes that were read with the handshake.
pub(crate) async fn run(parameters: RouteParameters, received: Vec<u8>, socket: io::Result<Stream>) {
    let socket = match socket {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            error!(route = parameters.number, "the route broke at once: {error}");
            let lost = RouteEvent::Lost {
                peer: parameters.peer.id,
                reason: CloseReason::ReadError,
                sent_goodbye: false,
                unsent_bytes: 0,
                undelivered: 0,
            };
            // If the keeper has ended, the event is not needed.
            let _ = parameters.events.send((parameters.number, lost)).await;
            return;
        }
    };
    let shared = Arc::clone(&parameters.shared);
    let (revision, policy) = (shared.revision(), shared.policy.load_full());
    // Clients are numbered upwards from 1, and routes downwards from the maximum, so that their ids differ.
    let id = u64::MAX - parameters.number;
    let pending_bytes_max = shared.settings.load().cluster.max_pending;
    let outbox = Outbox::new(id, Some(Arc::clone(&socket)), shared.workers);
    let outbox = outbox.with_pending_bytes_max(pending_bytes_max);
    let session = RouteSession::new(parameters, outbox, Instant::now());
    let outbox = Arc::clone(&session.route.outbox);
    let mut shell = Shell::new(session, (outbox, socket), shared, (revision, policy), &received);
    let reason = shell.run().await;
    end(shell, reason).await;
}

impl RouteSession {
    pub(crate) fn new(parameters: RouteParameters, outbox: Outbox, now: Instant) -> Self {
        let RouteParameters {
            shared,
            number,
            peer,
            address,
            dialled,
            greeting,
            events,
        } = parameters;
        let outbox = outbox.with_moves(peer.has(MOVES));
        outbox.append(&greeting);
        outbox.set_wants_room(true);
        let route = Arc::new(Route::new(number, Arc::new(outbox), peer, address, dialled));
        // From here on, messages and changes of interest are sent over the route.
        shared.moves.add_route(&route, &shared.interest);
        let cluster = &shared.settings.load().cluster;
        let mut session = Self {
            flush: PeerFlush::new(&shared.interest),
            incoming: Incoming::new(Arc::clone(&route), shared.interest.accepted.clone()),
            route,
            ping_interval: cluster.ping_interval_ms.duration(),
            ping_timeout: cluster.ping_timeout_ms.duration(),
            last: None,
            messages_in: 0,
            bytes_in: 0,
            snapshot: Some(Cursor::default()),
            events,
            unsent: Vec::new(),
            sent_goodbye: false,
            lost: None,
            last_received: now,
            pinged: None,
            took_pong: false,
            claimed: false,
            shared,
        };
        session.tell_keeper(RouteEvent::Established);
        session
    }

    /// Returns whether few enough bytes are pending for the next piece of the complete interest.
    fn has_room(&self) -> bool {
        self.route.outbox.pending_bytes() <= SNAPSHOT_PENDING_BYTES_MAX
    }

    fn tell_keeper(&mut self, event: RouteEvent) {
        self.unsent.push(event);
        self.send_events();
    }

    fn send_events(&mut self) {
        let number = self.route.number;
        let mut unsent = std::mem::take(&mut self.unsent).into_iter();
        for event in unsent.by_ref() {
            // If the keeper has ended, the event is not needed.
            if let Err(TrySendError::Full((_, event))) = self.events.try_send((number, event)) {
                self.unsent.push(event);
                break;
            }
        }
        self.unsent.extend(unsent);
    }

    /// Acks the peer's PINGs if all batches before them are sent. Returns whether no ack is owed any more.
    fn ack(&mut self, router: &mut Router) -> bool {
        self.flush.ack(&self.route, &self.shared.flush, &mut router.stage)
    }

    /// Handles a frame that is not a message. Not inlined, which keeps the loop over messages small.
    #[inline(never)]
    fn frame(&mut self, frame: &Frame<'_>, router: &mut Router) -> Result<(), CloseReason> {
        let move_id = |id: &frame::MoveBytes| MoveId(u128::from_be_bytes(*id));
        let (shared, stage) = (&self.shared, &mut router.stage);
        match *frame {
            Frame::Ping(frame::PROBE) => {
                frame::put_token(&mut stage.of(&self.route.outbox).bytes, frame::PONG, frame::PROBE)
            }
            Frame::Ping(change) => self.flush.peer_pinged(change, &shared.flush, stage),
            Frame::Pong(frame::PROBE) => self.took_pong = true,
            Frame::Pong(change) => {
                self.flush
                    .acked(change, &self.route, &shared.flush, &shared.interest, stage);
                shared.moves.acked(&shared.interest);
            }
            Frame::Cut { id, to } => {
                let to = str::from_utf8(to).unwrap_or_default();
                shared.moves.cut_received(move_id(id), to, &self.route);
            }
            Frame::Mark { id, worker } => {
                // What came before the mark is delivered first.
                stage.flush();
                shared
                    .moves
                    .marked(move_id(id), worker, &self.route, &shared.interest);
            }
            Frame::CutDone(id) => shared.moves.cut_done(move_id(id), &self.route, &shared.interest),
            _ => {
                if let Some(event) = self.incoming.apply(frame, &shared.interest.remote)? {
                    self.sent_goodbye |= event == RouteEvent::Goodbye;
                    self.tell_keeper(event);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn message(&mut self, message: &Message<'_>, router: &mut Router) -> Result<(), CloseReason> {
        let (interest, published) = (&self.shared.interest, &message.published);
        let acked = self.flush.before_message(&mut router.stage);
        self.messages_in += 1;
        self.bytes_in += (published.payload.len() + published.headers.map_or(0, <[u8]>::len)) as u64;
        let last = self.last.as_ref();
        let known = last.filter(|(subject, found)| *subject == published.subject && found.is_valid(interest));
        let found = match known {
            Some((_, found)) => found.clone(),
            None => {
                self.incoming.check_subject(account::split(published.subject).1)?;
                let found = router.route_cache.find(published.subject, interest);
                let (subject, last) = self.last.get_or_insert_with(|| (Vec::new(), found.clone()));
                subject.clear();
                subject.extend_from_slice(published.subject);
                *last = found.clone();
                found
            }
        };
        if let Some(reply) = published.reply {
            self.incoming.check_subject(reply)?;
        }
        let from = &self.route.outbox;
        let source = Source::Route {
            number: self.route.number,
            worker: message.passage.worker.into(),
            acked,
        };
        if !router.deliver_here(from, source, message, &found.recipients, interest) {
            self.route.undelivered.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Removes the next [`REMOVED_PER_TURN`] subscriptions of the peer. Returns whether more are left.
    pub(crate) fn remove_some_interest(&mut self) -> bool {
        self.last = None;
        self.incoming
            .remove_some(&self.shared.interest.remote, REMOVED_PER_TURN)
    }

    /// Removes the peer's interest, and then the route. In the other order, messages for the peer would be lost in between.
    fn detach(&mut self) {
        let interest = &self.shared.interest;
        self.incoming.remove_all(&interest.remote);
        interest.remove_route(&self.route);
        self.shared.moves.route_ended(&self.route, interest);
        self.shared.flush.wake(&interest.routes);
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl RouteSession {
    /// Creates a session without a socket, whose keeper's queue has room for one event.
    pub(crate) fn unconnected(
        shared: &Arc<Shared>,
    ) -> (Self, tokio::sync::mpsc::Receiver<(u64, RouteEvent)>) {
        let (events, received) = tokio::sync::mpsc::channel(1);
        let parameters = RouteParameters {
            shared: Arc::clone(shared),
            number: 1,
            peer: Hello::default(),
            address: shared.address,
            dialled: Some("localhost:6222".to_owned()),
            greeting: Vec::new(),
            events,
        };
        let outbox = Outbox::new(u64::MAX - 1, None, shared.workers);
        (Self::new(parameters, outbox, Instant::now()), received)
    }
}

impl Session for RouteSession {
    /// Sends the next pieces of the complete interest.
    fn fill(&mut self) {
        for _ in 0..PIECES_PER_TURN {
            if !self.has_room() {
                return;
            }
            let Some(cursor) = &mut self.snapshot else { return };
            if self.shared.interest.announce_piece(cursor, &self.route) {
                self.snapshot = None;
                self.route.outbox.set_wants_room(false);
                self.tell_keeper(RouteEvent::SnapshotSent);
            }
        }
    }

    fn has_more(&self) -> bool {
        self.snapshot.is_some() && self.has_room()
    }

    fn held_until(&mut self) -> Option<Instant> {
        if self.unsent.is_empty() {
            return None;
        }
        self.send_events();
        (!self.unsent.is_empty()).then(|| Instant::now() + KEEPER_RETRY)
    }

    fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, CloseReason> {
        let mut at = 0;
        // An ack that is still owed from the last turn comes first. Otherwise, it could be delayed forever.
        while !router.turn_exhausted() && (at > 0 || self.ack(router)) {
            // The frame is used in place: to copy it takes longer than to decode it (`tests/bench mesh`, 16 B).
            let decoded = frame::decode(&bytes[at..], FRAME_BYTES_MAX);
            let (frame, length) = match &decoded {
                Ok(Some((frame, length))) => (frame, length),
                Ok(None) => break,
                Err(error) => return Err(self.incoming.invalid_frame(*error)),
            };
            if !matches!(frame, Frame::Ping(_)) && !self.ack(router) {
                break;
            }
            at += length;
            match frame {
                Frame::Message(message) => self.message(message, router)?,
                other => self.frame(other, router)?,
            }
        }
        self.ack(router);
        let (stats, messages, bytes) = (&self.route.stats, &mut self.messages_in, &mut self.bytes_in);
        stats.messages_in.fetch_add(std::mem::take(messages), Relaxed);
        stats.bytes_in.fetch_add(std::mem::take(bytes), Relaxed);
        Ok(at)
    }

    fn wants_turn(&self) -> bool {
        self.flush.is_owed()
    }

    fn end_turn(&mut self, received: usize, now: Instant) {
        if received > 0 {
            self.last_received = now;
            self.route.stats.heard(now);
            self.route.raw_bytes_in.fetch_add(received as u64, Relaxed);
        }
        if std::mem::take(&mut self.took_pong)
            && let Some(pinged) = self.pinged.take()
        {
            self.route.stats.set_rtt(now.saturating_duration_since(pinged));
            if std::mem::take(&mut self.claimed) {
                self.tell_keeper(RouteEvent::ClaimAnswered);
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<CloseReason> {
        if self.pinged.is_some() && now >= self.due(now) {
            return Some(CloseReason::Stale);
        }
        // A requested probe waits for the PONG of the PING in flight: that PONG may have been sent before the probe was requested.
        if self.pinged.is_none()
            && (self.route.take_probe() || now >= self.last_received + self.ping_interval)
        {
            self.pinged = Some(now);
            self.claimed = self.route.take_claim();
            self.route.send(&frame::token(frame::PING, frame::PROBE));
        }
        None
    }

    fn due(&self, _: Instant) -> Instant {
        match self.pinged {
            Some(pinged) => pinged.max(self.last_received) + self.ping_timeout,
            None => self.last_received + self.ping_interval,
        }
    }
}

/// Ends a route: sends the pending bytes and closes the connection, or resets it if the route is broken or stale.
async fn end(mut shell: Shell<RouteSession>, reason: CloseReason) {
    let outbox = Arc::clone(&shell.session.route.outbox);
    let shared = Arc::clone(&shell.session.shared);
    outbox.close(reason);
    shared.flush.wake(&shared.interest.routes);
    while shell.session.remove_some_interest() {
        tokio::task::yield_now().await;
    }
    shell.session.detach();
    let is_given_up = reason.is_broken() || reason == CloseReason::Stale;
    if !is_given_up {
        // The pending bytes may contain the last messages of clients that have disconnected.
        shell::write_rest(&outbox, linger::LINGER).await;
    }
    let (mut session, socket) = (shell.session, shell.socket);
    session.lost = Some((reason, outbox.unsent_bytes()));
    drop(session);
    if is_given_up {
        // The connection is reset. Otherwise, a paused peer would later deliver the unread bytes, which are counted as lost
        // (`pause.rs`).
        let _ = SockRef::from(socket.socket()).set_linger(Some(Duration::ZERO));
    } else if let Some(stream) = Arc::into_inner(socket) {
        linger::close(stream).await;
    }
}

impl Drop for RouteSession {
    /// Removes the peer's interest and the route, at any end of the session, including a panic.
    fn drop(&mut self) {
        let (reason, unsent_bytes) = self.lost.unwrap_or_else(|| {
            self.detach();
            (CloseReason::Panicked, self.route.outbox.unsent_bytes())
        });
        self.route.outbox.release();
        self.shared.interest.routes.ended(reason, unsent_bytes);
        self.tell_keeper(RouteEvent::Lost {
            peer: self.route.peer.id.clone(),
            reason,
            sent_goodbye: self.sent_goodbye,
            unsent_bytes,
            undelivered: self.route.undelivered.load(Relaxed),
        });
        let unsent = std::mem::take(&mut self.unsent);
        if unsent.is_empty() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        // The keeper's queue is full, but it must get the event that the route has ended.
        let (events, number) = (self.events.clone(), self.route.number);
        runtime.spawn(async move {
            for event in unsent {
                if events.send((number, event)).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use standin_wire::client::Publish;
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::settings::Settings;
    use crate::stage::Stage;
    use crate::subscription::Subscription;

    fn session() -> (Arc<Shared>, RouteSession, Receiver<(u64, RouteEvent)>) {
        let settings = Settings::from_toml("[process]\nworkers = 2\n").unwrap();
        let address = ([127, 0, 0, 1], 6222).into();
        let shared = Arc::new(Shared::new(settings, address).unwrap());
        let (session, events) = RouteSession::unconnected(&shared);
        (shared, session, events)
    }

    #[test]
    fn a_ping_is_answered_after_the_batches_of_other_workers_are_sent_and_later_frames_wait() {
        let (shared, mut session, _events) = session();
        let (mut router, mut other) = (Router::new(0, 10), Stage::new(1));
        shared.flush.add_stage(&router.stage);
        shared.flush.add_stage(&other);
        let outbox = Arc::clone(&session.route.outbox);
        let mut frames = [3, 4].map(|change| frame::token(frame::PING, change)).concat();
        let pings = frames.len();
        frame::put_interest(&mut frames, b"a", None, Some(1));
        let mut take = |bytes: &[u8], router: &mut Router| {
            router.begin_turn();
            let taken = session.take(bytes, router);
            let answered = router.stage.of(&outbox).bytes.clone();
            router.stage.flush();
            (taken.expect("frames"), answered, session.wants_turn())
        };
        let sent: Vec<_> = (2..4).map(|id| Arc::new(Outbox::new(id, None, 2))).collect();
        for outbox in &sent {
            other.of(outbox).bytes.push(b'x');
        }
        let pong = frame::token(frame::PONG, 4);
        other.flush_to(&sent[0]);
        assert_eq!(take(&frames, &mut router), (pings, Vec::new(), true));
        assert_eq!(take(&frames[pings..], &mut router), (0, Vec::new(), true));
        other.flush();
        let rest = frames.len() - pings;
        assert_eq!(take(&frames[pings..], &mut router), (rest, pong, false));
        // The ack does not wait for a batch that begins after the PING.
        let pong = frame::token(frame::PONG, 3);
        assert_eq!(take(&frames[..pings / 2], &mut router), (pings / 2, pong, false));
    }

    #[test]
    fn messages_without_a_local_subscriber_are_counted_as_undelivered() {
        let (shared, mut session, _events) = session();
        let (interest, mut router) = (&shared.interest, Router::new(0, 10));
        let route = Arc::clone(&session.route);
        let mut message = Vec::new();
        let published = Publish {
            subject: b"a",
            reply: None,
            headers: None,
            payload: b"hi",
        };
        frame::put_message_head(&mut message, b"\x01q", frame::Passage::default(), &published);
        message.extend_from_slice(published.payload);
        let mut undelivered_after = |router: &mut Router| {
            router.begin_turn();
            assert_eq!(session.take(&message, router), Ok(message.len()));
            route.undelivered.load(Relaxed)
        };
        assert_eq!(undelivered_after(&mut router), 1);
        let client = Arc::new(Outbox::unconnected(2));
        let plain = Arc::new(Subscription::new(client, b"a", None, b"1"));
        interest.local.add(&plain);
        assert_eq!(undelivered_after(&mut router), 1, "a subscriber gets the message");
        interest.local.remove(&plain);
        let member = Arc::new(Subscription::new(
            Arc::clone(&plain.client),
            b"a",
            Some(b"q"),
            b"2",
        ));
        interest.local.add(&member);
        assert_eq!(undelivered_after(&mut router), 1, "a member gets the message");
        interest.local.remove(&member);
        assert_eq!(undelivered_after(&mut router), 2);
        assert_eq!(route.stats.messages_in.load(Relaxed), 4);
    }

    #[test]
    fn while_the_keepers_queue_is_full_nothing_is_read_and_no_event_is_lost() {
        let (_shared, mut session, mut received) = session();
        let mut router = Router::new(0, 10);
        let frames = [frame::bare(frame::SYNCED), frame::bare(frame::DRAINING)].concat();
        assert_eq!(session.take(&frames, &mut router), Ok(frames.len()));
        let mut events = Vec::new();
        while session.held_until().is_some() {
            events.push(received.try_recv().expect("an event").1);
        }
        events.push(received.try_recv().expect("an event").1);
        let all = [RouteEvent::Established, RouteEvent::Synced, RouteEvent::Draining];
        assert_eq!(events, all);
    }
}
