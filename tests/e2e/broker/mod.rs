//! Tests of the broker as a single server of core NATS: comparison with real nats-server, real client libraries, many clients,
//! operation, settings, log and monitoring pages.

mod accounts;
mod configuration;
pub(crate) mod conformance;
mod crowd;
mod libraries;
mod limits;
mod log;
mod monitoring;
mod operation;
mod permissions;
pub(crate) mod rows;
mod users;
