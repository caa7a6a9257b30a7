//! A guided failover.
fn main() {}
