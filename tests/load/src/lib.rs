//! What the load generator shares with the tests.

pub mod relay;
