//! The routes (links) to other nodes, below the router: their frames, handshake and state. Nothing here depends on clients, the router
//! or workers.
//!
//! | file | holds |
//! |---|---|
//! | [`frame`] | the frames between nodes |
//! | [`hello`], [`handshake`] | the handshake, by which a connection becomes a link |
//! | [`announcer`] | the announcement of local clients' interest to the other nodes |
//! | [`link`], [`links`] | one link, and the list of all established links |
//! | [`incoming`] | the frames that arrive over a link, and the peer's interest |
//! | [`event`] | the events that a route reports to the keeper |

pub(crate) mod announcer;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod incoming;
pub(crate) mod link;
pub(crate) mod links;
