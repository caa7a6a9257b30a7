//! The output of one client or route.
//!
//! Any worker may have output for any client. It first stages the output of one turn ([`Stage`](crate::stage::Stage)), and then
//! passes it to the outbox in one call. If nothing is pending, the worker itself writes to the socket. Only bytes that the socket does
//! not take become pending; the client's own task writes them when the socket is writable again.
//!
//! *Architecture invariant:* the pending bytes of a client are bounded by `pending_bytes_max`. A client that does not read is closed,
//! so it delays others only for a limited time. No lock is held during a system call: while one worker writes, other workers add
//! their bytes to the pending ones, and the writing worker or the client's task writes them.

mod queue;
mod staged;

use std::mem::MaybeUninit;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use standin_tls::stream::Stream;

#[cfg(test)]
pub(crate) use self::queue::Wire;
use self::queue::{Queue, write_parts, write_staged};
pub(crate) use self::staged::Staged;
use crate::account::Account;
use crate::close_reason::CloseReason;
use crate::moving::{MOVING, Moving};

/// Maximum number of times in a row that a worker writes the pending bytes of others. Then the client's own task continues.
const ROUNDS_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Outbox {
    /// Number of the client, unique in this run of the server; `client_id` in INFO.
    pub(crate) id: u64,
    /// Own limit on pending bytes. `None`: the limit for clients applies.
    pending_bytes_max: Option<usize>,
    /// The client accepts HMSG. Otherwise, it gets messages without their headers.
    pub(crate) takes_headers: AtomicBool,
    /// The client gets its own messages (`echo` in CONNECT).
    pub(crate) echo: AtomicBool,
    /// A subscription of the client has reached its maximum since the client's task last checked.
    pub(crate) has_ended: AtomicBool,
    /// Number of a change, 0, or [`MOVING`]. The client gets messages from a route only after that route has acked this change; see
    /// [`flush`](crate::flush).
    pub(crate) watermark: AtomicU64,
    /// State of the client's move; `None` if it does not move.
    moving: ArcSwapOption<Moving>,
    /// The outbox belongs to a route whose peer has the feature [`MOVES`](crate::route::hello::MOVES).
    pub(crate) knows_moves: bool,
    /// The client publishes to a client that cannot keep up.
    stalled: AtomicBool,
    /// Messages sent to the client, for the monitoring pages.
    pub(crate) messages_out: AtomicU64,
    /// Bytes of the headers and payloads of these messages.
    pub(crate) bytes_out: AtomicU64,
    /// The client's account, which counts the messages too; empty for the default one.
    pub(crate) account: ArcSwapOption<Account>,
    /// Index of the client's slot on each worker's stage.
    places: Box<[AtomicU32]>,
    queue: Mutex<Queue>,
    /// Whether the client's task must look at the queue: bytes are pending or being written, or there is a reason to close.
    attention: AtomicBool,
    task: AtomicWaker,
    /// The task is also woken when all pending bytes are written, because it has more to send.
    wants_room: AtomicBool,
}

impl Outbox {
    /// Creates the outbox of a client, on a server with `workers` workers.
    pub(crate) fn new(id: u64, socket: Option<Arc<Stream>>, workers: usize) -> Self {
        Self {
            id,
            pending_bytes_max: None,
            takes_headers: AtomicBool::new(false),
            echo: AtomicBool::new(true),
            watermark: AtomicU64::new(0),
            moving: ArcSwapOption::empty(),
            knows_moves: false,
            stalled: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            messages_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            account: ArcSwapOption::empty(),
            places: (0..workers).map(|_| AtomicU32::new(u32::MAX)).collect(),
            queue: Mutex::new(Queue::new(socket)),
            attention: AtomicBool::new(false),
            task: AtomicWaker::new(),
            wants_room: AtomicBool::new(false),
        }
    }

    /// Sets a limit on pending bytes, instead of the limit for clients.
    pub(crate) const fn with_pending_bytes_max(mut self, bytes: usize) -> Self {
        self.pending_bytes_max = Some(bytes);
        self
    }

    /// Sets the state of the client's move, or removes it.
    pub(crate) fn set_moving(&self, moving: Option<Arc<Moving>>) {
        let watermark = if moving.is_some() { MOVING } else { 0 };
        self.moving.store(moving);
        self.watermark.store(watermark, Relaxed);
    }

