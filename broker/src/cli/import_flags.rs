//! The flags of `standin-broker import`.

use std::path::PathBuf;

use clap::Args;

/// Prints a settings file of nats-server as TOML on standard output
///
/// The TOML file sets the same as the given file does. A key that cannot be carried over is a comment at its place, with the reason, and
/// a line on standard error.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 every key was carried over, 64 the file cannot be read or has a syntax error, 65 some keys were left out."
)]
pub struct ImportFlags {
    /// Settings file in the format of nats-server; its include files are read too
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
