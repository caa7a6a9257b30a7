//! Tests of a node in the test process. They are one binary, to be linked once.

mod clients;
mod limits;
mod node;