    /// Returns the state of the client's move.
    pub(crate) fn moving(&self) -> Option<Arc<Moving>> {
        self.moving.load_full()
    }

    /// Sets whether the outbox belongs to a route whose peer knows moves.
    pub(crate) const fn with_moves(mut self, knows_moves: bool) -> Self {
        self.knows_moves = knows_moves;
        self
    }

    /// Returns whether the client arrives from another node and does not get all its messages here yet.
    pub(crate) fn is_arriving(&self) -> bool {
        self.moving.load().as_ref().is_some_and(|moving| moving.arrives())
    }

    /// Creates an outbox that sends nothing, for tests.
    #[cfg(test)]
    pub(crate) fn unconnected(id: u64) -> Self {
        Self::new(id, None, 1)
    }

    /// Creates an outbox that sends to `wire`, for simulations.
    #[cfg(test)]
    pub(crate) fn on_wire(id: u64, workers: usize, wire: &Wire) -> Self {
        let outbox = Self::new(id, None, workers);
        outbox.queue().wire = Some(Arc::clone(wire));
        outbox
    }

    /// Returns the slot in which this worker last staged bytes for the client. A hint: the slot may be another client's now.
    #[inline]
    pub(crate) fn place(&self, worker: usize) -> usize {
        let place = self.places.get(worker);
        place.map_or(usize::MAX, |place| place.load(Relaxed) as usize)
    }

    #[inline]
    pub(crate) fn set_place(&self, worker: usize, place: usize) {
        if let Some(slot) = self.places.get(worker) {
            slot.store(place as u32, Relaxed);
        }
    }

    /// Sends the staged bytes, after the pending ones. If more bytes are pending than `pending_bytes_max` (or the outbox's own limit), the
    /// client is closed as a slow consumer. Returns whether more than half of the limit is pending.
    pub(crate) fn send(&self, staged: &Staged, pending_bytes_max: usize) -> bool {
        let pending_bytes_max = self.pending_bytes_max.unwrap_or(pending_bytes_max);
        let mut queue = self.queue();
        let ends = queue.reason.is_some_and(CloseReason::is_broken);
        #[cfg(test)]
        if !ends && queue.wire.is_some() {
            queue.keep(staged);
            queue.put_on_wire(self.id);
            self.set_attention(&queue);
            return false;
        }
        let Some(socket) = queue.socket.clone().filter(|_| !ends) else {
            return false;
        };
        self.messages_out.fetch_add(staged.messages, Relaxed);
        self.bytes_out.fetch_add(staged.payload_bytes, Relaxed);
        if staged.messages > 0
            && let Some(account) = &*self.account.load()
        {
            account.sent(staged.messages, staged.payload_bytes);
        }
        let must_wait = queue.writing || !queue.parts.is_empty();
        let may_write = !queue.writing && (!must_wait || queue.is_fresh);
        if must_wait {
            queue.keep(staged);
        } else {
            queue.writing = true;
            drop(queue);
            let result = write_staged(&socket, staged);
            queue = self.queue();
            queue.wrote_staged(staged, result);
        }
        if may_write {
            for _ in 0..ROUNDS_MAX {
                if queue.is_blocked || queue.parts.is_empty() {
                    break;
                }
                queue = self.write(queue, &socket);
            }
        }
        if queue.bytes > pending_bytes_max {
            queue.end(CloseReason::SlowConsumerPending);
        }
        let falls_behind = queue.bytes > pending_bytes_max / 2;
        // If another worker is writing, it also handles the bytes added meanwhile, so the task is not woken.
        let needed = self.set_attention(&queue) || self.wants_room.load(Relaxed);
        let must_wake = needed && (!queue.writing || queue.reason.is_some());
        drop(queue);
        if must_wake {
            self.task.wake();
        }
        falls_behind
    }

