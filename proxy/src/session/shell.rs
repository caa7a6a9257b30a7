//! The interface between a session and its shell: its output, its wants, its notes, and the reasons for its end.

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
    /// Call [`Session::component_writable`] when the component's socket takes bytes.
    pub(crate) write_component: bool,
    /// Call [`Session::node_writable`] when the node's socket takes bytes.
    pub(crate) write_node: bool,
    /// Keep the node's connection open.
    pub(crate) keep_node: bool,
    /// Dial a node, or another one.
    pub(crate) dial: bool,
    /// Let the connection dialled in addition take over now.
    pub(crate) switch: bool,
}

/// The end of a session: its reason, and the data that no node has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionEnd {
    pub(crate) reason: EndReason,
    /// Bytes of the component that no node has taken.
    pub(crate) abandoned_bytes: usize,
    /// Publishes among them, plus publishes that were still to be sent again.
    pub(crate) abandoned: Tally,
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

/// Reason for the end of a session. The names are stable, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The component closed the connection, and all its bytes were passed on.
    ComponentClosed,
    /// The component's connection broke.
    ComponentBroke,
    /// The component broke the protocol; the value is the kind of the error.
    ComponentProtocol(&'static str),
    /// The component did not answer PINGs.
    ComponentStale,
    /// The component took no bytes for too long.
    ComponentSlow,
    /// A node closed the connection because of an action of the component.
    Refused,
    /// The component's credentials were refused.
    Unauthorized,
    /// There was no node for too long.
    Outage,
    /// The node is lost, and the component's signature is not valid for any other.
    Signed,
    /// The sidecar stops.
    Shutdown,
}

impl EndReason {
    /// Returns the stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ComponentClosed => "component_closed",
            Self::ComponentBroke => "component_broke",
            Self::ComponentProtocol(_) => "component_protocol",
            Self::ComponentStale => "component_stale",
            Self::ComponentSlow => "component_slow",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Outage => "outage",
            Self::Signed => "signed",
            Self::Shutdown => "shutdown",
        }
    }

    /// Returns whether the log needs no line for this session: the component ended it, or all sessions end.
    pub(crate) const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::ComponentClosed | Self::ComponentBroke | Self::Outage | Self::Shutdown
        )
    }

    /// Returns the label in `standin_client_errors_total` for an end that the component did not want, if no `-ERR` of
    /// the sidecar was counted for it.
    pub(crate) const fn error_kind(self) -> Option<&'static str> {
        match self {
            Self::ComponentClosed | Self::ComponentBroke | Self::ComponentProtocol(_) | Self::Shutdown => {
                None
            }
            other => Some(other.as_str()),
        }
    }
}

/// An event for the operator or the rest of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The node is lost. The note has the node's last error text, and whether the node `served` the session at all.
    Lost {
        cause: Cause,
        said: Option<String>,
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

/// Name, language and version from the component's CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientLabel {
    pub(crate) name: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) version: Option<String>,
}
