//! Flags of `nats-server` for unsupported features: refused with an error, or accepted without effect.

use clap::Args;

use super::words::number;
use crate::unsupported::{LOG_ROTATION, LOGTIME_OFF, Unsupported};

/// The flags of `nats-server` for unsupported features.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct UnsupportedFlags {
    #[arg(short = 's', long, hide = true)]
    syslog: bool,
    #[arg(short = 'r', long = "remote_syslog", hide = true, value_name = "ADDR")]
    remote_syslog: Option<String>,
    #[arg(long, hide = true, value_name = "N", value_parser = number)]
    profile: Option<i64>,
    #[arg(long, alias = "js", hide = true)]
    jetstream: bool,

    // Log lines always have a timestamp in UTC.
    #[arg(short = 'T', long, hide = true)]
    logtime: bool,
    #[arg(long = "logtime_utc", hide = true)]
    logtime_utc: bool,
    #[arg(long = "log_size_limit", hide = true, value_name = "BYTES", value_parser = number)]
    log_size_limit: Option<i64>,
    // Payloads are never logged.
    #[arg(long = "max_traced_msg_len", hide = true, value_name = "N", value_parser = number)]
    max_traced_msg_len: Option<i64>,
    // As in nats-server, nothing is stored without JetStream.
    #[arg(long = "store_dir", alias = "sd", hide = true, value_name = "DIR")]
    store_dir: Option<String>,
    // A node that cannot be reached is dialled again without a limit on attempts.
    #[arg(long = "connect_retries", hide = true, value_name = "N", value_parser = number)]
    connect_retries: Option<i64>,
}

impl UnsupportedFlags {
    /// Returns an error text for each given flag of an unsupported feature.
    pub(super) fn refusals(&self) -> Vec<String> {
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let is_nonzero = |number: Option<i64>| number.is_some_and(|number| number != 0);
        let flags = [
            ("--syslog (-s)", self.syslog, Unsupported::SYSLOG),
            (
                "--remote_syslog (-r)",
                is_set(&self.remote_syslog),
                Unsupported::SYSLOG,
            ),
            ("--profile", is_nonzero(self.profile), Unsupported::PROFILING),
            ("--jetstream (-js)", self.jetstream, Unsupported::JETSTREAM),
        ];
        let refused = flags.into_iter().filter(|(_, given, _)| *given);
        refused
            .map(|(flag, _, feature)| format!("flag {flag}: {}", feature.0))
            .collect()
    }

    /// Returns a warning for each given flag that is accepted but asks for something that this server does not do. `off`: the
    /// switches given with `=false`.
    pub(super) fn warnings(&self, off: &[String]) -> Vec<String> {
        let rotated = self.log_size_limit.is_some_and(|bytes| bytes > 0);
        let flags = [
            (
                "--logtime (-T)",
                off.iter().any(|off| off == "logtime"),
                LOGTIME_OFF,
            ),
            ("--log_size_limit", rotated, LOG_ROTATION),
        ];
        let idle = flags.into_iter().filter(|(_, given, _)| *given);
        idle.map(|(flag, _, why)| format!("flag {flag} has no effect: {why}"))
            .collect()
    }
}
