//! Why a session left a node: the one closed list that logs, metrics and the session state machine share.
//!
//! Closed, so that counters can be indexed by it: no label is looked up when ten thousand sessions move at once.

use std::fmt;

/// Why a session left its node (DESIGN.md, "Failure is seen by").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The node's host reset the connection.
    Reset,
    /// The node closed the connection.
    EndOfStream,
    /// Writing to the node failed, also by `TCP_USER_TIMEOUT`.
    WriteError,
    /// A PING stayed without any byte in answer for `health.probe_timeout_ms`.
    ProbeTimeout,
    /// The node said that it is going (`ldm` in its INFO).
    LameDuck,
    /// The node refused for a reason of its own; the kind names it, as `standin_wire::Refusal::kind` does.
    NodeError(&'static str),
    /// The node sent bytes that are no NATS frame.
    Protocol,
}

impl Cause {
    /// How many causes there are.
    pub const COUNT: usize = 7;

    /// One of each, in the order of [`Cause::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::Reset,
        Self::EndOfStream,
        Self::WriteError,
        Self::ProbeTimeout,
        Self::LameDuck,
        Self::NodeError("server"),
        Self::Protocol,
    ];

    /// Stable name, for logs and the metric label `cause`.
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
        }
    }

    /// Place in an array of [`Cause::COUNT`] counters.
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
    fn every_cause_has_a_place_and_a_name_of_its_own() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), place, "{cause}");
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
