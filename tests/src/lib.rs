//! The harness of the end-to-end tests: real peers, scripted peers, and the product between them.
//!
//! The files, in the order a test meets them:
//!
//! | file | holds |
//! |---|---|
//! | [`zookeeper`] | [`ZooKeeper`]: a real server; [`Registrar`]: a session that nodes are registered in |
//! | [`nats`] | [`Cluster`]: real nats-server nodes |
//! | [`mesh`], [`mesh_node`] | [`Mesh`]: a cluster, ours or the real one, that is itself what is tested |
//! | [`links`] | what its nodes tell of each other: [`Links`], [`OwnInterest`] |
//! | [`ensemble`] | [`Ensemble`]: three real ZooKeeper servers with a leader |
//! | [`server`] | [`Server`](server::Server): one server, ours or the real one |
//! | [`scripted`] | [`ScriptedNode`]: a node that does only what the test says |
//! | [`sidecar`] | [`Sidecar`]: the product as a process |
//! | [`components`] | [`Component`]: programs around real client libraries, old and new |
//! | [`raw`] | [`RawClient`]: a component played byte by byte |
//! | [`ledger`] | [`Ledger`], [`Receipts`]: numbered messages: which came, twice, out of order |
//! | [`flow`] | [`Publishing`], [`Receiving`]: such messages, while a test does something else |
//! | [`netns`] | [`NetnsPair`]: two machines of one's own, and the cable between them |
//! | [`lan`] | [`Lan`]: any number of them on a switch; partitions, delay, loss |
//! | [`conversation`], [`frame`] | what the raw client and the scripted node are made of |
//! | [`process`], [`figures`] | [`Process`]: a child that is always gone at the end, and what it takes of the machine |
//! | [`port`], [`http`], [`peers`], [`condition`] | free ports; one GET; where the peers are; waiting with a deadline |

pub mod components;
pub mod condition;
pub mod conversation;
pub mod ensemble;
pub mod figures;
pub mod flow;
pub mod frame;
pub mod http;
pub mod lan;
pub mod ledger;
pub mod links;
pub mod mesh;
pub mod mesh_node;
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
pub use ensemble::Ensemble;
pub use figures::Figures;
pub use flow::{Publishing, Receiving};
pub use frame::Frame;
pub use lan::Lan;
pub use ledger::{Ledger, Receipts};
pub use links::{Links, OwnInterest};
pub use mesh::{Mesh, MeshBuilder};
pub use mesh_node::MeshNode;
pub use nats::{Cluster, NatsNode, Version};
pub use netns::{Netns, NetnsPair};
pub use process::{Process, Program};
pub use raw::RawClient;
pub use scripted::{NodeConnection, ScriptedNode};
pub use server::{Maker, Server};
pub use sidecar::{Metrics, Sidecar};
pub use zookeeper::{Record, Registrar, ZooKeeper};
