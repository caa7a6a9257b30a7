//! What waits for one client, in order, and the calls to the kernel that take it away. [`Outbox`](super::Outbox) holds it under a lock,
//! but over no such call: bytes that are being written are taken out, and what is left of them is put before what came meanwhile.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::staged::Staged;
use crate::closing::Reason;

/// Parts that one call to the kernel takes at most.
const PARTS_MAX: usize = 64;
/// A kept part grows up to this, so that a slow client costs few allocations.
const PART_BYTES_MAX: usize = 64 * 1024;

/// In the place of sockets, for simulations: what was sent, each time with the id of the outbox it was sent from.
#[cfg(test)]
pub(crate) type Wire = Arc<std::sync::Mutex<Vec<(u64, Vec<u8>)>>>;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Queue {
    /// `None` once the client is gone.
    pub(super) socket: Option<Arc<TcpStream>>,
    #[cfg(test)]
    pub(super) wire: Option<Wire>,
    /// Somebody is writing; what comes meanwhile is left in `parts`.
    pub(super) writing: bool,
    pub(super) parts: VecDeque<Part>,
    /// Something was appended that nobody has tried to write.
    pub(super) is_fresh: bool,
    /// The socket took less than it was given when it was last written to.
    pub(super) is_blocked: bool,
    /// Bytes of the first part that are with the socket.
    pub(super) written: usize,
    /// Bytes that wait.
    pub(super) bytes: usize,
    /// Since when the socket took nothing.
    pub(super) blocked_since: Instant,
    /// Why the client is to be closed.
    pub(super) reason: Option<Reason>,
    /// Bytes that waited when it was to be closed at once.
    pub(super) dropped_bytes: usize,
}

#[derive(Debug)]
pub(super) enum Part {
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

impl Queue {
    /// For a client behind this socket.
    pub(super) fn new(socket: Option<Arc<TcpStream>>) -> Self {
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
        let bytes: Vec<u8> = self
            .parts
            .drain(..)
            .flat_map(|part| part.bytes().to_vec())
            .collect();
        wire.lock().unwrap().push((id, bytes));
        self.bytes = 0;
    }

    /// Leaves bytes behind what waits.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.is_gone() || self.reason.is_some_and(Reason::is_broken) {
            return;
        }
        if self.bytes == 0 {
            self.blocked_since = Instant::now();
        }
        self.bytes += bytes.len();
        self.is_fresh = true;
        match self.parts.back_mut() {
            Some(Part::Own(last)) if last.len() < PART_BYTES_MAX => last.extend_from_slice(bytes),
            _ => self.parts.push_back(Part::Own(bytes.to_vec())),
        }
    }

    /// Keeps what was staged, behind what waits.
    pub(super) fn keep(&mut self, staged: &Staged) {
        self.bytes += staged.len();
        staged.parts(|part, shared| match (shared, self.parts.back_mut()) {
            _ if part.is_empty() => {}
            (Some(shared), _) => self.parts.push_back(Part::Shared(shared.clone())),
            (None, Some(Part::Own(last))) if last.len() < PART_BYTES_MAX => last.extend_from_slice(part),
            (None, _) => self.parts.push_back(Part::Own(part.to_vec())),
        });
    }

    /// What was staged went to the socket, or some of it; the rest comes before what others left meanwhile.
    pub(super) fn wrote_staged(&mut self, staged: &Staged, result: io::Result<usize>) {
        let Some(written) = self.wrote(result) else { return };
        self.is_blocked = written < staged.len();
        self.bytes += staged.len() - written;
        let (mut skip, mut rest) = (written, VecDeque::new());
        staged.parts(|part, shared| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                rest.push_back(match shared {
                    Some(shared) => Part::Shared(shared.slice(skipped..)),
                    None => Part::Own(part[skipped..].to_vec()),
                });
            }
        });
        self.put_before(rest);
    }

    /// `parts` without the first `skip` bytes went to the socket, or some of them.
    pub(super) fn wrote_parts(&mut self, mut parts: VecDeque<Part>, skip: usize, result: io::Result<usize>) {
        let Some(written) = self.wrote(result) else { return };
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

    /// A call to the kernel has ended. `None`: so has the client meanwhile.
    fn wrote(&mut self, result: io::Result<usize>) -> Option<usize> {
        self.writing = false;
        match result {
            _ if self.socket.is_none() || self.reason.is_some_and(Reason::is_broken) => None,
            Ok(written) => {
                if written > 0 || self.bytes == 0 {
                    self.blocked_since = Instant::now();
                }
                Some(written)
            }
            Err(_) => {
                self.end(Reason::WriteError);
                None
            }
        }
    }

    fn put_before(&mut self, mut parts: VecDeque<Part>) {
        parts.append(&mut self.parts);
        self.parts = parts;
    }

    pub(super) fn end(&mut self, reason: Reason) {
        // One that breaks the connection counts more than one that lets it end in order.
        if self.reason.is_none_or(|known| !known.is_broken()) {
            self.reason = Some(reason);
        }
        self.parts = VecDeque::new();
        self.written = 0;
        self.dropped_bytes += std::mem::take(&mut self.bytes);
    }
}

/// Writes of `parts`, without the first `skip` bytes, as much as the socket takes in one call.
pub(super) fn write_parts(socket: &TcpStream, parts: &VecDeque<Part>, mut skip: usize) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); PARTS_MAX];
    let count = parts.len().min(PARTS_MAX);
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(&part.bytes()[std::mem::take(&mut skip)..]);
    }
    match socket.try_write_vectored(&slices[..count]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Writes as much as the socket takes at once.
pub(super) fn write_staged(socket: &TcpStream, staged: &Staged) -> io::Result<usize> {
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
