//! Tests of a node in the test process. They are one binary, so that it is linked only once.

mod clients;
mod limits;
mod node;
