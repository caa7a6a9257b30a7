//! What passes between a session and its shell: what it writes to, what it wants, what it tells, and why it ends.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use standin_registry::Node;

use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::tally::Tally;

/// The two sockets, as a session sees them. Each call takes as many bytes as fit now, and says how many; a broken socket
/// takes none, and its owner reports the break as an event later.
pub(crate) trait Wires {
    /// Towards the node.
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize;
    /// Towards the component.
    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize;
}

/// What a session wants of its shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// More bytes of the component.
    pub(crate) read_component: bool,
    /// More bytes of the node.
    pub(crate) read_node: bool,
    /// A call of [`Session::component_writable`] when the component's socket takes bytes.
    pub(crate) write_component: bool,
    /// A call of [`Session::node_writable`] when the node's socket takes bytes.
    pub(crate) write_node: bool,
    /// The node's connection stays open.
    pub(crate) keep_node: bool,
    /// A connection to a node, or to another one.
    pub(crate) dial: bool,
    /// The connection dialled while another was in use is to take over now.
    pub(crate) switch: bool,
}

/// How and with what a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// Bytes of the component's that no node has taken.
    pub(crate) abandoned_bytes: usize,
    /// The publishes among them, and those that were still to be sent again.
    pub(crate) abandoned: Tally,
}

/// Whose doing the loss of a node was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The node's: it is left alone for a while.
    Node,
    /// Not the node's.
    Nobody,
    /// The node closed the connection behind credentials that no node has accepted yet. Whether it refused them or died is
    /// known by what it does to others.
    Unclear,
}

/// Why a session ended. Stable names for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The component closed the connection, and all it had sent was passed on.
    ComponentClosed,
    /// The component's connection broke.
    ComponentBroke,
    /// The component broke the protocol; kind of the error.
    ComponentProtocol(&'static str),
    /// The component did not answer PINGs.
    ComponentStale,
    /// The component took no bytes for too long.
    ComponentSlow,
    /// A node closed the connection for something that the component did.
    Refused,
    /// The component's credentials were refused.
    Unauthorized,
    /// No node for too long.
    Outage,
    /// The node is gone and the component's signature fits no other.
    Signed,
    /// The sidecar stops.
    Shutdown,
}

impl End {
    /// Stable name.
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

    /// Whether the log needs no line for this session alone: the component ended it, or all sessions end.
    pub(crate) const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::ComponentClosed | Self::ComponentBroke | Self::Outage | Self::Shutdown
        )
    }

    /// The label of `standin_client_errors_total` for an end that the component did not want and that no `-ERR` of the
    /// sidecar was counted for.
    pub(crate) const fn error_kind(self) -> Option<&'static str> {
        match self {
            Self::ComponentClosed | Self::ComponentBroke | Self::ComponentProtocol(_) | Self::Shutdown => {
                None
            }
            other => Some(other.as_str()),
        }
    }
}

/// Something that an operator, or the rest of the sidecar, should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The node is gone; what it said of it, and whether it has `served` the session at all.
    Lost {
        cause: Cause,
        said: Option<String>,
        blame: Blame,
        in_doubt: InDoubtCount,
        /// The publishes in doubt that are dropped.
        subjects: Tally,
        served: bool,
    },
    /// The node took the session: its credentials and, after a move, the whole journal.
    Joined { moved: Option<Move> },
    /// So many publishes were sent again.
    Resent(u64),
    /// The node named others.
    ConnectUrls(Vec<String>),
    /// The node sent `-ERR`; its text, and the kind of refusal.
    NodeError { text: String, kind: &'static str },
    /// The sidecar itself sent the component `-ERR`.
    ComponentError { text: String, kind: &'static str },
    /// Held publishes are stopped; all before them is with the node and answered.
    Back,
    /// The component sent CONNECT.
    Connected,
    /// The node is about to go.
    Leaving,
}

/// A finished move from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: Arc<Node>,
    pub(crate) cause: Cause,
    /// From the last byte of the lost node to the new node's PONG.
    pub(crate) silent: Duration,
    /// From the moment the loss was noticed to the new node's PONG.
    pub(crate) took: Duration,
    pub(crate) in_doubt: InDoubtCount,
    /// Subscriptions replayed.
    pub(crate) subscriptions: usize,
}

/// What passed since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) messages_to_node: u64,
    pub(crate) bytes_to_node: u64,
    pub(crate) messages_to_component: u64,
    pub(crate) bytes_to_component: u64,
    pub(crate) own_pings: u64,
}

/// What a component calls itself in its CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientLabel {
    pub(crate) name: Option<String>,
    pub(crate) lang: Option<String>,
    pub(crate) version: Option<String>,
}
