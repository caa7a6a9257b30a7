//! The mesh in one process.
