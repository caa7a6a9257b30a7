//! The task of one session: the shell around a [`Session`], with two sockets, one timer, one dial at a time, and the
//! commands from the rest of the sidecar.
//!
//! All sessions of a thread read into one buffer. Bytes go from it through the session straight to the other socket.
//! Only bytes that the other socket does not take at once are copied into the session. So an idle session has no
//! buffers, and a busy one makes no copies.
//!
//! *Architecture invariant:* a session has its own sockets, and reaches other sessions only through [`SidecarState`]. So no
//! failure of one session affects another.

mod buffer_share;
mod end;
mod moving;
mod recovery_entry;
mod report;
mod rest;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use standin_registry::{Endpoint, Node, NodeState};
use standin_tls::stream::Stream;
use tokio::io::ReadBuf;
use tokio::sync::SemaphorePermit;
use tokio::time::Sleep;
use tracing::warn;

use crate::cause::Cause;
use crate::dial::{self, DialledNode};
use crate::identity::Identity;
use crate::nodes::{Permit, Searcher};
use crate::session::{Session, SessionEnd, SessionRequests};
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;
use crate::sockets::{Sockets, close};
use buffer_share::BufferShare;
use moving::Next;
use recovery_entry::RecoveryEntry;
pub(crate) use rest::{FormerRest, FormerTask};

/// Size of a thread's read buffer. Larger reads mean fewer system calls per message, up to the size of the
/// processor's cache (`tests/bench sidecar`).
const READ_BYTES: usize = 256 * 1024;
/// A turn of a busy session ends after this number of rounds, or at the end of the round in which [`TURN_MAX`] passes.
const ROUNDS_MAX: usize = 16;
const TURN_MAX: Duration = Duration::from_millis(2);
/// The wait between two rounds of dialling all nodes is random. Its limit doubles with each round, up to a maximum.
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_millis(500);

/// Maximum number of last reads: from a component when the sidecar stops, from a node after a write to it failed.
const LAST_READS_MAX: usize = 64;
/// Wait before the last read when the sidecar stops. Timers and sockets share one driver. So when the timer fires,
/// the session has been woken for all bytes that arrived before the timer was set.
const LAST_READ_DELAY: Duration = Duration::from_millis(2);
/// Interval at which a session checks for free space in the shared buffer budget.
const STARVED_INTERVAL: Duration = Duration::from_millis(20);

/// First byte of a TLS handshake (RFC 8446, section 5.1: content type 22).
const TLS_HANDSHAKE: u8 = 22;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

type PendingDial = Pin<Box<dyn Future<Output = Result<DialledNode, FailedRound>> + Send>>;

/// A round of dialling that ended without a connection.
struct FailedRound {
    /// Number of known nodes.
    known: usize,
    /// Whether each of them has failed since the session lost its node. The loss itself does not count.
    all_tried: bool,
    /// Start of the time without a proved node, if each known node has failed since.
    none_reachable_since: Option<Instant>,
    /// Whether every known node has refused the component's credentials.
    all_refused: bool,
}

/// The shell around one session.
struct Task {
    shared: Arc<SidecarState>,
    session_info: Arc<SessionInfo>,
    session: Session,
    sockets: Sockets,
    dial: Option<PendingDial>,
    /// Rounds of dialling in a row without a node that served the session. Each round waits longer.
    rounds: u32,
    /// Time at which the search for a node began, after the loss was recorded. Any later failure of a node is a failed dial.
    search_began: Instant,
    /// The node to which the session is about to move.
    next: Option<Box<Next>>,
    /// Dial permit, held until the node has taken the session.
    permit: Option<Permit>,
    /// Whether the node is left because of a failure. Its connection is then reset.
    resets_node: bool,
    /// The session's entry in the recovery after a loss.
    recovery_entry: RecoveryEntry,
    /// Time at which held publishes may be sent, once the session has its subscriptions back.
    release_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Time at which the timer fires. `None` if it is not set.
    timer_at: Option<Instant>,
    /// Time at which the present round began. The clock is read once for each round.
    now: Instant,
    /// Time at which the orderly end begins.
    stop_at: Option<Instant>,
    /// Time by which the component must have made the handshake of TLS.
    tls_until: Option<Instant>,
    /// Whether the component has not sent a complete command yet.
    is_half_open: bool,
    /// Whether reading is suspended because the shared buffer budget is exhausted.
    starved: bool,
    /// Whether the session has written its state for the next program, and does nothing.
    is_resting: bool,
    /// Bytes and state as last reported.
    buffer_share: BufferShare,
    state: &'static str,
}

