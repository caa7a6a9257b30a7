//! The end of a session: its reason, the wait for the last answers, and the data that no node has taken.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use standin_wire::ClientFault;

use crate::state_fields::{Name, name, optional_time};
use crate::tally::Tally;

/// Reason for the end of a session. The names are stable, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The component closed the connection, and all its bytes were passed on.
    ComponentClosed,
    /// The component's connection broke.
    ComponentBroke,
    /// The component broke the protocol; the value is the kind of the error.
    ComponentProtocol(#[serde(with = "name")] Name),
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
    /// The component had not sent a command, and its place was needed for another one.
    Evicted,
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
            Self::Evicted => "evicted",
            Self::Shutdown => "shutdown",
        }
    }

    /// Returns the kind of the component's error that ended the session, for logs and metrics.
    pub(crate) const fn fault_kind(self) -> &'static str {
        match self {
            Self::ComponentProtocol(kind) => kind,
            other => other.as_str(),
        }
    }

    /// Returns whether the log needs no line for this session: the component ended it, all sessions end, or another line says it.
    pub(crate) const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::ComponentClosed | Self::ComponentBroke | Self::Outage | Self::Evicted | Self::Shutdown
        )
    }

    /// Returns the label under which the end is counted in `standin_client_errors_total`. `None` if the component, an eviction
    /// or a shutdown ended the session, or if an `-ERR` of the sidecar was counted instead.
    pub(crate) const fn error_kind(self) -> Option<&'static str> {
        match self {
            Self::ComponentClosed
            | Self::ComponentBroke
            | Self::ComponentProtocol(_)
            | Self::Evicted
            | Self::Shutdown => None,
            other => Some(other.as_str()),
        }
    }
}

/// The end of a session: its reason, and the data that no node has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionEnd {
    pub(crate) reason: EndReason,
    /// Held bytes that no node has taken, plus publishes kept to be sent again.
    pub(crate) abandoned_bytes: usize,
    /// Publishes among these bytes.
    pub(crate) abandoned: Tally,
}

/// An orderly end of the session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) reason: EndReason,
    /// The component's fault, sent as `-ERR`.
    pub(super) fault: Option<ClientFault>,
    /// Deadline for the node's answers, which come before the `-ERR`; `None` if the session does not wait for them.
    #[serde(with = "optional_time")]
    pub(super) answers_until: Option<Instant>,
}
