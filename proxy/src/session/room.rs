//! The buffered bytes of a session, its own limit on reads, and the minimum that it may read when the shared buffer budget
//! of all sessions is exhausted.

use super::Session;

/// Minimum size of a read that is allowed despite an exhausted budget. A control line fits, and a busy session makes progress.
const LEAST_BYTES: usize = 4096;

/// Limit on the bytes of a control line besides its arguments: the verb, a blank and the line end.
const VERB_BYTES_MAX: usize = 16;

impl Session {
    /// Returns whether the bytes that wait for the component are below the session's own limit.
    pub(super) fn has_room_for_component(&self) -> bool {
        self.component.outbox.len() < self.policy.component_pending_bytes_max
    }

    /// Records whether reads from the node are paused because the shared buffer budget is exhausted.
    pub(crate) fn set_node_starved(&mut self, starved: bool) {
        if let Some(node) = &mut self.connection {
            node.starved = starved;
        }
    }

    /// Returns how many bytes of the component may be read even when the shared buffer budget is exhausted. If the session
    /// has a node, the rest of an incomplete frame may always be read, so that the frame can leave the buffer. A session
    /// without buffered bytes may read a little at a time.
    pub(crate) fn least_component_bytes(&self) -> usize {
        let component = &self.component;
        if self.has_incomplete_frame() {
            component.scanner.missing(&component.held).max(LEAST_BYTES)
        } else if self.buffered_bytes() == 0 {
            LEAST_BYTES
        } else {
            0
        }
    }

    /// Returns how many bytes of the node may be read, as [`least_component_bytes`](Self::least_component_bytes) does for
    /// the component.
    pub(crate) fn least_node_bytes(&self) -> usize {
        match &self.connection {
            _ if !self.component.outbox.is_empty() => 0,
            Some(node) if !node.partial.is_empty() => node.scanner.missing(&node.partial).max(LEAST_BYTES),
            _ => LEAST_BYTES,
        }
    }

    /// Returns how many bytes of the component are kept at most while the session has no node. Before its first command, only a
    /// control line is kept, so that unknown peers do not use up the buffers of all sessions.
    pub(super) fn held_bytes_max(&self) -> usize {
        let buffer_bytes = self.policy.buffer_bytes;
        if self.has_sent_command() {
            return buffer_bytes;
        }
        buffer_bytes.min(self.policy.control_line_bytes_max + VERB_BYTES_MAX)
    }

    /// Returns how many bytes of the component may be read at once so that at most [`held_bytes_max`](Self::held_bytes_max) are
    /// kept. If the session has a node, the rest of an incomplete frame may always be read.
    pub(crate) fn read_bytes_max(&self) -> usize {
        if self.has_incomplete_frame() {
            return usize::MAX;
        }
        let held_bytes = self.component.held.len();
        self.held_bytes_max().saturating_sub(held_bytes).max(1)
    }

    /// Returns whether the session has a node, and the held bytes begin with an incomplete frame.
    fn has_incomplete_frame(&self) -> bool {
        self.connection.as_ref().is_some_and(|node| node.incomplete)
    }

    /// Returns the bytes in all buffers of the session.
    pub(crate) fn buffered_bytes(&self) -> usize {
        let node = self.connection.as_ref();
        self.component.held.len()
            + self.component.outbox.len()
            + node.map_or(0, |node| node.own.len() + node.partial.len())
            + self.doubt.log_bytes()
    }
}