/// Runs one session to its last byte: from its first one, or from where the `former` program has left it.
pub(crate) async fn run(
    shared: Arc<SidecarState>,
    session_info: Arc<SessionInfo>,
    component: Stream,
    identity: Arc<Identity>,
    former: Option<Box<FormerTask>>,
) {
    let mut task = Task::new(shared, session_info, component, identity, former);
    let ended = poll_fn(|cx| task.poll(cx)).await;
    task.count_node(None);
    task.recovery_entry.end(&ended);
    // Before the connections are closed, which takes a while: an upgrade does not wait for it.
    end::record_end(&task.shared, &task.session_info, &ended);
    task.session_info.is_over.store(true, Relaxed);
    // Boxed: inside this future, the buffers of `close` would make up a third of an idle session's memory (`tests/bench
    // sidecar --only crowd`).
    Box::pin(close(task.sockets, ended.reason)).await;
}

impl Task {
    /// Not a part of [`run`], whose future would have room for all values here as long as the session lives.
    fn new(
        shared: Arc<SidecarState>,
        session_info: Arc<SessionInfo>,
        component: Stream,
        identity: Arc<Identity>,
        former: Option<Box<FormerTask>>,
    ) -> Self {
        let now = Instant::now();
        let policy = shared.policy.load_full();
        let (session, former) = match former {
            Some(former) => (former.session.restored(policy, identity), Some(former.rest)),
            None => (Session::new(policy, identity, now), None),
        };
        let buffer_share = BufferShare {
            shared: Arc::clone(&shared),
            bytes: 0,
        };
        let recovery_entry = RecoveryEntry::new(&shared, &session_info);
        let mut task = Self {
            shared,
            session_info,
            session,
            sockets: Sockets {
                component,
                tls: None,
                component_broke: false,
                node: None,
                node_broke: None,
            },
            dial: None,
            rounds: 0,
            search_began: now,
            next: None,
            permit: None,
            resets_node: false,
            recovery_entry,
            release_at: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            now,
            stop_at: None,
            tls_until: None,
            is_half_open: true,
            starved: false,
            is_resting: false,
            buffer_share,
            state: "new",
        };
        match former {
            Some(former) => task.restore(former),
            None => task.offer_tls(),
        }
        task
    }

