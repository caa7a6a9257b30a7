//! `standin-registry`: the live nodes of the cluster. [`watch()`] merges the node lists of ZooKeeper, DNS, the settings, other
//! nodes and a cache file into one [`Snapshot`], which is read without waiting. [`Announcement`] registers a node: it keeps
//! the record of the node in ZooKeeper as long as the node runs.
//!
//! *Architecture invariants.* Only a connection to a node proves that it is alive or dead. A node that is missing in the
//! registry is probed, and never dropped for that reason alone. Reading a snapshot is one `arc-swap` load: no lock, no call
//! of ZooKeeper, no name lookup. No other crate imports `zookeeper-async`; here only `client.rs` and the tests do.
//!
//! The files, in the order in which a change of the cluster passes them:
//!
//! | file | content |
//! |---|---|
//! | `config.rs` | the configuration: sources of nodes and limits |
//! | `announcement.rs` | [`Announcement`], the interface for a node that registers |
//! | `registration_state.rs` | the types of this node's registration: what is wanted, and the present state |
//! | `registration_reporter.rs` | logs and publishes that state |
//! | `registration_task.rs` | creates our znode and repairs it, within each session |
//! | `registration.rs` | the rules for the path of our znode: who owns it, and the next step |
//! | `hosts.rs` | the ZooKeeper host list: parsed, resolved, shuffled |
//! | `resolver.rs` | the DNS resolver |
//! | `relay.rs` | one connection to one ZooKeeper server, with time limits |
//! | `session_key.rs` | the id and password with which another connection resumes a session |
//! | `client.rs` | the client of one connection, with a time limit on each call |
//! | `session_loop.rs` | the loop that keeps a session alive over connections and servers |
//! | `session_thread.rs` | the thread of that loop |
//! | `session.rs` | one session as its task sees it, and the reports of the thread |
//! | `children.rs` | the znodes of all nodes: listed, read and watched |
//! | `session_task.rs` | the task of a session: our znode first, then the list |
//! | `record.rs` | the record of a `standin-broker` node: the data of its znode |
//! | `registrars.rs` | the parsers for the znodes of all registrars |
//! | `znode_path.rs` | the paths of znodes |
//! | `dns.rs` | nodes from DNS names, which are resolved repeatedly |
//! | `gossip.rs` | nodes that other nodes name in INFO |
//! | `allowed_nodes.rs` | the nodes that may be dialled |
//! | `list.rs` | the names of node lists, and the nodes remembered for each |
//! | `list_memory.rs` | the last content of one list, for the time when it is empty or unknown |
//! | `roster.rs` | the last content of all sources, merged into a snapshot |
//! | `cache.rs` | the cache file, which serves a cold start |
//! | `cache_writer.rs` | the writer of that file |
//! | `memory.rs` | all that a registry knows, for the process that replaces this one |
//! | `examination.rs` | [`examine()`], by which `doctor` looks at each server of the ensemble |
//! | `hub.rs` | the task between the sources and the readers |
//! | `watch.rs` | [`watch()`] and [`Watch`], the interface for readers |
//!
//! Types that all of them use: `endpoint.rs`, `upstream.rs`, `node.rs`, `snapshot.rs`, `health.rs`, `error.rs`. `fuzzing.rs` is for the fuzz targets.

mod allowed_nodes;
mod announcement;
mod cache;
mod cache_writer;
mod children;
mod client;
mod config;
mod dns;
mod endpoint;
mod error;
mod examination;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gossip;
mod health;
mod hosts;
mod hub;
mod list;
mod list_memory;
mod memory;
mod node;
mod record;
mod registrars;
mod registration;
mod registration_reporter;
mod registration_state;
mod registration_task;
mod relay;
mod resolver;
mod roster;
mod session;
mod session_key;
mod session_loop;
mod session_task;
mod session_thread;
mod snapshot;
mod upstream;
mod watch;
mod znode_path;

pub use allowed_nodes::{AllowedNode, AllowedNodes};
pub use announcement::Announcement;
pub use cache::{CachedNodes, cached_nodes};
pub use config::{Config, ZnodeReaders, ZooKeeperConfig};
pub use dns::{DnsName, look_up};
pub use endpoint::Endpoint;
pub use error::RegistryError;
pub use examination::{Examination, HostExamination, RecordsExamination, ServerExamination, examine};
pub use health::{Health, SourceHealth, SourceState};
pub use memory::RegistryMemory;
pub use node::{Node, NodeState, Source};
pub use registration_state::RegistrationState;
pub use snapshot::Snapshot;
pub use upstream::{Credentials, Upstream};
pub use watch::{Watch, watch, watch_on};
