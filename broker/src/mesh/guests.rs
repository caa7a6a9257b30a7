//! Who has connected to the mesh's port and is not yet a link. They are so many at the most, and when one more comes the oldest must go:
//! a node of the mesh is through in a moment, whoever else crowds the port.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::task::AbortHandle;

/// So many introduce themselves at the same time.
const GUESTS_MAX: usize = 256;

/// See the file's head. The oldest are first.
#[derive(Debug, Default)]
pub(super) struct Guests(VecDeque<(SocketAddr, AbortHandle)>);

impl Guests {
    /// One has come from there, and introduces itself in this task. Returns who had to go for it.
    pub(super) fn came(&mut self, peer: SocketAddr, task: AbortHandle) -> Option<SocketAddr> {
        self.0.push_back((peer, task));
        if self.0.len() <= GUESTS_MAX {
            return None;
        }
        let (oldest, task) = self.0.pop_front()?;
        task.abort();
        Some(oldest)
    }

    /// Who came from there is a guest no longer: it is a link, or gone.
    pub(super) fn is_through(&mut self, peer: SocketAddr) {
        self.0.retain(|(guest, _)| *guest != peer);
    }
}
