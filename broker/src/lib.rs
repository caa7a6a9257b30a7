//! `standin-broker`: one node of a mesh that serves core NATS to its clients.
//!
#![doc = include_str!("../README.md")]
//!
//! ## The files
//!
//! In the order in which a message passes them:
//!
//! | file | holds |
//! |---|---|
//! | `server` | one running node: start, reload, lame duck, stop |
//! | `accept`, `accepted_client`, `half_open_client` | the listener for clients: accepts connections and assigns them to workers; limits before login |
//! | `worker`, `shared` | the worker threads, and the state that they share |
//! | `turn` | the turns of a worker's connections; output collected in a turn is sent once |
//! | `shell`, `intake` | the task around one connection: socket, read buffer, timer |
//! | `pause` | detection of a stopped process; afterwards, reset connections are closed and their unread input is dropped |
//! | `client` | the frames of a client and their effects |
//! | `router`, `cache`, `lookups` | from a published message to its subscribers, with a cache of the matches |
//! | `flush` | the cluster-wide flush before a PONG; no duplicates for a client that moves to another node |
//! | `interest` | the interest of local clients and of other nodes |
//! | `moves`, `leaving_members` | planned moves of clients between nodes |
//! | `subscriptions`, `subscription` | the subscriptions: a table of literal subjects, a tree of wildcard subjects, `name_index` of queue groups; `generations` detects changes, `tokens` splits subjects |
//! | `stage`, `outbox` | the output of the current batch, and the pending output of one client or route |
//! | `route` | the routes to other nodes, and the frames on them |
//! | `mesh` | membership: starting, keeping routes, leaving |
//!
//! Around them: [`cli`]; [`settings`], with `natsconf` (nats-server's own format), `unsupported` (features of nats-server that are not
//! supported) and `policy` (the settings that SIGHUP can change); [`auth`], `password_check`, `permissions` and `account` (who is
//! admitted, what a user may do, and the separate subject spaces); `close_reason` (reasons for the end of a connection) and `end_log`
//! (their log lines); `clients` and `client_info` (the state of clients that the monitoring pages show), `connection_stats` (counters of
//! clients and routes), `cluster_figures` (figures about the cluster); `monitor` (the monitoring pages); [`announce`] (the agent beside a
//! `nats-server`) and [`import`] (its settings file as TOML); [`node_commands`] (`doctor` and `cluster`), with [`doctor`], `cluster_view`
//! and `node_pages`; [`process_files`] (pid file and ports file); `identity`.
//!
//! *Architecture invariant:* a batch is read, parsed in place, matched and staged. Then the thread that read the
//! batch sends the staged output, normally with one write for each client or route.

mod accept;
mod accepted_client;
mod account;
pub mod announce;
pub mod auth;
mod cache;
pub mod cli;
mod client;
mod client_info;
mod clients;
mod close_reason;
mod cluster_figures;
mod cluster_view;
mod connection_stats;
pub mod doctor;
mod end_log;
mod flush;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod generations;
mod half_open_client;
mod identity;
pub mod import;
mod intake;
mod interest;
mod leaving_members;
mod lookups;
mod mesh;
mod monitor;
mod moves;
mod moving;
mod name_index;
mod natsconf;
pub mod node_commands;
mod node_pages;
mod outbox;
mod password_check;
mod pause;
mod permissions;
mod policy;
pub mod process_files;
mod route;
mod router;
#[cfg(test)]
mod seeds;
mod server;
pub mod settings;
mod shared;
mod shell;
mod stage;
mod subscription;
mod subscriptions;
mod tokens;
mod turn;
mod unsupported;
mod worker;

pub use mesh::MeshError;
pub use server::{RunError, Server, Sockets, VERSION};
pub use settings::Settings;
