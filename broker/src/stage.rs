//! The output of one worker in one turn, collected per client. It is written once per client, after the input of all clients in this
//! turn was processed. For example, sixteen requests to one service are written to it in one system call.
//!
//! A stage belongs to one thread, so it needs no lock. Its buffers are reused in later turns.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

use crate::outbox::{Outbox, Staged};

/// Once this many bytes are staged for one client, they are sent before the end of the turn. This bounds the memory for large messages
/// to many subscribers.
const STAGED_BYTES_MAX: usize = 128 * 1024;
/// If more bytes than this are staged for all clients together, all are sent before the end of the turn. This bounds the memory when ten
/// thousand subscribers each have less than [`STAGED_BYTES_MAX`].
const STAGED_TOTAL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Limit on the total size of the empty buffers that are kept for the next turn. Buffers above it are freed.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

const PRODUCERS_MAX: usize = 64;

/// The staged bytes of one client, and their publishers. The publishers are paused if the client cannot keep up.
#[derive(Debug, Default)]
struct Slot {
    /// `None` if nothing is staged.
    outbox: Option<Arc<Outbox>>,
    staged: Staged,
    producers: Vec<Arc<Outbox>>,
}

impl Slot {
    #[inline]
    fn published_by(&mut self, producer: &Arc<Outbox>) {
        let last = self.producers.last();
        let known = last.is_some_and(|last| Arc::ptr_eq(last, producer));
        if !known && self.producers.len() < PRODUCERS_MAX {
            self.producers.push(Arc::clone(producer));
        }
    }
}

/// Counter that is odd while a stage is *split*: it has sent the staged bytes of some clients, and not yet those of others. It is
/// incremented at the beginning and at the end of each split.
pub(crate) type Split = Arc<AtomicU64>;

#[derive(Debug)]
pub(crate) struct Stage {
    worker: usize,
    split: Split,
    slots: Vec<Slot>,
    used: usize,
    /// Bytes staged since the last flush. Shared payloads are not counted.
    bytes: usize,
    /// Total capacity of the empty buffers.
    kept_bytes: usize,
    pending_bytes_max: usize,
}

impl Stage {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            split: Split::default(),
            slots: Vec::new(),
            used: 0,
            bytes: 0,
            kept_bytes: 0,
            pending_bytes_max: usize::MAX,
        }
    }

    /// Returns the number of the worker.
    pub(crate) const fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the split counter, which other threads read.
    pub(crate) const fn split(&self) -> &Split {
        &self.split
    }

    fn is_split(&self) -> bool {
        self.split.load(Relaxed) & 1 == 1
    }

    /// Sets whether the stage is split. A plain store is enough, because only this stage writes the counter.
    fn set_split(&self, split: bool) {
        let count = self.split.load(Relaxed);
        if (count & 1 == 1) != split {
            self.split.store(count + 1, Release);
        }
    }

    /// Sends everything if the stage is split.
    pub(crate) fn finish_split(&mut self) {
        if self.is_split() {
            self.flush();
        }
    }

    /// Sets the limit on pending bytes, above which a client is a slow consumer.
    pub(crate) const fn set_pending_bytes_max(&mut self, bytes: usize) {
        self.pending_bytes_max = bytes;
    }

    /// Returns the staged bytes of a client, to be appended to.
    #[inline]
    pub(crate) fn of(&mut self, outbox: &Arc<Outbox>) -> &mut Staged {
        &mut self.slot(outbox).staged
    }

    /// Like [`of`](Self::of), for a message published by `producer`. Counts the message.
    #[inline]
    pub(crate) fn message(&mut self, outbox: &Arc<Outbox>, producer: &Arc<Outbox>) -> &mut Staged {
        let slot = self.slot(outbox);
        slot.published_by(producer);
        slot.staged.messages += 1;
        &mut slot.staged
    }

    #[inline]
    fn slot(&mut self, outbox: &Arc<Outbox>) -> &mut Slot {
        let place = outbox.place(self.worker);
        let known = place < self.used
            && self.slots[place]
                .outbox
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, outbox));
        if known {
            if self.slots[place].staged.len() >= STAGED_BYTES_MAX {
                self.send(place);
                self.kept_bytes -= self.slots[place].staged.bytes.capacity();
                self.slots[place].outbox = Some(Arc::clone(outbox));
            }
            return &mut self.slots[place];
        }
        let place = self.used;
        if place == self.slots.len() {
            self.slots.push(Slot::default());
        }
        outbox.set_place(self.worker, place);
        self.used += 1;
        let slot = &mut self.slots[place];
        self.kept_bytes -= slot.staged.bytes.capacity();
        slot.outbox = Some(Arc::clone(outbox));
        slot
    }

    #[inline]
    pub(crate) const fn added(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Sends everything if [`STAGED_TOTAL_BYTES_MAX`] is exceeded. Called after each message.
    #[inline]
    pub(crate) fn bound(&mut self) {
        if self.bytes > STAGED_TOTAL_BYTES_MAX {
            self.flush();
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Sends everything. Clients with messages come before clients with answers only, so that a PONG is not sent before the messages that
    /// it confirms.
    pub(crate) fn flush(&mut self) {
        for answers in [false, true] {
            for place in 0..self.used {
                if answers || self.slots[place].staged.messages > 0 {
                    self.send(place);
                }
            }
        }
        self.used = 0;
        self.bytes = 0;
        self.set_split(false);
    }

    /// Sends the staged bytes of one client before the end of the turn.
    pub(crate) fn flush_to(&mut self, outbox: &Arc<Outbox>) {
        let place = outbox.place(self.worker);
        let known = self.slots.get(place).and_then(|slot| slot.outbox.as_ref());
        if known.is_some_and(|known| Arc::ptr_eq(known, outbox)) {
            self.send(place);
        }
        if self.slots[..self.used].iter().all(|slot| slot.outbox.is_none()) {
            self.flush();
        }
    }

    fn send(&mut self, place: usize) {
        let Some(outbox) = self.slots[place].outbox.take() else {
            return;
        };
        if self.used > 1 {
            self.set_split(true);
        }
        let Slot {
            staged, producers, ..
        } = &mut self.slots[place];
        if outbox.send(staged, self.pending_bytes_max) {
            producers.iter().for_each(|producer| producer.stall());
        }
        staged.clear();
        producers.clear();
        self.kept_bytes += staged.bytes.capacity();
        if self.kept_bytes > KEPT_BYTES_MAX {
            self.kept_bytes -= staged.bytes.capacity();
            staged.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_for_the_next_turn_up_to_a_limit() {
        let mut stage = Stage::new(0);
        let outboxes: Vec<_> = (0..400).map(|id| Arc::new(Outbox::unconnected(id))).collect();
        for _ in 0..3 {
            for outbox in &outboxes {
                stage.of(outbox).bytes.resize(100_000, b'x');
            }
            stage.flush_to(&outboxes[7]);
            stage.flush();
            let kept: usize = stage.slots.iter().map(|slot| slot.staged.bytes.capacity()).sum();
            assert_eq!(kept, stage.kept_bytes);
            assert!(
                kept <= KEPT_BYTES_MAX && kept > KEPT_BYTES_MAX / 2,
                "{kept} bytes are kept"
            );
        }
    }
}
