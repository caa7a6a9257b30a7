//! The broker as a server of core NATS: the same conversations as real nats-server has, real client libraries on it, and what
//! its operator does to it and sees of it.

mod configuration;
pub(crate) mod conformance;
mod crowd;
mod libraries;
mod limits;
mod log;
mod monitoring;
mod operation;
pub(crate) mod rows;
