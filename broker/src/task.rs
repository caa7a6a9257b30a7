//! The shell around one [`Client`]: its socket, one timer, and what other tasks call it for.
//!
//! *Architecture invariant:* a client that panics or errs takes only itself down.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use standin_daemon::linger;
use standin_wire::encode;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::card::Card;
use crate::client::Client;
use crate::closing::Reason;
use crate::end_log;
use crate::intake::Intake;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::shared::{Shared, Told};
use crate::turn;

/// The first PING comes so long after CONNECT, and up to a fifth later, whatever the client sends, as `nats-server` does it: it measures
/// the way, and some old client libraries look at an `-ERR` only when more bytes come.
const FIRST_PING: Duration = Duration::from_secs(2);
/// How long a producer waits for a subscriber that cannot keep up, before it may send more.
const STALL: Duration = Duration::from_millis(5);
/// How often a socket that takes nothing is looked at.
const BLOCKED_LOOK: Duration = Duration::from_millis(100);

/// See the file's head.
struct Task {
    shared: Arc<Shared>,
    card: Arc<Card>,
    outbox: Arc<Outbox>,
    socket: Arc<TcpStream>,
    client: Client,
    policy: Arc<Policy>,
    /// The news that `policy` and `told` are of.
    news: u64,
    /// What INFO last told the client.
    told: Told,
    /// The first INFO did not name all nodes; a client that takes another one gets them.
    owes_info: bool,
    intake: Intake,
    /// There are whole frames in `intake`: the last turn was not long enough for all.
    unfinished: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    started: Instant,
    heard: Instant,
    /// When the first PING behind CONNECT is due; `None` before CONNECT, and when it was sent.
    first_ping: Option<Instant>,
    was_connected: bool,
    pinged: Option<Instant>,
    pings: u32,
    /// Nothing is read before: a subscriber cannot keep up.
    stalled_until: Option<Instant>,
}

