//! Commands for a session from the rest of the sidecar. A command that is sent twice before the session takes it counts
//! once, so pending commands need no queue.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// A command for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCommand {
    /// The registry no longer names the node: check at once whether it is alive.
    Probe,
    /// The registry marks the node as draining: move to another node.
    Leave,
    /// The sidecar stops: end in order.
    ShutDown,
    /// The settings changed: read them again.
    ReadPolicy,
    /// Held publishes may be due: check whether they can be sent.
    Release,
}

/// Pending commands for a session, and the waker of its task.
#[derive(Debug, Default)]
pub(crate) struct PendingCommands {
    waker: AtomicWaker,
    probe: AtomicBool,
    leave: AtomicBool,
    shut_down: AtomicBool,
    read_policy: AtomicBool,
    release: AtomicBool,
}

impl PendingCommands {
    /// Adds a command and wakes the session's task.
    pub(crate) fn send(&self, command: SessionCommand) {
        self.flag(command).store(true, Relaxed);
        self.waker.wake();
    }

    /// Sets the waker for the next command.
    pub(crate) fn register_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Returns whether `command` was sent since the last call.
    pub(crate) fn take(&self, command: SessionCommand) -> bool {
        let flag = self.flag(command);
        flag.load(Relaxed) && flag.swap(false, Relaxed)
    }

    fn flag(&self, command: SessionCommand) -> &AtomicBool {
        match command {
            SessionCommand::Probe => &self.probe,
            SessionCommand::Leave => &self.leave,
            SessionCommand::ShutDown => &self.shut_down,
            SessionCommand::ReadPolicy => &self.read_policy,
            SessionCommand::Release => &self.release,
        }
    }
}
