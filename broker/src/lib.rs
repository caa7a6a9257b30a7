//! `standin-broker`: one node of the broker, which serves core NATS to clients.
//!
//! The files, in the order a message meets them:
//!
//! | file | holds |
//! |---|---|
//! | `server` | the listener, the workers, what they share; start and stop |
//! | `task` | the shell of one client: socket, timer, batch |
//! | `client` | a client's frames and what they do |
//! | `router`, `cache` | from a published message to those who get it, and what of that is remembered |
//! | `subscriptions`, `subscription` | who listens to what; `generations` tells what changed, `tokens` splits subjects |
//! | `stage`, `outbox` | what a batch has for each client, and what waits for it |
//!
//! Around them: [`cli`] and [`settings`], [`auth`], `closing` (why connections end), `identity`.
//!
//! *Architecture invariant:* a batch is read, parsed in place, matched and staged; then each client it touched is written to
//! once, by the thread that has the batch.

pub mod auth;
mod cache;
pub mod cli;
mod client;
mod closing;
mod generations;
mod identity;
mod outbox;
mod router;
mod server;
pub mod settings;
mod stage;
mod subscription;
mod subscriptions;
mod task;
mod tokens;

pub use server::{RunError, Server, VERSION};
pub use settings::Settings;
