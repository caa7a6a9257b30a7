//! What the node and the keeper of its links say to each other.

use tokio::sync::oneshot;

/// How the node stands with the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The registry was read, or there is none.
    pub(crate) has_read: bool,
    /// Addresses whose nodes have not told all their interest, and may still.
    pub(crate) awaited: Vec<String>,
    /// There is another node with this one's id; of the two that one stays, or this one.
    pub(crate) namesake_precedes: Option<bool>,
    /// It is known to live.
    pub(crate) has_living_namesake: bool,
    /// This node serves and must give its name up.
    pub(crate) is_displaced: bool,
    /// Where a registered node is that does not want a link, and why, when there is no link at all.
    pub(crate) refusal: Option<(String, String)>,
    pub(crate) links: usize,
}

/// What the node wants of its keeper.
#[derive(Debug)]
pub(crate) enum Order {
    /// The registry's present snapshot is read before `done` is told.
    ReadRegistry(oneshot::Sender<()>),
    /// Others are told that this node takes clients.
    Serve,
    /// Others are told that this node takes no clients any more.
    Drain,
    /// All links end; the keeper too.
    Leave,
}
