//! The end-to-end tests, one module per theme, in one binary so that they link once.

mod scripted_peers;
