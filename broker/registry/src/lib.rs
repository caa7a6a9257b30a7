//! `standin-registry`: who is alive. [`watch()`] turns what ZooKeeper, DNS, a fixed list, the nodes' own word and
//! a cache file say into one [`Snapshot`] that a reader takes without waiting. [`announce()`] is the other half:
//! it keeps a node's own [`Record`] in ZooKeeper for as long as the node lives.
//!
//! *Architecture invariants.* The registry informs; only a connection proves: a node missing here is a reason to probe it, never
//! to drop it. Readers take no lock, ask no ZooKeeper and look up no name: a snapshot is one `arc-swap` load.
//! This is the only crate that imports `zookeeper-async`, and `client.rs` the only file.
//!
//! The files, in the order in which a change of the cluster meets them:
//!
//! | file | noun |
//! |---|---|
//! | `config.rs` | what the operator gave: hosts, names, addresses, limits |
//! | `announce.rs` | [`Announcement`], the handle of this node's own registration |
//! | `registration.rs` | that registration as values: what is wanted, and how it is |
//! | `announcer.rs` | tells the operator and the node how it is |
//! | `announcing.rs` | the keeper of our own znode: created, guarded and repaired |
//! | `place.rs` | what stands at our place in ZooKeeper, and what is to be done about it |
//! | `hosts.rs` | the ZooKeeper host list: parsed, resolved, shuffled |
//! | `resolver.rs` | the name resolver, by the system's settings or one given server |
//! | `gate.rs` | one dialled connection to one ZooKeeper server, with a limit on everything |
//! | `ticket.rs` | what continues a session over another connection |
//! | `client.rs` | one ZooKeeper session behind that gate; every call within a time limit |
//! | `zookeeper.rs` | the engine that keeps a session going, gives it up and builds the next |
//! | `thread.rs` | the thread it runs in, as its owner sees it |
//! | `session.rs` | one session as its work sees it, and its reports |
//! | `work.rs` | the work in a session: own znode first, then the list |
//! | `children.rs` | the znodes under the path: listed, read and watched |
//! | `record.rs` | [`Record`], what our znode holds |
//! | `registrars.rs` | the data of any registrar's znode, ours or another, read as a node |
//! | `znode_path.rs` | the paths that ZooKeeper accepts |
//! | `dns.rs` | names resolved again and again |
//! | `gossip.rs` | the nodes that nodes name |
//! | `list.rs` | which lists the sources give, and who is on one of them, or was |
//! | `memory.rs` | what one source last said, for when it says nothing |
//! | `roster.rs` | what every source said last, folded into a snapshot |
//! | `cache.rs` | the file that serves a cold start |
//! | `cache_writer.rs` | when that file is written |
//! | `hub.rs` | the task around all this |
//! | `watch.rs` | [`Watch`], the reader's side |
//!
//! The values they speak in: `endpoint.rs`, `upstream.rs`, `node.rs`, `snapshot.rs`, `health.rs`, `error.rs`.

mod announce;
mod announcer;
mod announcing;
mod cache;
mod cache_writer;
mod children;
mod client;
mod config;
mod dns;
mod endpoint;
mod error;
mod gate;
mod gossip;
mod health;
mod hosts;
mod hub;
mod list;
mod memory;
mod node;
mod place;
mod record;
mod registrars;
mod registration;
mod resolver;
mod roster;
mod session;
mod snapshot;
mod thread;
mod ticket;
mod upstream;
mod watch;
mod work;
mod znode_path;
mod zookeeper;

pub use announce::{Announcement, announce};
pub use config::{Config, ZooKeeperConfig};
pub use dns::DnsName;
pub use endpoint::Endpoint;
pub use error::RegistryError;
pub use health::{Health, SourceHealth, SourceState};
pub use node::{Node, NodeState, Source};
pub use record::Record;
pub use registration::Standing;
pub use snapshot::Snapshot;
pub use upstream::{Credentials, Upstream};
pub use watch::{Watch, watch};
