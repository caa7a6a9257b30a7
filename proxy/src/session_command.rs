//! Commands for a session from the rest of the sidecar.

/// A command for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionCommand {
    /// The registry no longer names the node, or another session has lost it: check at once whether it is alive.
    Probe,
    /// The registry marks the node as draining: move to another node.
    Leave,
    /// Move to the node in [`SessionStatus::balance_to`](crate::session_info::SessionStatus), if that loses nothing.
    Balance,
    /// The sidecar stops: begin the orderly end.
    ShutDown,
    /// The settings changed: read them again.
    ReadPolicy,
    /// Held publishes may be due: check whether they can be sent.
    Release,
    /// The component has sent no command yet, and its place is needed for another: close its connection.
    Evict,
    /// The next program is about to replace this one. A session with TLS cannot go on there: end it, or leave its node.
    PrepareRest,
    /// Write the state for the next program, and rest.
    Rest,
    /// The next program was refused: go on.
    GoOn,
}
