//! The tests of what this crate shows to others, in one binary so that they link once.

mod corpus;
mod oracle;
mod properties;
