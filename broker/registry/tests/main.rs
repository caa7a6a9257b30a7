//! The tests of what this crate shows to others, in one binary so that they link once.
#![allow(clippy::unwrap_used)]

mod announce;
mod contested;
mod continued;
mod sources;
mod zk;
mod znodes;
mod zookeeper;
