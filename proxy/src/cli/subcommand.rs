//! The definitions of the subcommands: `doctor`, `nodes` and `sessions`. `commands.rs` runs them.

use clap::{Args, Subcommand};
use standin_daemon::doctor::report::EXIT_CODES;

/// A subcommand.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Check settings, addresses, ZooKeeper, DNS, each node and the cache, and name the remedy for what is wrong
    #[command(after_help = EXIT_CODES)]
    Doctor {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the nodes as the running sidecar sees them (its page /nodez, at --http or http.listen of --config)
    Nodes(ViewFlags),
    /// Show the sessions of the running sidecar (its page /sessionz, at --http or http.listen of --config)
    Sessions(ViewFlags),
}

/// Flags of a view.
#[derive(Debug, Clone, Copy, Args)]
pub struct ViewFlags {
    /// Show it again every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,

    /// Print the page as JSON
    #[arg(long)]
    pub json: bool,
}
