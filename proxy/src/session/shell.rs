//! The interface between a session and its shell: the sockets, the session's requests, and its notes.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use standin_registry::Node;

use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::tally::Tally;

/// The two sockets of a session. Each call takes as many bytes as fit now and returns their number. A broken socket
/// takes none; its owner reports the break later as an event.
pub(crate) trait Wires {
    /// Writes to the node.
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize;
    /// Writes to the component.
    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize;
}

/// Requests of a session to its shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Read more bytes from the component.
    pub(crate) read_component: bool,
    /// Read more bytes from the node.
    pub(crate) read_node: bool,
    /// Call [`Session::component_writable`](super::Session::component_writable) when the component's socket takes bytes.
    pub(crate) write_component: bool,
    /// Call [`Session::node_writable`](super::Session::node_writable) when the node's socket takes bytes.
    pub(crate) write_node: bool,
    /// Keep the node's connection open.
    pub(crate) keep_node: bool,
    /// Dial a node, or another one.
    pub(crate) dial: bool,
    /// Let the connection dialled in addition take over now.
    pub(crate) switch: bool,
}

/// The side to blame for the loss of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The node; it cools down.
    Node,
    /// Not the node.
    Nobody,
    /// The node closed the connection after credentials that no node has accepted yet. Its behaviour towards other
    /// sessions shows whether it refused them or died.
    Unclear,
}

/// An event for the operator or the rest of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The node is lost. The note has the node's last error text, and whether the node `served` the session at all.
    Lost {
        cause: Cause,
        last_error: Option<String>,
        blame: Blame,
        in_doubt: InDoubtCount,
        /// The dropped publishes in doubt, by subject.
        subjects: Tally,
        served: bool,
    },
    /// The node took the session: its credentials and, after a move, the whole journal.
    Joined { moved: Option<Move> },
    /// This number of publishes was sent again.
    Resent(u64),
    /// The node's INFO named other nodes.
    ConnectUrls(Vec<String>),
    /// The node sent `-ERR`, with this text and this kind of refusal.
    NodeError { text: String, kind: &'static str },
    /// The sidecar itself sent the component `-ERR`.
    ComponentError { text: String, kind: &'static str },
    /// Publishes are held, and the node has answered everything before the first of them.
    Back,
    /// The node answered the PING of a probe.
    Alive,
    /// The component sent CONNECT.
    Connected,
    /// The session is about to leave the node.
    Leaving,
}

/// A finished move from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: Arc<Node>,
    pub(crate) cause: Cause,
    /// Time from the last byte of the lost node to the new node's PONG.
    pub(crate) silent: Duration,
    /// Time from the noticed loss to the new node's PONG.
    pub(crate) took: Duration,
    pub(crate) in_doubt: InDoubtCount,
    /// Number of replayed subscriptions.
    pub(crate) subscriptions: usize,
}

/// Traffic since the last call of `take_traffic`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) messages_to_node: u64,
    pub(crate) bytes_to_node: u64,
    pub(crate) messages_to_component: u64,
    pub(crate) bytes_to_component: u64,
    pub(crate) own_pings: u64,
}
