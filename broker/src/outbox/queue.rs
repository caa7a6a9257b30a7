//! The pending bytes of one client, in order, and the system calls that write them. [`Outbox`](super::Outbox) keeps the queue under a
//! lock, which is not held during a system call: the bytes to be written are taken out of the queue, and those that the socket did not
//! take are put back, before the bytes that were added meanwhile.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use standin_tls::stream::Stream;

use super::staged::Staged;
use crate::close_reason::CloseReason;

/// Maximum number of parts in one system call.
const PARTS_MAX: usize = 64;
/// Size up to which bytes are appended to the last part, so that a slow client causes few allocations.
const PART_BYTES_MAX: usize = 64 * 1024;

/// Replacement for sockets in simulations: the bytes of each write, with the id of the outbox.
#[cfg(test)]
pub(crate) type Wire = Arc<std::sync::Mutex<Vec<(u64, Vec<u8>)>>>;

#[derive(Debug)]
pub(super) struct Queue {
    /// `None` once the client is gone.
    pub(super) socket: Option<Arc<Stream>>,
    #[cfg(test)]
    pub(super) wire: Option<Wire>,
    /// A thread is writing. Until it has finished, no other thread writes.
    pub(super) writing: bool,
    pub(super) parts: VecDeque<Part>,
    /// Bytes were appended that no thread has tried to write yet.
    pub(super) is_fresh: bool,
    /// The last write ended because the socket would block.
    pub(super) is_blocked: bool,
    /// Bytes of the first part that are already written.
    pub(super) written: usize,
    pub(super) bytes: usize,
    /// Time since which the socket has taken no bytes.
    pub(super) blocked_since: Instant,
    /// Reason to close the connection.
    pub(super) reason: Option<CloseReason>,
    /// Pending bytes that were dropped when the connection ended.
    pub(super) dropped_bytes: usize,
}

#[derive(Debug)]
pub(super) enum Part {
    Buffer(Vec<u8>),
    Payload(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Buffer(bytes) => bytes,
            Self::Payload(bytes) => bytes,
        }
    }
}

impl Queue {
    pub(super) fn new(socket: Option<Arc<Stream>>) -> Self {
        Self {
            socket,
            #[cfg(test)]
            wire: None,
            writing: false,
            is_fresh: false,
            is_blocked: false,
            parts: VecDeque::new(),
            written: 0,
            bytes: 0,
            blocked_since: Instant::now(),
            reason: None,
            dropped_bytes: 0,
        }
    }

    fn is_gone(&self) -> bool {
        #[cfg(test)]
        if self.wire.is_some() {
            return false;
        }
        self.socket.is_none()
    }

    #[cfg(test)]
    pub(super) fn put_on_wire(&mut self, id: u64) {
        let Some(wire) = self.wire.as_ref().filter(|_| !self.parts.is_empty()) else {
            return;
        };
        let parts = self.parts.drain(..);
        let bytes = parts.flat_map(|part| part.bytes().to_vec()).collect();
        wire.lock().unwrap().push((id, bytes));
        self.bytes = 0;
    }

    /// Returns whether bytes wait for the socket: as they were staged, or encrypted.
    pub(super) fn has_pending(&self) -> bool {
        !self.parts.is_empty() || self.socket.as_ref().is_some_and(|socket| socket.has_unsent())
    }

