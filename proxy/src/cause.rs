//! The causes for which a session leaves a node. Logs, metrics and the session's state machine use the same list.
//!
//! The list is closed, so counters are indexed by cause. When ten thousand sessions move at once, no label is looked up.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state_fields::{Name, name};

/// Cause for which a session left its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The connection to the node was reset.
    Reset,
    /// The node closed the connection.
    EndOfStream,
    /// A read or write on the connection failed, for example by `TCP_USER_TIMEOUT`.
    WriteError,
    /// The node did not answer a PING within `health.probe_timeout_ms`, or the replay within its timeout.
    ProbeTimeout,
    /// The node is draining: it has announced its shutdown (`ldm` in its INFO), or is registered as draining.
    LameDuck,
    /// Another node has come, or come back, and gets its share of the sessions.
    Balance,
    /// The node sent an `-ERR` about itself. The value is `standin_wire::Refusal::kind`, or `loop` for a node behind
    /// this sidecar.
    NodeError(#[serde(with = "name")] Name),
    /// The node sent bytes that are not a NATS frame.
    Protocol,
}

impl Cause {
    /// Number of causes.
    pub const COUNT: usize = 8;

    /// One cause of each kind, in the order of [`Cause::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Reset,
        Self::EndOfStream,
        Self::WriteError,
        Self::ProbeTimeout,
        Self::LameDuck,
        Self::NodeError("server"),
        Self::Protocol,
        Self::Balance,
    ];

    /// Returns whether the session leaves a node that works.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        matches!(self, Self::LameDuck | Self::Balance)
    }

    /// Returns the stable name, for logs and the metric label `cause`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::EndOfStream => "end_of_stream",
            Self::WriteError => "write_error",
            Self::ProbeTimeout => "probe_timeout",
            Self::LameDuck => "lame_duck",
            Self::NodeError(_) => "node_error",
            Self::Protocol => "protocol_error",
            Self::Balance => "balance",
        }
    }

    /// Returns the index in an array of [`Cause::COUNT`] counters.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Reset => 0,
            Self::EndOfStream => 1,
            Self::WriteError => 2,
            Self::ProbeTimeout => 3,
            Self::LameDuck => 4,
            Self::NodeError(_) => 5,
            Self::Protocol => 6,
            Self::Balance => 7,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeError(kind) => write!(formatter, "node_error ({kind})"),
            other => formatter.write_str(other.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_index_and_name() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), index, "{cause}");
            assert_eq!(
                Cause::ALL
                    .iter()
                    .filter(|other| other.as_str() == cause.as_str())
                    .count(),
                1
            );
        }
    }
}
