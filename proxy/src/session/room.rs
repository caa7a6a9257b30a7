//! The memory of a session and its read limits: its own, and the minimum that it may read when the shared buffer budget of all
//! sessions is exhausted.

use super::{Session, Stage};

/// Smallest read where a frame begins or continues. A control line fits, and a busy session makes progress.
const LEAST_BYTES: usize = 4096;

impl Session {
    /// Returns whether the bytes that wait for the component are below the session's own limit.
    pub(super) fn has_room_for_component(&self) -> bool {
        self.down.outbox.len() < self.policy.component_pending_bytes_max
    }

    /// Returns whether the node is read. If it is not read, its silence means nothing.
    pub(super) fn hears_node(&self) -> bool {
        self.has_room_for_component() && !self.down.starved
    }

    /// Sets whether the node is not read because the shared buffer budget is exhausted.
    pub(crate) const fn set_node_starved(&mut self, starved: bool) {
        self.down.starved = starved;
    }

    /// Returns how many bytes of the component may be read even when the shared buffer budget is exhausted. The rest of a
    /// frame may always be read, so that the frame can leave the buffer. A session without buffered bytes may read a little
    /// at a time.
    pub(crate) fn least_component_bytes(&self) -> usize {
        if self.up.incomplete {
            self.up.scanner.missing(&self.up.held).max(LEAST_BYTES)
        } else if self.buffered_bytes() == 0 {
            LEAST_BYTES
        } else {
            0
        }
    }

    /// Returns how many bytes of the node may be read, as [`least_component_bytes`](Self::least_component_bytes) does for
    /// the component.
    pub(crate) fn least_node_bytes(&self) -> usize {
        if !self.down.outbox.is_empty() {
            0
        } else if self.down.partial.is_empty() {
            LEAST_BYTES
        } else {
            self.down.scanner.missing(&self.down.partial).max(LEAST_BYTES)
        }
    }

    /// Returns how many bytes of the component may be read at once so that at most `buffer_bytes` are kept. The rest of a
    /// frame may always be read if the node has its beginning.
    pub(crate) fn read_bytes_max(&self) -> usize {
        if self.up.incomplete && self.stage != Stage::Searching {
            return usize::MAX;
        }
        self.policy.buffer_bytes.saturating_sub(self.up.held.len()).max(1)
    }

    /// Returns the bytes in all buffers of the session.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.up.held.len()
            + self.up.own.len()
            + self.down.partial.len()
            + self.down.outbox.len()
            + self.doubt.log_bytes()
    }
}
