//! The flags of `doctor` and `cluster`, which take all flags of the broker besides their own.

use std::ffi::OsString;

use clap::Args;

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorFlags {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    /// The flags with which the broker is started, for example: standin-broker doctor -c /etc/standin/broker.toml
    #[arg(
        value_name = "FLAGS OF THE BROKER",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub node: Vec<OsString>,
}

/// Flags of `cluster`.
#[derive(Debug, Clone, Args)]
pub struct ClusterViewFlags {
    /// Show it again every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,

    /// Print the pages /varz and /routez of all nodes as JSON
    #[arg(long)]
    pub json: bool,

    /// The flags with which the broker is started, for example: standin-broker cluster --watch -c /etc/standin/broker.toml; or only
    /// -a and -m, the address and port of its pages
    #[arg(
        value_name = "FLAGS OF THE BROKER",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub node: Vec<OsString>,
}
