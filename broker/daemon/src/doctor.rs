//! `doctor`: the checks that an operator would make by hand, as far as both programs share them.
//!
//! Each check adds rows to a [`Report`](report::Report). No check writes anything anywhere. Each check that uses the network has a time
//! limit, except the lookup of a name to listen on, which takes as long as the resolver of the host needs.
//!
//! | file | holds |
//! |---|---|
//! | [`report`] | rows, verdicts and remedies; the table, the JSON and the exit code |
//! | [`settings_check`] | the settings and the certificates that they name |
//! | [`listen_check`], [`port_holder`] | addresses to listen on, and the program that holds each |
//! | [`host_check`] | the limit on open files, and folders to write to |
//! | [`ensemble_check`] | the servers of ZooKeeper and the records there |
//! | [`node_comparison`] | properties that differ between nodes |

pub mod ensemble_check;
pub mod host_check;
pub mod listen_check;
pub mod node_comparison;
pub mod port_holder;
pub mod report;
pub mod settings_check;
