//! The tests of a node in this process, in one binary so that they link once.

mod clients;
mod limits;
mod node;
