//! The routes to other nodes (links), below the router: what is said over them, and how they stand. Nothing here knows of clients, of the
//! router or of workers.
//!
//! | file | holds |
//! |---|---|
//! | [`frame`] | the frames between nodes |
//! | [`hello`], [`handshake`] | from a connection to a link |
//! | [`announcer`] | telling the other nodes what clients here are subscribed to |
//! | [`link`], [`links`] | one link, and all that stand |
//! | [`incoming`] | what comes over a link, and the peer's interest |
//! | [`event`] | what of it is the node's business |

pub(crate) mod announcer;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod incoming;
pub(crate) mod link;
pub(crate) mod links;