    /// Adds bytes to the pending ones, without writing. The caller must then send something or wake the task.
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        queue.append(bytes);
        self.set_attention(&queue);
    }

    /// Writes pending bytes, as many as the socket takes in one call. The lock is released during the call.
    fn write<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, socket: &Stream) -> MutexGuard<'a, Queue> {
        queue.writing = true;
        queue.is_fresh = false;
        let parts = std::mem::take(&mut queue.parts);
        let skip = std::mem::take(&mut queue.written);
        drop(queue);
        let result = write_parts(socket, &parts, skip);
        let mut queue = self.queue();
        queue.wrote_parts(parts, skip, result);
        queue
    }

    /// Writes the pending bytes, from the client's own task. Returns `Pending` while bytes are left or another thread writes.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if !self.needs_attention() {
            return Poll::Ready(());
        }
        let mut queue = self.queue();
        #[cfg(test)]
        queue.put_on_wire(self.id);
        while !queue.writing && queue.has_pending() {
            let Some(socket) = queue.socket.clone() else { break };
            if socket.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
            queue = self.write(queue, &socket);
        }
        self.set_attention(&queue);
        // The writing thread wakes the task if bytes are left.
        if queue.writing {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Returns whether the client's task must look at the queue.
    #[inline]
    fn needs_attention(&self) -> bool {
        self.attention.load(Acquire)
    }

    fn set_attention(&self, queue: &Queue) -> bool {
        let needed = queue.writing || queue.has_pending() || queue.reason.is_some();
        self.attention.store(needed, Release);
        needed
    }

    /// Sets whether the task is to be woken when all pending bytes are written.
    pub(crate) fn set_wants_room(&self, wants_room: bool) {
        self.wants_room.store(wants_room, Relaxed);
    }

    /// Makes the client pause for a moment before it publishes more.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// Returns whether the client has to pause, and clears the flag. Called by the client's own task.
    #[inline]
    pub(crate) fn take_stall(&self) -> bool {
        self.stalled.load(Relaxed) && self.stalled.swap(false, Relaxed)
    }

    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Returns the number of bytes that the socket has not taken, including those dropped when the connection ended.
    pub(crate) fn unsent_bytes(&self) -> usize {
        let queue = self.queue();
        queue.bytes + queue.dropped_bytes
    }

    /// Returns the reason to close the connection, if another task or a socket error has set one.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.needs_attention().then(|| self.queue().reason).flatten()
    }

    /// Returns whether the client has ended or has closed its side of the connection. Used while the
    /// client's socket is not read.
    pub(crate) fn is_gone(&self) -> bool {
        let socket = self.queue().socket.clone();
        self.reason().is_some() || socket.is_none_or(|socket| is_closed(&socket))
    }

    /// Returns the time since which the socket has taken no pending bytes, or `None` if none are pending.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        let queue = self.needs_attention().then(|| self.queue())?;
        queue.has_pending().then_some(queue.blocked_since)
    }

    /// Sets the reason to close the connection, unless there is one, and wakes the task.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut queue = self.queue();
        if queue.reason.is_none() {
            queue.reason = Some(reason);
        }
        self.set_attention(&queue);
        drop(queue);
        self.task.wake();
    }

    /// Sets a reason to close the connection if the socket was reset. Returns the reason, if there is one.
    pub(crate) fn end_if_reset(&self) -> Option<CloseReason> {
        let socket = self.queue().socket.clone();
        if socket.is_some_and(|socket| was_reset(&socket)) {
            self.close(CloseReason::ReadError);
        }
        self.queue().reason
    }

    /// Drops the pending bytes and the socket after the end of the client, even while other threads still hold the outbox.
    pub(crate) fn release(&self) {
        let mut queue = self.queue();
        queue.end(CloseReason::ClientClosed);
        queue.socket = None;
        #[cfg(test)]
        queue.wire.take();
        self.set_attention(&queue);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the peer has closed the connection and no bytes are left to be read.
fn is_closed(socket: &Stream) -> bool {
    let peeked = SockRef::from(socket.socket()).peek(&mut [MaybeUninit::uninit()]);
    match peeked {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Returns whether the peer or the network cut the connection off. A reset after the peer's orderly close (a broken
/// pipe) does not count.
fn was_reset(socket: &Stream) -> bool {
    use std::io::ErrorKind::BrokenPipe;
    matches!(socket.socket().take_error(), Ok(Some(error)) if error.kind() != BrokenPipe)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
