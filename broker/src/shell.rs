//! The task around one connection, a client's or a route's: its socket, its read buffer, one timer, and the turns of its [`Session`].
//!
//! The session is synchronous: it is called with bytes and the time. All waiting is in this file.
//!
//! *Architecture invariant:* a session that fails or panics ends only its own connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use standin_tls::stream::Stream;
use tokio::time::Sleep;

use crate::close_reason::CloseReason;
use crate::intake::Intake;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::router::Router;
use crate::shared::Shared;
use crate::turn;

/// Interval at which a blocked socket is checked.
const BLOCKED_LOOK: Duration = Duration::from_millis(100);

/// State machine of one connection.
pub(crate) trait Session {
    /// Applies changed settings. Called after each change of [`Shared::revision`].
    fn renew(&mut self, _policy: &Arc<Policy>) -> Result<(), CloseReason> {
        Ok(())
    }

    /// Appends output that waits for room in the outbox.
    fn fill(&mut self) {}

    /// Returns whether there is more of that output, and room for it.
    fn has_more(&self) -> bool {
        false
    }

    /// Returns the time until which no input is processed, or `None` if it is processed now.
    fn held_until(&mut self) -> Option<Instant>;

    /// Processes complete frames at the head of `bytes`, within the turn's budget. Returns their length.
    ///
    /// # Errors
    /// The reason why the connection must end. Frames before the error have taken effect.
    fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, CloseReason>;

    /// Returns whether the session needs another turn even if no bytes arrive.
    fn wants_turn(&self) -> bool;

    /// Ends a turn in which `received` bytes arrived.
    fn end_turn(&mut self, received: usize, now: Instant);

    /// Handles expired timers. Returns the reason if the connection must end.
    fn tick(&mut self, now: Instant) -> Option<CloseReason>;

    /// Returns the time at which [`tick`](Self::tick) is to be called.
    fn due(&self, now: Instant) -> Instant;
}

/// The task around one connection.
pub(crate) struct Shell<S> {
    pub(crate) session: S,
    pub(crate) socket: Arc<Stream>,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    /// Value of [`Shared::revision`] at the time of `policy`.
    revision: u64,
    intake: Intake,
    /// Complete frames may be left in `intake` from the last turn.
    unfinished: bool,
    /// No input is processed before this time.
    held_until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
}

impl<S: Session> Shell<S> {
    /// Creates the shell of a connection. `received` was read with the handshake. `revision` was [read](Shared::revision) before `policy`.
    pub(crate) fn new(
        session: S,
        (outbox, socket): (Arc<Outbox>, Arc<Stream>),
        shared: Arc<Shared>,
        (revision, policy): (u64, Arc<Policy>),
        received: &[u8],
    ) -> Self {
        Self {
            session,
            socket,
            outbox,
            shared,
            policy,
            revision,
            intake: Intake::with(received),
            unfinished: !received.is_empty(),
            held_until: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: Instant::now(),
        }
    }

    /// Serves the connection until it must end. Returns the reason.
    pub(crate) async fn run(&mut self) -> CloseReason {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.session.fill();
        // A blocked socket does not stop reading. The limit on pending bytes does.
        let _ = self.outbox.poll_drain(cx);
        if let Some(reason) = self.outbox.reason() {
            return Poll::Ready(reason);
        }
        if self.shared.revision() != self.revision
            && let Err(reason) = self.renew()
        {
            return Poll::Ready(reason);
        }
        let has_more = self.session.has_more();
        if self.is_held() || !self.is_readable(cx) {
            return if has_more {
                yielding(cx)
            } else {
                self.poll_timer(cx)
            };
        }
        if let Err(reason) = self.take_turn() {
            return Poll::Ready(reason);
        }
        if self.is_held() || !has_more && !self.is_readable(cx) {
            return self.poll_timer(cx);
        }
        if let Some(reason) = self.tick(Instant::now()) {
            return Poll::Ready(reason);
        }
        yielding(cx)
    }

    fn renew(&mut self) -> Result<(), CloseReason> {
        self.revision = self.shared.revision();
        self.policy = self.shared.policy.load_full();
        self.session.renew(&self.policy)
    }

    fn is_held(&mut self) -> bool {
        self.held_until = self.session.held_until();
        self.held_until.is_some()
    }

    fn is_readable(&self, cx: &mut Context<'_>) -> bool {
        self.unfinished || self.socket.poll_read_ready(cx).is_ready()
    }

    /// Processes input that was left from the last turn, or reads once.
    fn take_turn(&mut self) -> Result<(), CloseReason> {
        let received = turn::take(self.policy.pending_bytes_max, |router, buffer, pauses| {
            let session = &mut self.session;
            let take = |bytes: &[u8]| {
                pauses.admit(&self.shared, &self.outbox)?;
                session.take(bytes, router)
            };
            let taken = if self.unfinished {
                self.intake.take_held(take).map(|()| 0)
            } else {
                self.intake.read(&self.socket, buffer, take)
            };
            self.unfinished = router.turn_exhausted() || self.session.wants_turn();
            router.count(&self.shared.lookups);
            taken
        })?;
        self.session.end_turn(received, Instant::now());
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let now = Instant::now();
            if let Some(reason) = self.tick(now) {
                return Poll::Ready(reason);
            }
            let due = self.due(now);
            // If the timer fires too early, it is reset then. To reset it after each batch would cost more.
            if due < self.timer_at || self.timer.is_elapsed() {
                self.timer_at = due;
                self.timer.as_mut().reset(due.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.held_until.is_some_and(|until| Instant::now() >= until) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<CloseReason> {
        let blocked = self.outbox.blocked_since();
        if blocked.is_some_and(|since| now >= since + self.policy.write_deadline) {
            return Some(CloseReason::SlowConsumerDeadline);
        }
        self.session.tick(now)
    }

    fn due(&self, now: Instant) -> Instant {
        let blocked = self.outbox.blocked_since();
        let blocked = blocked.map(|since| (since + self.policy.write_deadline).max(now + BLOCKED_LOOK));
        let others = [blocked, self.held_until].into_iter().flatten();
        others.fold(self.session.due(now), Instant::min)
    }
}

/// Writes the pending bytes of a connection that ends, for at most `limit`.
pub(crate) async fn write_rest(outbox: &Outbox, limit: Duration) {
    // The connection ends here in any case.
    let _ = tokio::time::timeout(limit, poll_fn(|cx| outbox.poll_drain(cx))).await;
}

/// Yields, so that the sockets of all other connections are polled before this one continues.
fn yielding(cx: &mut Context<'_>) -> Poll<CloseReason> {
    if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}
