//! The harness of the end-to-end tests: real peers, scripted peers, and the product between them.
//!
//! The files, in the order a test meets them:
//!
//! | file | holds |
//! |---|---|
//! | [`scripted`] | [`ScriptedNode`]: a node that does only what the test says |
//! | [`raw`] | [`RawClient`]: a component played byte by byte |
//! | [`conversation`] | what both are made of: a socket, all bytes that came, expectations with deadlines |
//! | [`frame`] | one whole frame as a test sees it |

pub mod conversation;
pub mod frame;
pub mod raw;
pub mod scripted;

pub use conversation::{Conversation, Ending, PATIENCE};
pub use frame::Frame;
pub use raw::RawClient;
pub use scripted::{NodeConnection, ScriptedNode};