    /// Runs one turn of the session, unless it is at rest.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        self.session_info.set_waker(cx.waker());
        if self.session_info.take_command(SessionCommand::GoOn) {
            self.go_on();
        }
        if self.is_resting {
            return Poll::Pending;
        }
        let turn = self.turn(cx);
        if turn.is_pending() && self.session_info.take_command(SessionCommand::Rest) {
            self.rest(cx);
        }
        turn
    }

    /// Runs one turn: rounds of commands, timer, reads, writes and dials, until nothing makes progress or the turn's budget is exhausted.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        self.now = Instant::now();
        let turn_end = self.now + TURN_MAX;
        self.session.begin_turn(self.now, &mut self.sockets);
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.run_commands(cx);
            progress |= self.tick();
            let requests = self.session.requests();
            let was_starved = std::mem::take(&mut self.starved);
            if self.read_node(cx, requests) {
                progress = true;
                self.count_buffered();
            }
            if self.read_component(cx, requests) {
                progress = true;
                self.count_buffered();
            }
            // One more round sets the timer that checks for free space.
            progress |= self.starved && !was_starved;
            progress |= self.write(cx, requests);
            progress |= self.handle_transitions(cx);
            // All events are reported here, including the end of the session.
            let (events, ended) = self.session.report();
            events.into_iter().for_each(|event| self.handle(event));
            if let Some(ended) = ended {
                self.report();
                return Poll::Ready(ended);
            }
            // The loss of a node is reported before the next node is chosen, so that the lost node is not chosen
            // again.
            progress |= self.change_node();
            progress |= self.advance_next(cx);
            progress |= self.dial(cx);
            if !progress && !self.session.is_interrupted() && self.set_timer(cx).is_pending() {
                self.report();
                return Poll::Pending;
            }
            self.now = Instant::now();
            if self.session.is_interrupted() || self.now >= turn_end {
                break;
            }
        }
        self.report();
        // This session runs again after all sessions whose sockets are ready. After a plain wake, it would run before the
        // sockets are polled again.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Prepares TLS with the component, if the settings want it.
    fn offer_tls(&mut self) {
        let Some(tls) = self.session.listener().tls.clone() else {
            return;
        };
        let is_first = tls.is_first;
        self.session.set_handshaking(true);
        self.tls_until = Some(self.now + tls.timeout);
        self.sockets.tls = Some(Box::new(tls));
        if is_first {
            self.sockets.begin_tls();
        }
    }

    /// Begins TLS if it is optional and the component's first byte begins it. Returns `Pending` while there is no such byte.
    fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sockets.tls.as_ref().is_some_and(|tls| tls.is_optional) {
            return Poll::Ready(());
        }
        let mut first = [MaybeUninit::uninit()];
        let mut first = ReadBuf::uninit(&mut first);
        let peeked = ready!(self.sockets.component.socket().poll_peek(cx, &mut first));
        if peeked.is_ok() && first.filled() == [TLS_HANDSHAKE] {
            let timeout = self.sockets.tls.as_ref().map(|tls| tls.timeout);
            self.tls_until = timeout.map(|timeout| self.now + timeout);
            self.session.set_handshaking(true);
            self.sockets.begin_tls();
        } else {
            self.sockets.tls = None;
        }
        Poll::Ready(())
    }

    /// Reads from the component once. Returns whether there was anything to read.
    fn read_component(&mut self, cx: &mut Context<'_>, requests: SessionRequests) -> bool {
        if !requests.read_component
            || self.poll_first_byte(cx).is_pending()
            || self.sockets.component.poll_read_ready(cx).is_pending()
        {
            return false;
        }
        let bytes_max = self.session.read_bytes_max().min(READ_BYTES);
        let bytes_max = self.within_room(bytes_max, Session::least_component_bytes);
        if bytes_max == 0 {
            return false;
        }
        let has_read = READ_BUFFER.with_borrow_mut(|buffer| {
            let carried = self.session.lend_held(buffer);
            let end = buffer.len().min(carried.saturating_add(bytes_max));
            let read = self.sockets.component.poll_read(cx, &mut buffer[carried..end]);
            let (now, sockets) = (self.now, &mut self.sockets);
            match read {
                Poll::Ready(Ok(len)) if len > 0 => {
                    let bytes = &buffer[..carried + len];
                    self.session.component_bytes(bytes, now, sockets);
                    return true;
                }
                _ => self.session.give_back(&buffer[..carried]),
            }
            match read {
                Poll::Pending => return false,
                Poll::Ready(Ok(_)) => self.session.component_eof(now, sockets),
                Poll::Ready(Err(_)) => self.session.component_broke(now, sockets),
            }
            true
        });
        if self.is_half_open && self.session.has_sent_command() {
            self.logged_in();
        }
        has_read
    }

    /// Returns how much of `bytes_max` may be read within the shared buffer budget. Several threads may each read up
    /// to the free space at the same time, and each session may always read `least` bytes.
    fn within_room(&mut self, bytes_max: usize, least: impl FnOnce(&Session) -> usize) -> usize {
        let room = self.shared.buffer_room(self.session.policy());
        if room >= bytes_max {
            return bytes_max;
        }
        let bytes_max = bytes_max.min(room.max(least(&self.session)));
        self.starved |= bytes_max == 0;
        bytes_max
    }

    /// Reads from the node once. Returns whether there was anything to read.
    fn read_node(&mut self, cx: &mut Context<'_>, requests: SessionRequests) -> bool {
        let mut ready = |node: &Stream| requests.read_node && node.poll_read_ready(cx).is_ready();
        if !self.sockets.node.as_ref().is_some_and(&mut ready) {
            self.session.set_node_starved(false);
            return false;
        }
        let bytes_max = self.within_room(READ_BYTES, Session::least_node_bytes);
        self.session.set_node_starved(bytes_max == 0);
        if bytes_max == 0 {
            return false;
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let carried = self.session.lend_partial(buffer);
            let Some(node) = &mut self.sockets.node else {
                return false;
            };
            let end = buffer.len().min(carried.saturating_add(bytes_max));
            let read = node.poll_read(cx, &mut buffer[carried..end]);
            let now = self.now;
            match read {
                Poll::Ready(Ok(len)) if len > 0 => {
                    let bytes = &buffer[..carried + len];
                    self.session.node_bytes(bytes, now, &mut self.sockets);
                    return true;
                }
                Poll::Pending => {
                    self.session.give_back_partial(&buffer[..carried]);
                    return false;
                }
                Poll::Ready(_) => {}
            }
            let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            self.sockets.node_broke = Some(match read {
                Poll::Ready(Err(error)) if reset(&error) => Cause::Reset,
                Poll::Ready(Err(_)) => Cause::WriteError,
                _ => Cause::EndOfStream,
            });
            true
        })
    }

    /// Lets the session continue writing to each socket that is writable again. Returns whether one was.
    fn write(&mut self, cx: &mut Context<'_>, requests: SessionRequests) -> bool {
        let mut progress = false;
        let sockets = &mut self.sockets;
        let must_write = requests.write_component || sockets.component.has_unsent();
        if must_write && !sockets.component_broke && sockets.poll_component_writable(cx).is_ready() {
            self.session.component_writable(self.now, sockets);
            progress = true;
        }
        let has_unsent = sockets.node.as_ref().is_some_and(Stream::has_unsent);
        let must_write = requests.write_node || has_unsent;
        if must_write && sockets.node_broke.is_none() && sockets.poll_node_writable(cx).is_ready() {
            self.session.node_writable(self.now, sockets);
            progress = true;
        }
        progress
    }

    /// Starts or continues a round of dialling, if the session wants one. Returns whether a round ended.
    fn dial(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.session.needs_dial() {
            self.dial = None;
            return false;
        }
        let mut dial = match self.dial.take() {
            Some(dial) => dial,
            None => self.new_dial(),
        };
        let Poll::Ready(found) = dial.as_mut().poll(cx) else {
            self.dial = Some(dial);
            return false;
        };
        let now = Instant::now();
        let balances = self.session.is_leaving_for_balance();
        match found {
            Ok(dialled) if balances && !self.session.has_moves(&dialled.info) => {
                self.session.stay(now, &mut self.sockets);
            }
            Err(_) if balances => self.session.stay(now, &mut self.sockets),
            Err(round) if round.all_refused && !self.session.holds_credentials() => {
                self.session.refused_everywhere(now, &mut self.sockets)
            }
            Err(round) => {
                self.rounds += 1;
                if !self.session.keeps_node() {
                    let waits = self.session.has_sent_command();
                    let none_since = round.none_reachable_since;
                    let has_failed = |node: &Endpoint| self.shared.book.has_failed(node);
                    let recovery = &self.shared.recovery;
                    recovery.round_failed(&self.session_info, waits, none_since, has_failed);
                }
                let info = self.shared.last_info();
                self.session
                    .no_node(round.known, round.all_tried, &info, now, &mut self.sockets);
            }
            Ok(dialled) if self.session.keeps_node() => {
                self.next_connected(dialled, now);
            }
            Ok(dialled) => self.join(dialled, now),
        }
        true
    }

    /// Creates a round of dialling: a wait that grows with the number of failed rounds, the choice of nodes, the dials.
    fn new_dial(&mut self) -> PendingDial {
        let shared = Arc::clone(&self.shared);
        let searching = self.session.client_label().is_some();
        let searcher: Option<Searcher> = searching.then(|| shared.book.searcher());
        let avoid: Option<Endpoint> = self
            .session
            .node()
            .filter(|_| searching && (self.rounds == 0 || self.session.keeps_node()))
            .map(|node| node.client.clone());
        let balances = self.session.is_leaving_for_balance();
        let balance_to = balances
            .then(|| self.session_info.status().balance_to.take())
            .flatten();
        let since = self.search_began;
        let leaving = self.session.keeps_node();
        let refused_by = self.session.refused_by();
        let was_away = self.shared.recovery.is_away(&self.session_info);
        let session_info = Arc::clone(&self.session_info);
        let wait = match self.rounds {
            // There is no wait after the first failed round, only after the second.
            0 | 1 => Duration::ZERO,
            rounds => REDIAL_MIN
                .saturating_mul(1 << rounds.min(8))
                .min(REDIAL_MAX)
                .mul_f64(rand::random()),
        };
        let wait = if leaving {
            wait.max(self.session.wait_before_move())
        } else {
            wait
        };
        Box::pin(async move {
            if !wait.is_zero() {
                shared.nodes_changed_or(wait).await;
            }
            let _half_open_permit = half_open_permit(&shared, &session_info).await;
            let evenly = shared.spread_after_outage(was_away).await;
            let spread = searcher.as_ref().map(Searcher::spread);
            if let Some(spread) = spread.filter(|spread| !spread.is_zero()) {
                tokio::time::sleep(spread).await;
            }
            let snapshot = shared.registry.snapshot();
            let now = Instant::now();
            let mut candidates = shared.book.candidates(&snapshot, avoid.as_ref(), evenly, now);
            // A session that leaves a node may not choose it again. A session that lost a node may, because that node
            // may be the only one.
            let is_other = |node: &Node| avoid.as_ref() != Some(&node.client) && node.state == NodeState::Up;
            candidates.retain(|node| !leaving || is_other(node));
            candidates.retain(|node| balance_to.as_ref().is_none_or(|to| *to == node.client));
            let known = candidates.len();
            candidates.retain(|node| !refused_by.contains(&node.client));
            let all_refused = known > 0 && candidates.is_empty();
            let tried = candidates.clone();
            let dialled = dial::dial_candidates(&shared, candidates).await;
            if dialled.is_some() {
                shared.metrics.node_dials.increment("connected");
            }
            dialled.ok_or_else(|| FailedRound {
                known,
                none_reachable_since: shared.book.none_reachable_since(&tried, Instant::now()),
                all_tried: shared.book.all_failed_since(&tried, since),
                all_refused,
            })
        })
    }

    /// Continues the session on the dialled node.
    fn join(&mut self, dialled: DialledNode, now: Instant) {
        self.rounds += 1;
        // An earlier command to probe was about the previous connection.
        let _ = self.session_info.take_command(SessionCommand::Probe);
        self.sockets.node = Some(dialled.stream);
        self.sockets.node_broke = None;
        self.permit = Some(dialled.permit);
        self.count_node(Some(&dialled.node));
        self.shared.remember_info(&dialled.info);
        let hold = self
            .shared
            .recovery
            .must_hold(&self.session_info, self.shared.policy.load().settle);
        self.session
            .node_up(dialled.node, &dialled.info, hold, now, &mut self.sockets);
        if self.session.client_label().is_none() {
            // A component that has not sent CONNECT has nothing to replay, and may send CONNECT much later.
            self.permit = None;
        }
        if !dialled.after_info.is_empty() {
            let bytes = &dialled.after_info;
            self.session.node_bytes(bytes, now, &mut self.sockets);
        }
    }

    /// Counts the session on `node` instead of on its previous node.
    fn count_node(&mut self, node: Option<&Arc<Node>>) {
        let mut status = self.session_info.status();
        if let Some(old) = std::mem::replace(&mut status.node, node.cloned()) {
            self.shared.book.count_session(&old, false);
        }
        if let Some(node) = node {
            self.shared.book.count_session(node, true);
        }
    }

    /// Sends held publishes if they are due; otherwise sets the time of the next check.
    fn release(&mut self) {
        let now = Instant::now();
        let settle = self.shared.policy.load().settle;
        match self.recovery_entry.release_at(settle, now) {
            Some(at) if at > now => self.release_at = Some(at),
            Some(_) => {
                self.release_at = None;
                self.recovery_entry.released(now);
                self.session.release(now, &mut self.sockets);
            }
            None => self.release_at = None,
        }
    }

    /// Runs the commands that the rest of the sidecar gave the session.
    fn run_commands(&mut self, cx: &mut Context<'_>) -> bool {
        self.check_handshake();
        if self.release_at.is_none() && self.stop_at.is_none() && !self.session_info.has_commands() {
            return false;
        }
        let now = self.now;
        let mut progress = false;
        if self.session_info.take_command(SessionCommand::ReadPolicy) {
            self.session.set_policy(self.shared.policy.load_full());
            // `settle_ms` may have changed.
            self.release();
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::Probe) {
            self.session.probe(now, &mut self.sockets);
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::Leave) {
            self.session.leave();
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::Balance) {
            progress |= self.session.leave_for_balance();
        }
        if self.session_info.take_command(SessionCommand::Release)
            || self.release_at.is_some_and(|at| now >= at)
        {
            self.release();
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::Evict) && self.is_half_open {
            self.session.evict();
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::PrepareRest) {
            self.prepare_rest();
            progress = true;
        }
        if self.session_info.take_command(SessionCommand::ShutDown) {
            self.stop_at = Some(now + LAST_READ_DELAY);
            progress = true;
        }
        if self.stop_at.is_some_and(|at| now >= at) {
            self.stop_at = None;
            self.stop(cx);
            progress = true;
        }
        progress
    }

    /// Notices the end of the component's TLS handshake. Closes a component whose handshake is not complete in time.
    fn check_handshake(&mut self) {
        let Some(until) = self.tls_until else { return };
        let is_over = until <= self.now;
        match &self.sockets.tls {
            // The component has not got INFO, after which it begins TLS.
            Some(tls) if !tls.is_optional => self.tls_until = Some(self.now + tls.timeout),
            Some(_) if !is_over => {}
            None if self.sockets.component.is_handshaking() => {
                if is_over {
                    self.tls_until = None;
                    warn!(session = self.session_info.id, component = %self.session_info.component, "TLS handshake not complete in time");
                    self.sockets.component_broke = true;
                }
            }
            // The handshake is complete, or it is optional and was not begun, which is no fault.
            _ => {
                self.tls_until = None;
                self.session.set_handshaking(false);
            }
        }
    }

    /// Records that the component has sent a command. A dial that waits behind those for components that have sent none goes on.
    fn logged_in(&mut self) {
        self.is_half_open = false;
        self.shared.admission.logged_in(self.session_info.id);
        self.session_info.has_sent_command.store(true, Relaxed);
    }

    /// Reads and passes on all bytes that have arrived from the component, and begins the orderly end. The number of
    /// reads is limited, because a component may never pause.
    fn stop(&mut self, cx: &mut Context<'_>) {
        for _ in 0..LAST_READS_MAX {
            self.session.begin_turn(Instant::now(), &mut self.sockets);
            if !self.read_component(cx, self.session.requests()) {
                break;
            }
        }
        self.session
            .shut_down(Instant::now(), self.shared.shutdown_timeout(), &mut self.sockets);
    }

    /// Handles broken sockets, the progress of an orderly end, and the switch to the next node.
    fn handle_transitions(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        if std::mem::take(&mut self.sockets.component_broke) {
            self.session.component_broke(Instant::now(), &mut self.sockets);
            progress = true;
        }
        if let Some(cause) = self.sockets.node_broke {
            self.read_last_words(cx, cause);
            self.sockets.node_broke = None;
            self.session.node_lost(cause, Instant::now(), &mut self.sockets);
            progress = true;
        }
        if self.session.is_ending() {
            self.session.tick_ending(Instant::now(), &mut self.sockets);
        }
        self.check_preparation();
        if self.next.is_some() && self.session.can_switch() {
            self.session.switch(Instant::now());
            progress = true;
        }
        progress
    }

    /// Reads the last bytes of a node after a write to it failed. They may contain the reason.
    fn read_last_words(&mut self, cx: &mut Context<'_>, cause: Cause) {
        for _ in 0..LAST_READS_MAX {
            self.session.begin_turn(Instant::now(), &mut self.sockets);
            if cause != Cause::WriteError || !self.read_node(cx, self.session.requests()) {
                break;
            }
        }
    }

    /// Closes the connection to a node that the session has left. Continues over the next connection if it is ready.
    fn change_node(&mut self) -> bool {
        let mut progress = false;
        if !self.session.keeps_node() && self.sockets.node.is_some() {
            self.sockets.drop_node(self.resets_node);
            self.permit = None;
            self.count_node(None);
            if !self.session.wait_before_move().is_zero() {
                // It may still wait, and now it must not.
                self.dial = None;
            }
            progress = true;
        }
        if self.sockets.node.is_none()
            && let Some(dialled) = self.take_next()
        {
            self.dial = None;
            self.join(dialled, Instant::now());
            progress = true;
        }
        progress
    }

    /// Runs the session's actions that are due. Returns whether there were any.
    fn tick(&mut self) -> bool {
        let now = self.now;
        if self.timer_at.is_some_and(|at| at > now) {
            return false;
        }
        // From here on each round looks at the deadline, until a round without progress sets the timer again.
        self.timer_at = None;
        let due = self.session.deadline();
        if due <= now {
            let late = now.duration_since(due);
            self.session
                .tick(late, &self.shared.last_info(), now, &mut self.sockets);
        }
        due <= now
    }

    /// Sets the timer to the next deadline. Returns `Ready` if that has passed.
    fn set_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut due = self.session.deadline();
        for at in [self.stop_at, self.release_at, self.tls_until]
            .into_iter()
            .flatten()
        {
            due = due.min(at);
        }
        if self.starved {
            due = due.min(self.now + STARVED_INTERVAL);
        }
        // A timer that fires too early is set again when it fires. Setting it for each batch would cost more.
        if self.timer_at.is_some_and(|at| at <= due) {
            return Poll::Pending;
        }
        self.timer_at = Some(due);
        self.timer.as_mut().reset(due.into());
        self.timer.as_mut().poll(cx)
    }
}

/// Waits until few enough dials for half-open sessions run. Returns at once when the component has sent a command, which its own
/// task, the one that polls this future, notices.
async fn half_open_permit<'a>(
    shared: &'a SidecarState,
    session: &SessionInfo,
) -> Option<SemaphorePermit<'a>> {
    let mut permit = pin!(shared.half_open_dials.acquire());
    poll_fn(|cx| {
        if session.has_sent_command.load(Relaxed) {
            return Poll::Ready(None);
        }
        // The semaphore is never closed.
        permit.as_mut().poll(cx).map(Result::ok)
    })
    .await
}