/// Serves one client from its INFO to its end.
pub(crate) async fn run(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, id: u64) -> Reason {
    let now = Instant::now();
    let socket = Arc::new(stream);
    let outbox = Arc::new(Outbox::new(id, Some(Arc::clone(&socket)), shared.workers));
    let card = Arc::new(Card::new(Arc::clone(&outbox), peer));
    let news = shared.news();
    shared.clients.insert(Arc::clone(&card));
    let policy = shared.policy.load_full();
    let mut task = Task {
        client: Client::new(Arc::clone(&shared), Arc::clone(&card), Arc::clone(&policy)),
        told: shared.to_tell(),
        owes_info: false,
        policy,
        news,
        socket,
        intake: Intake::default(),
        unfinished: false,
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        timer_at: now,
        started: now,
        heard: now,
        first_ping: None,
        was_connected: false,
        pinged: None,
        pings: 0,
        stalled_until: None,
        outbox,
        card,
        shared,
    };
    task.inform(true);
    let reason = poll_fn(|cx| task.poll(cx)).await;
    task.end(reason);
    let write_deadline = task.policy.write_deadline;
    let Task { socket, outbox, .. } = task;
    // What is left for it goes out as far as the socket takes it; then the connection is closed in order.
    Box::pin(close(socket, outbox, reason, write_deadline)).await;
    reason
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        // Not being able to write is no reason not to read: the limit on what waits decides.
        let _ = self.outbox.poll_drain(cx);
        if let Some(reason) = self.outbox.reason() {
            return Poll::Ready(reason);
        }
        if self.shared.news() != self.news
            && let Err(reason) = self.take_news()
        {
            return Poll::Ready(reason);
        }
        let idle = self.is_stalled() || self.is_waiting();
        if idle || !self.unfinished && self.socket.poll_read_ready(cx).is_pending() {
            return self.poll_timer(cx);
        }
        if let Err(reason) = self.take_turn() {
            return Poll::Ready(reason);
        }
        if self.is_waiting() || !self.unfinished && self.socket.poll_read_ready(cx).is_pending() {
            return self.poll_timer(cx);
        }
        if let Some(reason) = self.tick(Instant::now()) {
            return Poll::Ready(reason);
        }
        // There is more to do, but the sockets of all others are looked at before: one firehose must not starve them.
        if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn is_stalled(&mut self) -> bool {
        if self.outbox.take_stall() {
            self.stalled_until = Some(Instant::now() + STALL);
            self.shared.stalls.fetch_add(1, Relaxed);
        }
        let stalled = self.stalled_until.is_some_and(|until| Instant::now() < until);
        if !stalled {
            self.stalled_until = None;
        }
        stalled
    }

    /// Whether the client's PONG still waits. Once it does not, it is sent, and what the client has sent meanwhile is taken, in its next turn.
    fn is_waiting(&mut self) -> bool {
        if !self.client.flush.is_begun() {
            return false;
        }
        let waits = self.client.is_waiting(Instant::now());
        self.unfinished |= !waits;
        waits
    }

    /// Settings have changed, or the server is about to go.
    fn take_news(&mut self) -> Result<(), Reason> {
        self.news = self.shared.news();
        self.policy = self.shared.policy.load_full();
        self.client.set_policy(Arc::clone(&self.policy))?;
        let told = self.shared.to_tell();
        if told != self.told {
            self.told = told;
            if self.card.takes_info.load(Relaxed) {
                self.inform(false);
            }
        }
        Ok(())
    }

    fn inform(&mut self, is_first: bool) {
        let (id, peer) = (self.outbox.id, self.card.peer);
        let local = self.socket.local_addr().ok();
        let (line, is_whole) = self.shared.info(self.told, id, peer, local, is_first);
        self.owes_info = !is_whole;
        self.say(line.as_bytes());
    }

    /// Goes on with what was read before, or reads once.
    fn take_turn(&mut self) -> Result<(), Reason> {
        let pending_bytes_max = self.policy.pending_bytes_max;
        let came = turn::take(pending_bytes_max, |router, buffer, pauses| {
            let client = &mut self.client;
            let take = |bytes: &[u8]| {
                pauses.admit(&self.shared, &self.outbox)?;
                client.take(bytes, router)
            };
            let taken = if self.unfinished {
                self.intake.take_held(take).map(|()| 0)
            } else {
                self.intake.read(&self.socket, buffer, take)
            };
            self.unfinished = router.is_tired() || client.flush.is_begun();
            client.count();
            router.count(&self.shared.lookups);
            taken
        })?;
        if came > 0 {
            self.heard();
        }
        if self.client.is_connected() && !self.was_connected {
            self.was_connected = true;
            let wait = FIRST_PING.min(self.policy.ping_interval);
            self.first_ping = Some(Instant::now() + wait.mul_f64(rand::random_range(1.0..1.2)));
        }
        if self.owes_info && self.card.takes_info.load(Relaxed) {
            self.inform(false);
        }
        Ok(())
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.card.heard(self.heard);
        self.pings = 0;
        if self.client.took_pong()
            && let Some(pinged) = self.pinged
        {
            let rtt = self.heard.saturating_duration_since(pinged);
            self.card.answered_after(rtt);
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        loop {
            let now = Instant::now();
            if let Some(reason) = self.tick(now) {
                return Poll::Ready(reason);
            }
            let due = self.due(now);
            // A timer that fires too early is set anew then; setting it anew for each batch would cost more.
            if due < self.timer_at || self.timer.is_elapsed() {
                self.timer_at = due;
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.stalled_until.is_some_and(|until| now >= until) {
                self.stalled_until = None;
                cx.waker().wake_by_ref();
            }
            if self.client.flush.until().is_some_and(|until| now >= until) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// What is due, now.
    fn tick(&mut self, now: Instant) -> Option<Reason> {
        let policy = &self.policy;
        let unknown = policy.access.is_required() && !self.client.is_connected();
        if unknown && now >= self.started + policy.auth_timeout {
            return Some(Reason::AuthenticationTimeout);
        }
        let deadline = policy.write_deadline;
        if self
            .outbox
            .blocked_since()
            .is_some_and(|since| now >= since + deadline)
        {
            return Some(Reason::SlowConsumerDeadline);
        }
        if self.ping_due().is_some_and(|due| now >= due) {
            self.pinged = Some(now);
            self.first_ping = None;
            if self.pings >= policy.ping_max {
                return Some(Reason::Stale);
            }
            self.pings += 1;
            self.say(encode::PING);
        }
        None
    }

    /// When the next PING is due; `None` while a PONG waits for other nodes: a client takes the first frame behind its own PING for
    /// the answer.
    fn ping_due(&self) -> Option<Instant> {
        let interval = self.policy.ping_interval;
        let due = match (self.first_ping, self.pinged) {
            (Some(due), _) => due,
            (None, None) => self.started + interval,
            (None, Some(pinged)) => pinged.max(self.heard) + interval,
        };
        (!self.client.flush.is_begun()).then_some(due)
    }

    fn due(&self, now: Instant) -> Instant {
        let policy = &self.policy;
        // While a PONG waits, the time for that is due before any PING.
        let mut due = self.ping_due().unwrap_or(now + policy.ping_interval);
        if policy.access.is_required() && !self.client.is_connected() {
            due = due.min(self.started + policy.auth_timeout);
        }
        if let Some(since) = self.outbox.blocked_since() {
            due = due.min((since + policy.write_deadline).max(now + BLOCKED_LOOK));
        }
        let others = [self.stalled_until, self.client.flush.until()];
        others.into_iter().flatten().fold(due, Instant::min)
    }

    /// Sends the client bytes of the server's own.
    fn say(&self, bytes: &[u8]) {
        turn::say(&self.outbox, bytes);
    }

    /// The subscriptions go, and the client hears why.
    fn end(&mut self, reason: Reason) {
        self.outbox.close(reason);
        end_log::closed(reason, &self.card, &self.policy);
        let subscriptions = self.client.end();
        self.client.count();
        self.shared.clients.remove(self.outbox.id, reason, subscriptions);
        if let Some(text) = reason.text() {
            let mut line = Vec::new();
            encode::err(text.as_bytes(), &mut line);
            self.say(&line);
        }
        // Who stops the node ends the links when the last client is gone; what that one said last must be with them.
        turn::flush();
    }
}

/// Writes what is left, says that nothing more comes, and takes what the other side still sends, all in a bounded time.
async fn close(socket: Arc<TcpStream>, outbox: Arc<Outbox>, reason: Reason, write_deadline: Duration) {
    let broken = reason.is_broken();
    if !broken {
        // Whatever comes of it, the connection ends here. Who has only closed its sending side may be reading much.
        let patience = match reason {
            Reason::ClientClosed => write_deadline,
            _ => linger::LINGER,
        };
        let _ = tokio::time::timeout(patience, poll_fn(|cx| outbox.poll_drain(cx))).await;
    }
    outbox.gone();
    drop(outbox);
    if let Some(stream) = Arc::into_inner(socket).filter(|_| !broken) {
        linger::close(stream).await;
    }
}
