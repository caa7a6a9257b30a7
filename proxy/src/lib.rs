//! `standin-proxy`, the sidecar: it stands on the one NATS address that a component knows, and keeps the component
//! connected to a live node of the cluster behind it.
//!
//! The files, in the order a component's bytes meet them:
//!
//! | file | holds |
//! |---|---|
//! | `listener` | the old address: takes connections |
//! | `worker` | the threads that run sessions; a session's beginning and end |
//! | `task`, `sockets` | the shell of one session: two sockets, a timer, a dial; `task/report` tells of it |
//! | `session` | the state machine of one session, and the data path: `session/upward`, `session/downward` |
//! | `journal`, `ledger`, `doubt` | its parts: subscriptions, answers owed, publishes in doubt |
//! | `error_text` | what a component may be told in an `-ERR` |
//! | `nodes`, `dial` | which node next, and the connection to it |
//! | `recovery` | after a loss: when held publishes go out again |
//!
//! Around them: `sidecar` (start, reload, stop), `shared` and `session_info` (what sessions share and show), `policy`
//! (the settings as sessions read them), `cause` (why a session left a node), `prober` (nodes without a session),
//! `tally`, `losses`, `reporter` (lost messages counted, gathered, logged).
//!
//! The outside: [`cli`] and [`settings`], [`logging`], [`metrics`], [`http`] with `status`, [`files`]; [`embedded`], a broker
//! node in the same process.

pub mod cause;
pub mod cli;
mod dial;
mod dial_settings;
mod doubt;
pub mod embedded;
mod ended_sids;
mod error_text;
pub mod http;
mod identity;
mod journal;
mod ledger;
mod listener;
mod losses;
pub mod metrics;
mod nodes;
pub mod policy;
mod prober;
mod process_limits;
mod recovery;
mod reporter;
mod session;
mod session_command;
mod session_info;
mod session_table;
pub mod settings;
mod shared;
mod sidecar;
mod sockets;
mod status;
mod tally;
mod task;
mod worker;

pub use session::EndReason;
pub use settings::Settings;
pub use sidecar::{RunError, Sidecar, run};
