//! What a client is to be sent: the last stop of a message.
//!
//! Any worker may have something for any client. It stages all of a turn for one client first ([`Stage`](crate::stage::Stage))
//! and brings it here once; if nothing waits before it, it goes straight to the socket, from the worker that has it. Only what
//! the socket does not take is kept, and the client's own task writes it when the socket takes bytes again.
//!
//! *Architecture invariant:* what waits for one client is bounded by `pending_bytes_max`; a client that does not read is
//! closed, and never delays another one without limit. No lock is held over a call to the kernel: a worker that finds another
//! one writing leaves its bytes with it.

mod queue;
mod staged;

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

#[cfg(test)]
pub(crate) use self::queue::Wire;
use self::queue::{Queue, write_parts, write_staged};
pub(crate) use self::staged::Staged;
use crate::closing::Reason;

/// A worker writes so often in a row what others leave with it; then the client's own task goes on.
const ROUNDS_MAX: usize = 4;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The client's number in this server's life, as `client_id` of INFO.
    pub(crate) id: u64,
    /// Bytes that may wait for it, where that is not the settings' limit for a client.
    pending_bytes_max: Option<usize>,
    /// Takes HMSG; others get messages without their headers.
    pub(crate) takes_headers: AtomicBool,
    /// Wants its own messages back.
    pub(crate) echo: AtomicBool,
    /// One of its subscriptions has had its last message, since last looked.
    pub(crate) has_ended: AtomicBool,
    /// From each route it gets only what came behind the ack of this change, 0 for all. The rule is the [`flush`](crate::flush)'s.
    pub(crate) watermark: AtomicU64,
    /// It publishes to one that cannot keep up.
    stalled: AtomicBool,
    /// Messages and bytes of payload sent to it, for the pages.
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Its place on each worker's stage.
    places: Box<[AtomicU32]>,
    queue: Mutex<Queue>,
    /// Whether there is something in the queue for its task: bytes, or a reason to end.
    attention: AtomicBool,
    /// The client's own task.
    task: AtomicWaker,
    /// It is called as well when all that waited is written: it has more.
    wants_room: AtomicBool,
}

impl Outbox {
    /// For a client that has just connected, on a server with so many workers.
    pub(crate) fn new(id: u64, socket: Option<Arc<TcpStream>>, workers: usize) -> Self {
        Self {
            id,
            pending_bytes_max: None,
            takes_headers: AtomicBool::new(false),
            echo: AtomicBool::new(true),
            watermark: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            messages_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            places: (0..workers).map(|_| AtomicU32::new(u32::MAX)).collect(),
            queue: Mutex::new(Queue::new(socket)),
            attention: AtomicBool::new(false),
            task: AtomicWaker::new(),
            wants_room: AtomicBool::new(false),
        }
    }

    /// For a link to another node.
    pub(crate) fn of_link(id: u64, socket: Arc<TcpStream>, workers: usize, pending_bytes_max: usize) -> Self {
        Self {
            pending_bytes_max: Some(pending_bytes_max),
            ..Self::new(id, Some(socket), workers)
        }
    }

    /// For tests: nothing can be sent to it.
    #[cfg(test)]
    pub(crate) fn unconnected(id: u64) -> Self {
        Self::new(id, None, 1)
    }

    /// For simulations: what is sent to it goes to `wire`.
    #[cfg(test)]
    pub(crate) fn on_wire(id: u64, workers: usize, wire: &Wire) -> Self {
        let outbox = Self::new(id, None, workers);
        outbox.queue().wire = Some(Arc::clone(wire));
        outbox
    }

    /// Where this worker staged something for the client last; a hint.
    #[inline]
    pub(crate) fn place(&self, worker: usize) -> usize {
        self.places
            .get(worker)
            .map_or(usize::MAX, |place| place.load(Relaxed) as usize)
    }

    #[inline]
    pub(crate) fn set_place(&self, worker: usize, place: usize) {
        if let Some(slot) = self.places.get(worker) {
            slot.store(place as u32, Relaxed);
        }
    }

