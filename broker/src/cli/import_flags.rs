//! The flags of `standin-broker import`.

use std::path::PathBuf;

use clap::Args;

/// Prints a settings file of nats-server as TOML on standard output
///
/// The TOML file has the same effect as the given file. For a key that cannot be carried over, a comment at its place says why, and so
/// does a line on standard error.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 every key was carried over, 64 the file cannot be read or has a syntax error, 65 some keys were left out."
)]
pub struct ImportFlags {
    /// Settings file in the format of nats-server; its include files are read too
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
