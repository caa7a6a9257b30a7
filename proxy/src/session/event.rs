//! Events of a session, for the operator and for the rest of the sidecar.

use super::failover::{Failover, LossOrigin};
use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::tally::Tally;

/// An event for the operator or the rest of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionEvent {
    /// The node is lost.
    Lost {
        cause: Cause,
        /// Text of the node's error directly before the loss.
        last_error: Option<String>,
        origin: LossOrigin,
        in_doubt: InDoubtCount,
        /// The dropped publishes in doubt, by subject.
        subjects: Tally,
        /// Whether the node served the session at all.
        served: bool,
    },
    /// The node accepted the session: its credentials and, after a move, the whole journal.
    Joined { failover: Option<Failover> },
    /// This number of publishes was sent again.
    Resent(u64),
    /// The node's INFO named other nodes.
    ConnectUrls(Vec<String>),
    /// The node sent `-ERR`, an invalid frame, or an INFO that the sidecar refuses.
    NodeError { text: String, kind: &'static str },
    /// The node refused credentials that the sidecar holds.
    HeldRefused { text: String },
    /// The sidecar itself sent the component `-ERR`.
    ComponentError { text: String, kind: &'static str },
    /// Publishes are held, and the node has answered everything before the first of them.
    Back,
    /// The node answered the PING of a probe.
    Alive,
    /// A CONNECT of the component, or one inserted for it, was sent.
    Connected,
    /// The session is about to leave the node.
    Leaving,
}
