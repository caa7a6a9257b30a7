//! The NATS client protocol as values, for both sides of a connection.
//!
//! Nothing here opens a socket, waits, or keeps time: bytes in, values over the same bytes out. The sidecar and the
//! broker are built on it, so the rules of the protocol are written once. Source of the rules: the protocol page
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol> and, where that is silent, what `nats-server` does.
//!
//! The files, in the order a message meets them:
//!
//! | file | holds |
//! |---|---|
//! | [`limits`] | every limit of the protocol, with its unit in its name |
//! | [`scan`] | [`Scanner`]: finds the next whole frame at the head of a buffer, in either direction |
//! | [`line`](mod@line) | the control line: blanks, tokens, sizes |
//! | [`client`] | the frames a client sends: CONNECT PUB HPUB SUB UNSUB PING PONG |
//! | [`server`] | the frames a server sends: INFO MSG HMSG PING PONG +OK -ERR |
//! | [`subject`] | subject rules, wildcards, [`Pattern`] |
//! | [`connect`], [`info`] | the JSON arguments of CONNECT and INFO |
//! | [`refusal`] | the texts of `-ERR`: whom they are about, and what follows |
//! | [`WireError`], [`ClientFault`] | what is wrong with a frame; what a client is told of it |
//! | [`encode`] | the frames as bytes again |
//!
//! *Architecture invariant:* this crate never waits and never allocates for a message that only passes through.
//! "More bytes are needed" is `Ok(None)`, not an error, and the result does not depend on how the bytes were cut.
//!
//! *A bare `\n`* ends a control line just as `\r\n` does, as in `nats-server`; a payload ends with `\r\n` only.

pub mod client;
pub mod connect;
pub mod encode;
mod error;
mod fault;
pub mod info;
mod json;
pub mod limits;
pub mod line;
pub mod refusal;
pub mod scan;
pub mod server;
pub mod subject;

pub use client::ClientScanner;
pub use connect::Connect;
pub use error::WireError;
pub use fault::ClientFault;
pub use info::Info;
pub use refusal::Refusal;
pub use scan::{Scanner, Span};
pub use server::ServerScanner;
pub use subject::{Pattern, PatternError};