    /// Sends what was staged, behind what waits already. Above `pending_bytes_max`, or its own limit, the client is a slow consumer.
    /// Returns whether it falls behind: more than half of that waits.
    pub(crate) fn send(&self, staged: &Staged, pending_bytes_max: usize) -> bool {
        let pending_bytes_max = self.pending_bytes_max.unwrap_or(pending_bytes_max);
        let mut queue = self.queue();
        let ends = queue.reason.is_some_and(Reason::is_broken);
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
        let waits = queue.writing || !queue.parts.is_empty();
        let tries = !queue.writing && (!waits || queue.is_fresh);
        if waits {
            queue.keep(staged);
        } else {
            queue.writing = true;
            drop(queue);
            let result = write_staged(&socket, staged);
            queue = self.queue();
            queue.wrote_staged(staged, result);
        }
        if tries {
            for _ in 0..ROUNDS_MAX {
                if queue.is_blocked || queue.parts.is_empty() {
                    break;
                }
                queue = self.write(queue, &socket);
            }
        }
        if queue.bytes > pending_bytes_max {
            queue.end(Reason::SlowConsumerPending);
        }
        let falls_behind = queue.bytes > pending_bytes_max / 2;
        // Who is writing sees to what is left with it.
        let needed = self.set_attention(&queue) || self.wants_room.load(Relaxed);
        let call = needed && (!queue.writing || queue.reason.is_some());
        drop(queue);
        if call {
            self.task.wake();
        }
        falls_behind
    }

    /// Leaves bytes to be sent with what is sent next; writes nothing. Who appends sees to it that something is sent, or wakes the task.
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut queue = self.queue();
        queue.append(bytes);
        self.set_attention(&queue);
    }

    /// Writes what waits, as much as the socket takes at once, without the lock.
    fn write<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, socket: &TcpStream) -> MutexGuard<'a, Queue> {
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

    /// The client's own task: writes what waits. Returns whether anything still does.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if !self.needs_attention() {
            return Poll::Ready(());
        }
        let mut queue = self.queue();
        #[cfg(test)]
        queue.put_on_wire(self.id);
        while !queue.writing && !queue.parts.is_empty() {
            let Some(socket) = queue.socket.clone() else { break };
            if socket.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
            queue = self.write(queue, &socket);
        }
        self.set_attention(&queue);
        // Who is writing calls when something is left.
        if queue.writing {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Whether its task has to look into the queue.
    #[inline]
    fn needs_attention(&self) -> bool {
        self.attention.load(Acquire)
    }

    fn set_attention(&self, queue: &Queue) -> bool {
        let needed = queue.writing || !queue.parts.is_empty() || queue.reason.is_some();
        self.attention.store(needed, Release);
        needed
    }

    /// Whether its task has more for it as soon as what waits is written, whoever writes it.
    pub(crate) fn set_wants_room(&self, wants_room: bool) {
        self.wants_room.store(wants_room, Relaxed);
    }

    /// It is to wait a moment before it publishes more.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// Whether it is to wait, asked by its own task.
    #[inline]
    pub(crate) fn take_stall(&self) -> bool {
        self.stalled.load(Relaxed) && self.stalled.swap(false, Relaxed)
    }

    /// Its task looks around.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// Bytes that wait for it.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Bytes that its socket has not taken, those that were dropped with it included.
    pub(crate) fn unsent_bytes(&self) -> usize {
        let queue = self.queue();
        queue.bytes + queue.dropped_bytes
    }

    /// Why the client is to be closed, if another task or its socket said so.
    pub(crate) fn reason(&self) -> Option<Reason> {
        if self.needs_attention() {
            self.queue().reason
        } else {
            None
        }
    }

    /// Since when the socket has taken nothing of what waits; `None` when nothing waits.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        if !self.needs_attention() {
            return None;
        }
        let queue = self.queue();
        (queue.bytes > 0).then_some(queue.blocked_since)
    }

    /// The client is to be closed; the first reason counts.
    pub(crate) fn close(&self, reason: Reason) {
        let mut queue = self.queue();
        if queue.reason.is_none() {
            queue.reason = Some(reason);
        }
        self.set_attention(&queue);
        drop(queue);
        self.task.wake();
    }

    /// Closes the connection when its socket was reset. Returns why it is to be closed, if it is.
    pub(crate) fn end_if_reset(&self) -> Option<Reason> {
        let socket = self.queue().socket.clone();
        if socket.is_some_and(|socket| was_reset(&socket)) {
            self.close(Reason::ReadError);
        }
        self.queue().reason
    }

    /// The client is gone: nothing more is kept for it, and its socket is let go whoever still knows the outbox.
    pub(crate) fn gone(&self) {
        let mut queue = self.queue();
        queue.end(Reason::ClientClosed);
        queue.socket = None;
        #[cfg(test)]
        queue.wire.take();
        self.set_attention(&queue);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the peer or the network cut the connection off. A reset after the peer's orderly close (a broken
/// pipe) does not count.
fn was_reset(socket: &TcpStream) -> bool {
    use std::io::ErrorKind::BrokenPipe;
    matches!(socket.take_error(), Ok(Some(error)) if error.kind() != BrokenPipe)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
