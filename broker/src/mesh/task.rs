//! The shell of one link: its socket, its timer, and telling the peer what clients here listen to.
//!
//! It runs on a worker like a client, and takes turns with clients. What is there when the link begins is told in pieces, no faster
//! than the peer takes them; changes go between the pieces.
//!
//! *Architecture invariant:* a link that is silent, blocked or wrong ends, and what the peer wanted ends with it. A link that cannot keep
//! up slows those who publish for a moment at a time, until its limit ends it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockRef;
use standin_daemon::linger;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Sleep;
use tracing::error;

use super::inbound::{Heard, Inbound};
use crate::closing::Reason;
use crate::intake::Intake;
use crate::outbox::Outbox;
use crate::route::frame;
use crate::route::hello::Hello;
use crate::route::link::Link;
use crate::shared::Shared;
use crate::subscriptions::Cursor;
use crate::turn;

/// So many bytes may wait while the peer is told what is there; the rest is told when it has taken them.
const TELLING_BYTES_MAX: usize = 1024 * 1024;
/// So much of what a peer wanted is taken out in one turn when its link ends.
const ENDED_A_TURN: usize = 4096;
/// Pieces of it told in one turn.
const PIECES_A_TURN: usize = 16;

/// What a link tells the node's keeper; when that has ended, nobody needs it.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A link takes messages.
    Stands(u64),
    /// The peer was told all there is.
    Told(u64),
    /// The peer has shown that it lives since its id was claimed.
    Lives(u64),
    /// Something came that is the node's business.
    Heard(u64, Heard),
    /// It is gone; the peer had said that it leaves, or not.
    Lost {
        number: u64,
        peer: String,
        reason: Reason,
        leaves: bool,
        unsent_bytes: usize,
        undelivered: u64,
    },
}

/// Times of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// A peer that is silent for so long is asked for a sign of life,
    pub(crate) ping_interval: Duration,
    /// and lost when none comes for so long.
    pub(crate) ping_timeout: Duration,
}

struct Task {
    shared: Arc<Shared>,
    link: Arc<Link>,
    socket: Arc<TcpStream>,
    pace: Pace,
    inbound: Inbound,
    intake: Intake,
    unfinished: bool,
    /// How far the peer was told what is there; `None`: all of it.
    telling: Option<Cursor>,
    events: UnboundedSender<LinkEvent>,
    leaves: bool,
    /// Why it ended, and what was not sent then.
    lost: Option<(Reason, usize)>,
    heard: Instant,
    pinged: Option<Instant>,
    /// That PING was sent because another node claims the peer's id.
    claimed: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
}

/// What a link is made of, beside its socket.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) peer: Hello,
    pub(crate) address: SocketAddr,
    pub(crate) dialled: bool,
    /// What the peer is told first.
    pub(crate) greeting: Vec<u8>,
    /// What was read of it before.
    pub(crate) came: Vec<u8>,
    pub(crate) pace: Pace,
    pub(crate) pending_bytes_max: usize,
    pub(crate) events: UnboundedSender<LinkEvent>,
}

/// Serves one link to its end.
pub(crate) async fn run(parts: Parts, socket: io::Result<TcpStream>) {
    let socket = match socket {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            error!(link = parts.number, "the link broke at once: {error}");
            let lost = LinkEvent::Lost {
                number: parts.number,
                peer: parts.peer.id,
                reason: Reason::ReadError,
                leaves: false,
                unsent_bytes: 0,
                undelivered: 0,
            };
            // A node that has ended needs no news.
            let _ = parts.events.send(lost);
            return;
        }
    };
    let mut task = Task::new(parts, socket);
    let reason = poll_fn(|cx| task.poll(cx)).await;
    task.end(reason).await;
}

