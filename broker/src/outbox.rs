//! What a client is to be sent: the last stop of a message.
//!
//! Any worker may have something for any client. It stages all of a turn for one client first ([`Stage`](crate::stage::Stage))
//! and brings it here once; if nothing waits before it, it goes straight to the socket, from the worker that has it. Only what
//! the socket does not take is kept, and the client's own task writes it when the socket takes bytes again.
//!
//! *Architecture invariant:* what waits for one client is bounded by `pending_bytes_max`; a client that does not read is
//! closed, and never delays another one without limit.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

use crate::closing::Reason;
use crate::stage::Staged;

/// Parts that one call to the kernel takes at most.
const PARTS_MAX: usize = 64;
/// A kept part grows up to this, so that a slow client costs few allocations.
const PART_BYTES_MAX: usize = 64 * 1024;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The client's number in this server's life, as `client_id` of INFO.
    pub(crate) id: u64,
    /// Takes HMSG; others get messages without their headers.
    pub(crate) takes_headers: AtomicBool,
    /// Wants its own messages back.
    pub(crate) echo: AtomicBool,
    /// It publishes to one that cannot keep up.
    stalled: AtomicBool,
    /// Messages and bytes of payload sent to it, for the pages.
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// Its place on each worker's stage.
    places: Box<[AtomicU32]>,
    queue: Mutex<Queue>,
    /// The client's own task.
    task: AtomicWaker,
}

#[derive(Debug)]
struct Queue {
    /// `None` once the client is gone.
    socket: Option<Arc<TcpStream>>,
    parts: VecDeque<Part>,
    /// Bytes of the first part that are with the socket.
    written: usize,
    /// Bytes that wait.
    bytes: usize,
    /// Since when the socket took nothing.
    blocked_since: Instant,
    /// Why the client is to be closed.
    reason: Option<Reason>,
}

#[derive(Debug)]
enum Part {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// How the client stands after something was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Bytes that wait.
    pub(crate) pending_bytes: usize,
}

impl Outbox {
    /// For a client that has just connected, on a server with so many workers.
    pub(crate) fn new(id: u64, socket: Option<Arc<TcpStream>>, workers: usize) -> Self {
        Self {
            id,
            takes_headers: AtomicBool::new(false),
            echo: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            messages_out: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            places: (0..workers).map(|_| AtomicU32::new(u32::MAX)).collect(),
            queue: Mutex::new(Queue {
                socket,
                parts: VecDeque::new(),
                written: 0,
                bytes: 0,
                blocked_since: Instant::now(),
                reason: None,
            }),
            task: AtomicWaker::new(),
        }
    }

    /// For tests: nothing can be sent to it.
    #[cfg(test)]
    pub(crate) fn unconnected(id: u64) -> Self {
        Self::new(id, None, 1)
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

    /// Sends what was staged, behind what waits already. Above `pending_bytes_max` the client is a slow consumer.
    pub(crate) fn send(&self, staged: &mut Staged, pending_bytes_max: usize) -> Standing {
        let mut queue = self.queue();
        let Some(socket) = queue.socket.clone() else {
            return Standing { pending_bytes: 0 };
        };
        self.messages_out.fetch_add(staged.messages, Relaxed);
        self.bytes_out.fetch_add(staged.payload_bytes, Relaxed);
        let mut written = 0;
        if queue.parts.is_empty() {
            match write_staged(&socket, staged) {
                Ok(count) => written = count,
                Err(_) => queue.end(Reason::WriteError),
            }
            queue.blocked_since = Instant::now();
        }
        if queue.reason.is_none() && written < staged.len() {
            queue.keep(staged, written);
            if queue.bytes > pending_bytes_max {
                queue.end(Reason::SlowConsumerPending);
            }
        }
        let pending_bytes = queue.bytes;
        let call = pending_bytes > 0 || queue.reason.is_some();
        drop(queue);
        if call {
            self.task.wake();
        }
        Standing { pending_bytes }
    }

    /// The client's own task: writes what waits. Returns whether anything still does.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        let mut queue = self.queue();
        while !queue.parts.is_empty() {
            let Some(socket) = queue.socket.clone() else { break };
            if socket.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
            match queue.write(&socket) {
                Ok(0) => {}
                Ok(_) => queue.blocked_since = Instant::now(),
                Err(_) => queue.end(Reason::WriteError),
            }
        }
        Poll::Ready(())
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

    /// Why the client is to be closed, if another task or its socket said so.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.queue().reason
    }

    /// Since when the socket has taken nothing of what waits; `None` when nothing waits.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        let queue = self.queue();
        (queue.bytes > 0).then_some(queue.blocked_since)
    }

    /// The client is to be closed; the first reason counts.
    pub(crate) fn close(&self, reason: Reason) {
        let mut queue = self.queue();
        if queue.reason.is_none() {
            queue.reason = Some(reason);
        }
        drop(queue);
        self.task.wake();
    }

    /// The client is gone: nothing more is kept for it, and its socket is let go whoever still knows the outbox.
    pub(crate) fn gone(&self) {
        let mut queue = self.queue();
        queue.end(Reason::ClientClosed);
        queue.socket = None;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Keeps what the socket did not take.
    fn keep(&mut self, staged: &Staged, mut skip: usize) {
        self.bytes += staged.len() - skip;
        staged.parts(|part, shared| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            let rest = &part[skipped..];
            match (shared, self.parts.back_mut()) {
                _ if rest.is_empty() => {}
                (Some(shared), _) => self.parts.push_back(Part::Shared(shared.slice(skipped..))),
                (None, Some(Part::Own(last))) if last.len() < PART_BYTES_MAX => last.extend_from_slice(rest),
                (None, _) => self.parts.push_back(Part::Own(rest.to_vec())),
            }
        });
    }

    /// Writes of what waits as much as the socket takes at once.
    fn write(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        let count = self.parts.len().min(PARTS_MAX);
        let mut skip = self.written;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(&part.bytes()[std::mem::take(&mut skip)..]);
        }
        let written = match socket.try_write_vectored(&slices[..count]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            other => other?,
        };
        self.bytes -= written;
        self.written += written;
        while let Some(first) = self.parts.front()
            && self.written >= first.bytes().len()
        {
            self.written -= first.bytes().len();
            self.parts.pop_front();
        }
        Ok(written)
    }

    fn end(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
        self.parts = VecDeque::new();
        self.written = 0;
        self.bytes = 0;
    }
}

/// Writes as much as the socket takes at once.
fn write_staged(socket: &TcpStream, staged: &Staged) -> io::Result<usize> {
    let mut written = 0;
    while written < staged.len() {
        let result = if staged.has_shared() {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            let mut count = 0;
            let mut skip = written;
            staged.parts(|part, _| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() && count < PARTS_MAX {
                    slices[count] = IoSlice::new(&part[skipped..]);
                    count += 1;
                }
            });
            socket.try_write_vectored(&slices[..count])
        } else {
            socket.try_write(&staged.bytes[written..])
        };
        match result {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
