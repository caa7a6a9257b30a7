//! Harness of the end-to-end tests: real peers, scripted peers, and the product between them.
//!
//! The files, in the order a test meets them:
//!
//! | file | holds |
//! |---|---|
//! | [`zookeeper`] | [`ZooKeeper`]: a real server; [`Registrar`]: a ZooKeeper session that registers nodes |
//! | [`node`], [`mesh`] | [`Node`]: one `standin-broker` or `nats-server`; [`Mesh`]: a cluster of them |
//! | [`links`] | [`Links`], [`OwnInterest`]: a node's routes and interest, from its monitoring pages |
//! | [`ensemble`] | [`Ensemble`]: three real ZooKeeper servers with a leader |
//! | [`scripted`] | [`ScriptedNode`]: a node played by the test, byte by byte |
//! | [`sidecar`] | [`Sidecar`]: the product as a process |
//! | [`components`] | [`Component`]: programs around real client libraries, old and new |
//! | [`raw`] | [`RawClient`]: a component played by the test, byte by byte |
//! | [`ledger`] | [`Ledger`], [`Receipts`]: numbered messages, and which were lost, duplicated or reordered |
//! | [`flow`] | [`Publishing`], [`Receiving`]: numbered messages in the background of a test |
//! | [`relay`] | [`Relay`]: a slow link on loopback |
//! | [`netns`], [`lan`] | [`Lan`]: any number of network namespaces on a switch; partitions, delay, loss |
//! | [`guide`], [`machine`] | [`Guide`]: the commands in a document; [`Machine`]: a machine on which they run as they stand |
//! | [`conversation`], [`frame`] | the socket and the frames under the raw client and the scripted node |
//! | [`certificates`] | [`Authority`]: certificates of a test |
//! | [`prometheus`] | [`Prometheus`]: a real Prometheus that scrapes the programs |
//! | [`image`], [`container`] | [`Container`](container::Container): a program as its image and its manifest say, without a container runtime |
//! | [`manifests`] | the manifests of `deploy/`, validated |
//! | [`process`], [`figures`] | [`Process`]: a child process, killed when dropped; its threads, files, memory, CPU time |
//! | [`debian_root`] | [`DebianRoot`]: a system to install packages in |
//! | [`port`], [`http`], [`peers`], [`condition`] | free ports; one GET; paths of the peers; waiting with a deadline |

pub mod certificates;
pub mod components;
pub mod condition;
pub mod container;
pub mod conversation;
pub mod debian_root;
pub mod ensemble;
pub mod figures;
pub mod flow;
pub mod frame;
pub mod guide;
pub mod http;
pub mod image;
pub mod lan;
pub mod ledger;
pub mod links;
pub mod machine;
pub mod manifests;
pub mod mesh;
pub mod netns;
pub mod node;
pub mod peers;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod relay;
pub mod scripted;
pub mod sidecar;
pub mod zookeeper;

pub use certificates::Authority;
pub use components::{Component, Library};
pub use condition::{eventually, found, settled};
pub use conversation::{Conversation, Ending, TIMEOUT};
pub use debian_root::DebianRoot;
pub use ensemble::Ensemble;
pub use figures::Figures;
pub use flow::{Publishing, Receiving};
pub use frame::Frame;
pub use guide::Guide;
pub use lan::Lan;
pub use ledger::{Ledger, Receipts};
pub use links::{Links, OwnInterest};
pub use machine::Machine;
pub use mesh::{Mesh, MeshBuilder};
pub use netns::Netns;
pub use node::{Node, ServerKind};
pub use process::{Process, Program};
pub use prometheus::{Prometheus, promtool};
pub use raw::RawClient;
pub use relay::Relay;
pub use scripted::{NodeConnection, ScriptedNode};
pub use sidecar::{Metrics, Sidecar};
pub use zookeeper::{Record, Registrar, ZooKeeper};
