//! The broker as a server of core NATS: the same conversations as real nats-server has, and real client libraries on it.

mod conformance;
mod libraries;
