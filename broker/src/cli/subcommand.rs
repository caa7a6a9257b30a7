//! The commands of this program that `nats-server` does not have. A command is the first word of the command line.
//!
//! [`Cli`](super::Cli) lists them in its help. `Cli::command()` is the definition of the whole command line, from which man pages and
//! completions are made.

use clap::Subcommand as Subcommands;

use standin_daemon::doctor::report::EXIT_CODES;

use super::{AnnounceFlags, ClusterViewFlags, DoctorFlags, ImportFlags};

/// A command with its flags.
#[derive(Debug, Clone, Subcommands)]
pub enum Subcommand {
    /// Register a nats-server in ZooKeeper as long as it serves, so that sidecars find it
    Announce(Box<AnnounceFlags>),
    /// Print a settings file of nats-server as settings of this program
    Import(ImportFlags),
    /// Check settings, addresses, files, ZooKeeper, all nodes and the routes between them, and name the remedy for what is wrong
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorFlags),
    /// Show the nodes of the cluster and the routes between them, as the pages of the nodes show them
    Cluster(ClusterViewFlags),
}
