//! The session's share of the shared buffer budget.

use std::sync::Arc;

use crate::sidecar_state::SidecarState;

/// The session's share of the shared buffer budget. Dropping it returns the share, even when the session panics.
pub(super) struct BufferShare {
    pub(super) shared: Arc<SidecarState>,
    pub(super) bytes: usize,
}

impl BufferShare {
    pub(super) fn set(&mut self, bytes: usize) {
        self.shared
            .count_buffered(std::mem::replace(&mut self.bytes, bytes), bytes);
    }
}

impl Drop for BufferShare {
    fn drop(&mut self) {
        self.set(0);
    }
}
