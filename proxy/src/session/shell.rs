//! The interface between a session and its shell: the two sockets, the session's requests, and its traffic.

use std::io::IoSlice;
use std::ops::AddAssign;

use crate::state_fields::is_default;
use serde::{Deserialize, Serialize};

/// The two sockets of a session. Each call takes as many bytes as fit now and returns their number. A broken socket
/// takes none; its owner reports the break to the session later.
pub(crate) trait Wires {
    /// Writes to the node.
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize;
    /// Writes to the component.
    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize;
}

/// Requests of a session to its shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SessionRequests {
    /// Read more bytes from the component.
    pub(crate) read_component: bool,
    /// Read more bytes from the node.
    pub(crate) read_node: bool,
    /// Call [`Session::component_writable`](super::Session::component_writable) when the component's socket takes bytes.
    pub(crate) write_component: bool,
    /// Call [`Session::node_writable`](super::Session::node_writable) when the node's socket takes bytes.
    pub(crate) write_node: bool,
}

/// Traffic of a session or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) messages_to_node: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) bytes_to_node: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) messages_to_component: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) bytes_to_component: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) own_pings: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.messages_to_node += more.messages_to_node;
        self.bytes_to_node += more.bytes_to_node;
        self.messages_to_component += more.messages_to_component;
        self.bytes_to_component += more.bytes_to_component;
        self.own_pings += more.own_pings;
    }
}
