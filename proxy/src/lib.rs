//! `standin-proxy`, the sidecar. It listens on the one NATS address that a component knows, and keeps the component
//! connected to a live node of the cluster.
//!
#![doc = include_str!("../README.md")]
//!
//! ## The files
//!
//! The files, in the order a component's bytes meet them:
//!
//! | file | holds |
//! |---|---|
//! | `listener` | the sockets that listen for components |
//! | `proxy_header` | the addresses that a load balancer gives at the beginning of a connection |
//! | `worker` | the threads that run sessions; the beginning and the end of a session |
//! | `task`, `sockets` | the shell of one session: two sockets, a timer, a dial |
//! | `session` | the state machine of one session, and the data path: `session/upward`, `session/downward` |
//! | `journal`, `ended_sids`, `ledger`, `doubt` | the parts of a session: subscriptions, owed answers, publishes in doubt |
//! | `error_text` | the texts of the sidecar's own `-ERR`s |
//! | `nodes`, `dial` | the choice of a node, and the connection to it |
//! | `recovery` | the time at which a session sends the publishes that it held after the loss of its node |
//!
//! Around them:
//!
//! | file | holds |
//! |---|---|
//! | `sidecar` | start, reload, stop |
//! | `sidecar_state` | the state of the sidecar that workers, prober and pages share |
//! | `session_table`, `session_info`, `session_command` | all sessions as the rest of the sidecar sees them |
//! | `upgrade`, `rest`, `handover`, `state_fields` | SIGUSR2: the next program goes on with the sessions |
//! | `prober` | probes of the nodes to which no session is connected |
//! | `balancer`, `balance_task` | moves of sessions to a node that has come back |
//! | [`cause`] | the causes for which a session leaves a node |
//! | `tally`, `losses`, `reporter` | lost messages: counted, gathered, logged |
//! | `moves` | the latest moves of sessions |
//! | [`settings`], `policy`, `listener_policy`, `identity` | the settings, and the parts of them that a session reads |
//! | `peer` | the other end of a component's connection |
//! | [`cli`], [`commands`] | the command line, and its subcommands |
//! | [`doctor`], [`views`] | the checks of `doctor`, and the pages of a running sidecar in a terminal |
//! | `http`, `metrics` | pages and counters for operators |
//! | [`embedded`] | broker nodes in the same process |

mod balance_task;
mod balancer;
pub mod cause;
pub mod cli;
pub mod commands;
mod dial;
pub mod doctor;
mod doubt;
pub mod embedded;
mod ended_sids;
mod error_text;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handover;
mod http;
mod identity;
mod journal;
mod ledger;
mod listener;
mod listener_policy;
mod losses;
mod metrics;
mod moves;
mod nodes;
mod peer;
mod policy;
mod prober;
mod proxy_header;
mod recovery;
mod reporter;
mod rest;
mod session;
mod session_command;
mod session_info;
mod session_table;
pub mod settings;
mod sidecar;
mod sidecar_state;
mod sockets;
mod state_fields;
mod tally;
mod task;
mod upgrade;
pub mod views;
mod worker;

pub use handover::{Handover, HandoverError};
pub use session::EndReason;
pub use settings::Settings;
pub use sidecar::{RunError, Sidecar, run};
pub use upgrade::UpgradeError;
