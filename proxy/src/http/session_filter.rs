//! The choice of sessions on `/sessionz`: those of one node, or those with a text.

use standin_registry::Node;

use crate::session_info::SessionInfo;

/// Which sessions are wanted. An empty text wants all.
pub(super) struct SessionFilter {
    /// Id or address of the node.
    node: String,
    /// Text in the component's address or client name, in the node's id or address, or in the state; or the number of the session.
    /// In lower case; upper and lower case are the same.
    search: String,
}

impl SessionFilter {
    pub(super) fn new(node: String, search: &str) -> Self {
        let search = search.to_lowercase();
        Self { node, search }
    }

    /// Returns whether every session is wanted.
    pub(super) fn is_open(&self) -> bool {
        self.node.is_empty() && self.search.is_empty()
    }

    pub(super) fn wants(&self, session: &SessionInfo) -> bool {
        let status = session.status();
        let node = status.node.as_deref();
        let is_on = |node: &Node| *node.id == *self.node || node.client.to_string() == self.node;
        if !self.node.is_empty() && !node.is_some_and(is_on) {
            return false;
        }
        let has = |text: &str| text.to_lowercase().contains(&self.search);
        has(status.state)
            || status.client.name.as_deref().is_some_and(has)
            || node.is_some_and(|node| has(&node.id) || has(&node.client.to_string()))
            || has(&session.component.to_string())
            || session.id.to_string() == self.search
    }
}
