//! The harness of the end-to-end tests: real peers, scripted peers, and the product between them.
//!
//! The files, in the order a test meets them:
//!
//! | file | holds |
//! |---|---|
//! | [`zookeeper`] | [`ZooKeeper`]: a real server; [`Registrar`]: a session that nodes are registered in |
//! | [`nats`] | [`Cluster`]: real nats-server nodes |
//! | [`server`] | [`Server`](server::Server): one server, ours or the real one |
//! | [`scripted`] | [`ScriptedNode`]: a node that does only what the test says |
//! | [`sidecar`] | [`Sidecar`]: the product as a process |
//! | [`components`] | [`Component`]: programs around real client libraries, old and new |
//! | [`raw`] | [`RawClient`]: a component played byte by byte |
//! | [`netns`] | [`NetnsPair`]: two machines of one's own, and the cable between them |
//! | [`conversation`], [`frame`] | what the raw client and the scripted node are made of |
//! | [`process`] | [`Process`]: a child that is always gone at the end |
//! | [`port`], [`http`], [`peers`], [`condition`] | free ports; one GET; where the peers are; waiting with a deadline |

pub mod components;
pub mod condition;
pub mod conversation;
pub mod frame;
pub mod http;
pub mod nats;
pub mod netns;
pub mod peers;
pub mod port;
pub mod process;
pub mod raw;
pub mod scripted;
pub mod server;
pub mod sidecar;
pub mod zookeeper;

pub use components::{Component, Library};
pub use condition::{eventually, found};
pub use conversation::{Conversation, Ending, PATIENCE};
pub use frame::Frame;
pub use nats::{Cluster, NatsNode, Version};
pub use netns::{Netns, NetnsPair};
pub use process::{Process, Program};
pub use raw::RawClient;
pub use scripted::{NodeConnection, ScriptedNode};
pub use server::{Maker, Server};
pub use sidecar::{Metrics, Sidecar};
pub use zookeeper::{Record, Registrar, ZooKeeper};