    /// Adds bytes after the pending ones.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.is_gone() || self.reason.is_some_and(CloseReason::is_broken) {
            return;
        }
        self.count(bytes.len());
        self.is_fresh = true;
        self.push(bytes);
    }

    /// Counts added bytes. If none were pending, `blocked_since` is set to now.
    fn count(&mut self, added: usize) {
        if self.bytes == 0 {
            self.blocked_since = Instant::now();
        }
        self.bytes += added;
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.parts.back_mut() {
            Some(Part::Buffer(last)) if last.len() < PART_BYTES_MAX => last.extend_from_slice(bytes),
            _ => self.parts.push_back(Part::Buffer(bytes.to_vec())),
        }
    }

    /// Adds staged bytes after the pending ones.
    pub(super) fn keep(&mut self, staged: &Staged) {
        self.count(staged.len());
        staged.parts(|part, shared| match shared {
            _ if part.is_empty() => {}
            Some(shared) => self.parts.push_back(Part::Payload(shared.clone())),
            None => self.push(part),
        });
    }

    /// Handles the result of writing staged bytes. The rest is put before the bytes that were added meanwhile.
    pub(super) fn wrote_staged(&mut self, staged: &Staged, result: io::Result<usize>) {
        let taken = *result.as_ref().unwrap_or(&0);
        let Some(written) = self.wrote(result) else {
            self.dropped_bytes += staged.len() - taken;
            return;
        };
        self.is_blocked = written < staged.len();
        self.bytes += staged.len() - written;
        let mut rest = VecDeque::new();
        staged.parts_after(written, |part, shared, skipped| {
            rest.push_back(match shared {
                Some(shared) => Part::Payload(shared.slice(skipped..)),
                None => Part::Buffer(part.to_vec()),
            });
        });
        self.put_before(rest);
    }

    /// Handles the result of writing `parts` without the first `skip` bytes.
    pub(super) fn wrote_parts(&mut self, mut parts: VecDeque<Part>, skip: usize, result: io::Result<usize>) {
        let taken = *result.as_ref().unwrap_or(&0);
        let Some(written) = self.wrote(result) else {
            // All bytes of `parts` were counted as dropped before the write ended. Those that the socket took are subtracted.
            self.dropped_bytes = self.dropped_bytes.saturating_sub(taken);
            return;
        };
        self.bytes -= written;
        self.written = skip + written;
        while let Some(first) = parts.front()
            && self.written >= first.bytes().len()
        {
            self.written -= first.bytes().len();
            parts.pop_front();
        }
        self.is_blocked = written == 0;
        self.put_before(parts);
    }

    /// Ends a write. Returns the number of bytes written, or `None` if the connection is closed or broken.
    fn wrote(&mut self, result: io::Result<usize>) -> Option<usize> {
        self.writing = false;
        match result {
            _ if self.socket.is_none() || self.reason.is_some_and(CloseReason::is_broken) => None,
            Ok(written) => {
                if written > 0 || self.bytes == 0 {
                    self.blocked_since = Instant::now();
                }
                Some(written)
            }
            Err(_) => {
                self.end(CloseReason::WriteError);
                None
            }
        }
    }

    fn put_before(&mut self, mut parts: VecDeque<Part>) {
        parts.append(&mut self.parts);
        self.parts = parts;
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        // A reason that forbids further writes is kept. Any other reason is replaced.
        if self.reason.is_none_or(|known| !known.is_broken()) {
            self.reason = Some(reason);
        }
        self.parts = VecDeque::new();
        self.written = 0;
        self.dropped_bytes += std::mem::take(&mut self.bytes);
    }
}

/// Writes `parts` without the first `skip` bytes, as much as the socket takes in one call.
pub(super) fn write_parts(socket: &Stream, parts: &VecDeque<Part>, mut skip: usize) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); PARTS_MAX];
    let count = parts.len().min(PARTS_MAX);
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(&part.bytes()[std::mem::take(&mut skip)..]);
    }
    match socket.try_write(&slices[..count]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Writes the staged bytes, until the socket would block.
pub(super) fn write_staged(socket: &Stream, staged: &Staged) -> io::Result<usize> {
    let mut written = 0;
    while written < staged.len() {
        let result = if staged.has_shared() {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            let mut count = 0;
            staged.parts_after(written, |part, _, _| {
                if count < PARTS_MAX {
                    slices[count] = IoSlice::new(part);
                    count += 1;
                }
            });
            socket.try_write(&slices[..count])
        } else {
            socket.try_write(&[IoSlice::new(&staged.bytes[written..])])
        };
        match result {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
