//! The NATS client protocol, for both sides of a connection.
//!
//! This crate opens no socket, never waits and reads no clock. It takes bytes and returns values that borrow these bytes.
//! The sidecar and the broker both use it, so each rule of the protocol is written once. The rules are those of the protocol
//! page <https://docs.nats.io/reference/reference-protocols/nats-protocol>; for cases that the page does not describe, they
//! are the behaviour of `nats-server`.
//!
//! The files, in the order in which a message passes them:
//!
//! | file | holds |
//! |---|---|
//! | [`limits`] | the limits of the protocol |
//! | [`scanner`] | [`Scanner`], which finds the next whole frame at the start of a buffer, in either direction |
//! | [`line`](mod@line) | the parts of a control line: blanks, tokens, sizes |
//! | [`client`] | the frames that a client sends: CONNECT PUB HPUB SUB UNSUB PING PONG MOVE |
//! | [`server`] | the frames that a server sends: INFO MSG HMSG PING PONG +OK -ERR MOVE |
//! | [`subject`] | the rules of subjects and wildcards; [`Pattern`] |
//! | [`permissions`] | [`Permissions`]: the subjects that a client may publish and subscribe to |
//! | [`connect`], [`info`] | the JSON arguments of CONNECT and INFO |
//! | [`moves`] | the JSON argument of MOVE, with which a sidecar and two brokers move a client |
//! | [`refusal`] | the texts of `-ERR` and their meaning |
//! | [`WireError`], [`ClientFault`] | protocol errors in a frame; the `-ERR` texts for them |
//! | [`encode`] | encoding of frames |
//!
//! *Architecture invariant:* this crate never waits and never allocates for a message that is only forwarded.
//! `Ok(None)` means that more bytes are needed; it is not an error. The result does not depend on the sizes of the reads in
//! which the bytes arrived.
//!
//! A control line may end with `\n` alone instead of `\r\n`, as in `nats-server`. A payload must end with `\r\n`.

pub mod client;
pub mod connect;
pub mod encode;
mod error;
mod fault;
pub mod info;
mod json;
pub mod limits;
pub mod line;
pub mod moves;
pub mod permissions;
pub mod refusal;
pub mod scanner;
pub mod server;
pub mod subject;

pub use client::ClientScanner;
pub use connect::Connect;
pub use error::WireError;
pub use fault::ClientFault;
pub use info::Info;
pub use moves::{Move, MoveId};
pub use permissions::{Permissions, Rules, Violation};
pub use refusal::Refusal;
pub use scanner::{Scanner, Span};
pub use server::ServerScanner;
pub use subject::{Pattern, PatternError};
