//! What one worker has for each client out of one turn: written to each client once, when all clients that had something to
//! say in this turn have said it. So sixteen requests to one service are one call to the kernel.
//!
//! A stage belongs to one thread, so nothing here is locked. Its buffers are used again from turn to turn.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

use crate::outbox::{Outbox, Staged};

/// So many bytes for one client are sent before the turn is through: what one client publishes to a hundred subscribers must
/// not take a hundred times its size.
const STAGED_BYTES_MAX: usize = 128 * 1024;
/// And when so many bytes are staged for all clients together, all are sent: what one client publishes to ten thousand
/// subscribers must not take ten thousand times its size.
const STAGED_TOTAL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Buffers are kept for the next turn up to so many bytes together; those that no longer fit are let go.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Clients remembered as those that published to one client in a turn.
const PRODUCERS_MAX: usize = 64;

/// What is staged for one client, and who published it: they wait when the client cannot keep up.
#[derive(Debug, Default)]
struct Slot {
    /// `None` when nothing is staged.
    outbox: Option<Arc<Outbox>>,
    staged: Staged,
    producers: Vec<Arc<Outbox>>,
}

impl Slot {
    #[inline]
    fn published_by(&mut self, producer: &Arc<Outbox>) {
        let known = self
            .producers
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, producer));
        if !known && self.producers.len() < PRODUCERS_MAX {
            self.producers.push(Arc::clone(producer));
        }
    }
}

/// Whether a stage is split: it has sent some of what was staged together, and some not. Odd while it is, and counted on.
pub(crate) type Split = Arc<AtomicU64>;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Stage {
    worker: usize,
    split: Split,
    slots: Vec<Slot>,
    used: usize,
    /// Bytes staged since the last flush, without those that are shared.
    bytes: usize,
    /// What the buffers of clients with nothing staged can hold.
    kept_bytes: usize,
    pending_bytes_max: usize,
}

impl Stage {
    /// The stage of worker number `worker`.
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

    /// For others to see.
    pub(crate) const fn split(&self) -> &Split {
        &self.split
    }

    fn is_split(&self) -> bool {
        self.split.load(Relaxed) & 1 == 1
    }

    /// Only this stage changes it.
    fn set_split(&self, split: bool) {
        let count = self.split.load(Relaxed);
        if (count & 1 == 1) != split {
            self.split.store(count + 1, Release);
        }
    }

    /// Sends everything if some of it has been sent.
    pub(crate) fn mend(&mut self) {
        if self.is_split() {
            self.flush();
        }
    }

    /// Clients for which more waits are slow consumers.
    pub(crate) const fn set_pending_bytes_max(&mut self, bytes: usize) {
        self.pending_bytes_max = bytes;
    }

    /// What is staged for this client, to be added to.
    #[inline]
    pub(crate) fn of(&mut self, outbox: &Arc<Outbox>) -> &mut Staged {
        &mut self.slot(outbox).staged
    }

    /// As [`of`](Self::of), for a message that `producer` has published.
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

    /// So many bytes were added to what is staged.
    #[inline]
    pub(crate) const fn added(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Between two messages: sends everything when that is too much to keep.
    #[inline]
    pub(crate) fn bound(&mut self) {
        if self.bytes > STAGED_TOTAL_BYTES_MAX {
            self.flush();
        }
    }

    /// Whether anything is staged.
    pub(crate) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Sends everything, messages before bare answers: a PONG should not be seen before the messages that it confirms are with
    /// their subscribers.
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

    /// Sends what is staged for this client, before the turn is through.
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
