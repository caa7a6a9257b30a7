#![doc = include_str!("../README.md")]
//!
//! ## The files
//!
//! `standin-broker`: one node of the broker, which serves core NATS to clients.
//!
//! The files, in the order a message meets them:
//!
//! | file | holds |
//! |---|---|
//! | `server` | a node as a value: start, reload, lame duck, stop |
//! | `accept` | connections from outside |
//! | `worker`, `shared` | the threads that serve connections, and what they share |
//! | `turn` | the turns of a worker's connections: what is collected is sent once |
//! | `shell`, `intake` | the task around one connection: socket, read buffer, timer |
//! | `pause` | what came in while the process was stopped, and whether it still counts |
//! | `client` | a client's frames and what they do |
//! | `router`, `cache`, `lookups` | from a published message to those who get it, and what of that is remembered |
//! | `flush` | what a PONG waits for: the cluster-wide flush, and that a client that moves gets nothing twice |
//! | `interest` | who wants what, here and on other nodes |
//! | `subscriptions`, `subscription` | who listens to what: a table of subjects, a tree of those with wildcards, `name_index` of queue groups; `generations` tells what changed, `tokens` splits subjects |
//! | `stage`, `outbox` | what a batch has for each client or link, and what waits for it |
//! | `route` | the links to other nodes, and the frames on them |
//! | `mesh` | the life of a node among others |
//!
//! Around them: [`cli`], [`settings`] (`natsconf`: in nats-server's own format; `unserved`: what of nats-server is not here) and the `policy` made of them, [`auth`], `closing` (why connections end), `end_log` (what the log says of it), `clients` and
//! `client_info` (what of clients others may see), `monitor` (the pages), [`notices`] (pid and ports files), `identity`.
//!
//! *Architecture invariant:* a batch is read, parsed in place, matched and staged; then each client it touched is written to
//! once, by the thread that has the batch.

mod accept;
pub mod auth;
mod cache;
pub mod cli;
mod client;
mod client_info;
mod clients;
mod closing;
mod end_log;
mod flush;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod generations;
mod identity;
mod intake;
mod interest;
mod lookups;
mod mesh;
mod monitor;
mod name_index;
mod natsconf;
pub mod notices;
mod outbox;
mod pause;
mod policy;
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
mod unserved;
mod worker;

pub use mesh::MeshError;
pub use server::{RunError, Server, Sockets, VERSION};
pub use settings::Settings;
