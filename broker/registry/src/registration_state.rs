//! Types of this node's own registration: the desired state, the state of our znode, and the published state.

use std::sync::Arc;

use crate::node::Node;
use crate::registration::{Ghost, Waiting};

/// State of a node's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationState {
    /// Nothing is announced, or the znode was deleted as requested.
    Withdrawn,
    /// Our znode is not known to exist. It is created as soon as possible.
    Seeking {
        /// Reason why the znode does not exist.
        reason: String,
    },
    /// The path is free. Our znode is created after [`Announcement::release`](crate::Announcement::release).
    Ready,
    /// Our znode exists, and the snapshot has all nodes that were registered before it. So of two nodes that register
    /// at the same moment at least one sees the other.
    Announced,
    /// Another live session holds our id, or a persistent znode is in the way. An operator has to act. The creation is
    /// retried until then.
    Taken {
        /// Description of the znode, and of what the operator should do.
        reason: String,
    },
}

impl RegistrationState {
    /// Returns a stable name, for metric labels and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Seeking { .. } => "seeking",
            Self::Ready => "ready",
            Self::Announced => "announced",
            Self::Taken { .. } => "taken",
        }
    }
}

/// A report about our znode.
#[derive(Debug)]
pub(crate) enum RegistrationEvent {
    /// The state has changed. If our znode exists, the last listing has all nodes that were registered before it.
    State(ZnodeState),
    /// A ghost at our path was deleted.
    Removed(Ghost),
    /// The changed record was written, as requested.
    Rewritten,
    /// Another client changed our znode. Our record was written back.
    Overwritten,
    /// Another client deleted our znode. It is created again.
    Deleted,
    /// Although credentials are set, everybody has these permissions on a parent of our znode.
    OpenParent { parent: String, permissions: String },
}

/// The desired state of our znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) node: Arc<Node>,
    /// The znode is not created before [`Announcement::release`](crate::Announcement::release).
    pub(crate) awaits_release: bool,
    /// The `run` of a node that holds the path and was found dead; see [`Watch::supersede`](crate::Watch::supersede).
    pub(crate) dead_run: Option<String>,
}

/// State of our znode after the last step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ZnodeState {
    /// No znode is wanted, and none of ours is left.
    None,
    /// Our znode exists; the value is the zxid that created it.
    Own(i64),
    /// The path of our znode is free. The znode is created after [`Announcement::release`](crate::Announcement::release).
    Ready,
    /// Another znode is at our path.
    Waiting(Waiting),
    /// ZooKeeper refused the next step, which is retried.
    Refused(String),
    /// Our znode is deleted, as requested.
    Withdrawn,
}
