//! Tests of the public interface of this crate. They are one binary, because each further binary would be linked separately.
#![allow(clippy::unwrap_used)]

mod announce;
mod contested;
mod resumed;
mod sources;
mod zk;
mod znodes;
mod zookeeper;