impl Task {
    fn new(parts: Parts, socket: Arc<TcpStream>) -> Self {
        let now = Instant::now();
        let shared = parts.shared;
        // Clients count from 1; the two never meet.
        let id = u64::MAX - parts.number;
        let outbox = Outbox::of_link(id, Arc::clone(&socket), shared.workers, parts.pending_bytes_max);
        outbox.append(&parts.greeting);
        outbox.set_wants_room(true);
        let link = Link::new(
            parts.number,
            Arc::new(outbox),
            parts.peer,
            parts.address,
            parts.dialled,
        );
        let link = Arc::new(link);
        // Whoever publishes may send to it from here on, and all that changes is told.
        shared.interest.add_link(&link);
        let _ = parts.events.send(LinkEvent::Stands(parts.number));
        Self {
            inbound: Inbound::new(Arc::clone(&link), &shared.interest),
            unfinished: !parts.came.is_empty(),
            intake: Intake::with(&parts.came),
            telling: Some(Cursor::default()),
            leaves: false,
            lost: None,
            heard: now,
            pinged: None,
            claimed: false,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: now,
            pace: parts.pace,
            events: parts.events,
            shared,
            link,
            socket,
        }
    }
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.tell();
        let _ = self.link.outbox.poll_drain(cx);
        if let Some(reason) = self.link.outbox.reason() {
            return Poll::Ready(reason);
        }
        // What was told may all be with the socket by now.
        let more_to_tell = self.telling.is_some() && self.has_room();
        if !self.unfinished && self.socket.poll_read_ready(cx).is_pending() {
            if more_to_tell {
                return yielding(cx);
            }
            return self.poll_timer(cx);
        }
        if let Err(reason) = self.take_turn() {
            return Poll::Ready(reason);
        }
        if !more_to_tell && !self.unfinished && self.socket.poll_read_ready(cx).is_pending() {
            return self.poll_timer(cx);
        }
        if let Some(reason) = self.tick(Instant::now()) {
            return Poll::Ready(reason);
        }
        yielding(cx)
    }

    /// Whether the peer has taken enough of what it was told to be told more.
    fn has_room(&self) -> bool {
        self.link.outbox.pending_bytes() <= TELLING_BYTES_MAX
    }

    /// Tells the next pieces of what is there.
    fn tell(&mut self) {
        for _ in 0..PIECES_A_TURN {
            if !self.has_room() {
                return;
            }
            let Some(told) = &mut self.telling else { return };
            let link = &self.link;
            if self.shared.interest.tell_piece(told, link) {
                self.telling = None;
                link.outbox.set_wants_room(false);
                let _ = self.events.send(LinkEvent::Told(link.number));
            }
        }
    }

    fn take_turn(&mut self) -> Result<(), Reason> {
        let pending_bytes_max = self.shared.policy.load().pending_bytes_max;
        let mut heard = Vec::new();
        let interest = &self.shared.interest;
        let came = turn::take(pending_bytes_max, |router, buffer, pauses| {
            let inbound = &mut self.inbound;
            let take = |bytes: &[u8]| {
                pauses.admit(&self.shared, &self.link.outbox)?;
                inbound.take(bytes, interest, &self.shared.flush, router, &mut heard)
            };
            let taken = if self.unfinished {
                self.intake.take_held(take).map(|()| 0)
            } else {
                self.intake.read(&self.socket, buffer, take)
            };
            self.unfinished = router.is_tired() || inbound.owes();
            router.count(&self.shared.lookups);
            taken
        })?;
        if came > 0 {
            self.heard = Instant::now();
            self.link.heard(self.heard);
            self.link.raw_bytes_in.fetch_add(came as u64, Relaxed);
        }
        if self.inbound.took_pong()
            && let Some(pinged) = self.pinged.take()
        {
            self.link.set_rtt(pinged.elapsed());
            if std::mem::take(&mut self.claimed) {
                let _ = self.events.send(LinkEvent::Lives(self.link.number));
            }
        }
        for heard in heard {
            match heard {
                Heard::Serving => self.link.serving.store(true, Relaxed),
                Heard::Draining => self.link.draining.store(true, Relaxed),
                Heard::Goodbye => self.leaves = true,
                _ => {}
            }
            let _ = self.events.send(LinkEvent::Heard(self.link.number, heard));
        }
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        loop {
            if let Some(reason) = self.tick(Instant::now()) {
                return Poll::Ready(reason);
            }
            let due = self.due();
            if due < self.timer_at || self.timer.is_elapsed() {
                self.timer_at = due;
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Reason> {
        if self.pinged.is_some() && now >= self.due() {
            return Some(Reason::Stale);
        }
        let deadline = self.shared.policy.load().write_deadline;
        let blocked = self.link.outbox.blocked_since();
        if blocked.is_some_and(|since| now >= since + deadline) {
            return Some(Reason::SlowConsumerDeadline);
        }
        // The answer to an earlier PING shows nothing.
        if self.pinged.is_none() && (self.link.take_probe() || now >= self.heard + self.pace.ping_interval) {
            self.pinged = Some(now);
            self.claimed = self.link.take_claim();
            let mut ping = Vec::new();
            frame::put_ping(&mut ping, frame::PROBE);
            turn::say(&self.link.outbox, &ping);
        }
        None
    }

    fn due(&self) -> Instant {
        match self.pinged {
            Some(pinged) => pinged.max(self.heard) + self.pace.ping_timeout,
            None => self.heard + self.pace.ping_interval,
        }
    }

    async fn end(mut self, reason: Reason) {
        let outbox = Arc::clone(&self.link.outbox);
        outbox.close(reason);
        self.shared.flush.wake(&self.shared.interest.links);
        while self.inbound.end_some(&self.shared.interest, ENDED_A_TURN) {
            tokio::task::yield_now().await;
        }
        self.let_go();
        let is_given_up = reason.is_broken() || reason == Reason::Stale;
        if !is_given_up {
            // What waits may be the last messages of clients that have gone.
            let drained = poll_fn(|cx| outbox.poll_drain(cx));
            let _ = tokio::time::timeout(linger::LINGER, drained).await;
        }
        let socket = Arc::clone(&self.socket);
        self.lost = Some((reason, outbox.unsent_bytes()));
        drop(self);
        if is_given_up {
            // Reset: what the peer has not read yet counts as lost, and must not be delivered when it goes on (`pause.rs`).
            let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        } else if let Some(stream) = Arc::into_inner(socket) {
            linger::close(stream).await;
        }
    }

    /// Nothing is sent to the link any more. What the peer wanted goes first: messages for it would be lost.
    fn let_go(&mut self) {
        let interest = &self.shared.interest;
        self.inbound.end(interest);
        interest.remove_link(&self.link);
        self.shared.flush.wake(&interest.links);
    }
}

impl Drop for Task {
    /// However it ends: nothing of the link is left behind.
    fn drop(&mut self) {
        let (reason, unsent_bytes) = self.lost.unwrap_or_else(|| {
            self.let_go();
            (Reason::Bug, self.link.outbox.unsent_bytes())
        });
        self.link.outbox.gone();
        self.shared.interest.links.ended(reason, unsent_bytes);
        let _ = self.events.send(LinkEvent::Lost {
            number: self.link.number,
            peer: self.link.peer.id.clone(),
            reason,
            leaves: self.leaves,
            unsent_bytes,
            undelivered: self.link.undelivered.load(Relaxed),
        });
    }
}

/// There is more to do, after all others of this worker that are ready.
fn yielding(cx: &mut Context<'_>) -> Poll<Reason> {
    if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}
