//! `standin-broker announce`: an agent that runs beside an unmodified `nats-server` and registers the server in ZooKeeper as long as
//! the server serves clients.
//!
//! | file | holds |
//! |---|---|
//! | `target` | the server to be checked, and how |
//! | `server_connection` | one connection to the server: INFO, TLS, login, PING |
//! | `healthz` | the check of the server's monitoring port |
//! | `check_error` | why a check failed |
//! | `hysteresis` | how many checks decide whether the server serves |
//! | `record` | the record of the server |
//! | `agent` | checks, and the record in ZooKeeper that follows them |
//!
//! *Architecture invariant:* a server is never registered before a check has passed, and a sidecar is never registered.

mod agent;
mod check_error;
mod healthz;
mod hysteresis;
mod record;
mod server_connection;
mod target;

use std::io::{self, Write as _};

use standin_daemon::cli::{EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE};
use standin_daemon::logging::{LogFormat, Logging};
use standin_registry::Config;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use self::agent::Agent;
use self::target::Target;
use crate::cli::AnnounceFlags;

const PROGRAM: &str = "standin-broker announce";

/// Runs the agent until a signal ends it; with `--check`, checks the server once. Returns the exit code.
#[must_use]
pub fn run(flags: &AnnounceFlags) -> u8 {
    let (target, config) = match settings(flags) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            return EXIT_USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{PROGRAM}: cannot start: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    if flags.check {
        return runtime.block_on(check(&target));
    }
    let format = if flags.checks.log_json {
        LogFormat::Json
    } else {
        LogFormat::Human
    };
    let _logging = match Logging::start(&flags.checks.log_level, format, None) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            return EXIT_USAGE;
        }
    };
    runtime.block_on(serve(target, config))
}

/// Returns the server and the configuration of the registry, checked.
fn settings(flags: &AnnounceFlags) -> Result<(Target, Config), String> {
    let target = Target::new(flags)?;
    let zookeeper = flags.zookeeper.config().map_err(|error| error.to_string())?;
    let config = Config {
        zookeeper,
        gossip: false,
        ..Config::default()
    };
    config.check().map_err(|error| error.to_string())?;
    Ok((target, config))
}

/// Checks the server once and prints the result.
async fn check(target: &Target) -> u8 {
    let report = match target.check_once().await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{PROGRAM}: {}: {error}", target.node);
            return EXIT_UNAVAILABLE;
        }
    };
    match io::stdout().lock().write_all(report.as_bytes()) {
        Ok(()) => EXIT_DONE,
        Err(error) => {
            eprintln!("{PROGRAM}: cannot write to standard output: {error}");
            EXIT_UNAVAILABLE
        }
    }
}

async fn serve(target: Target, config: Config) -> u8 {
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    let (mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            error!("cannot listen for signals: {error}");
            return EXIT_BUG;
        }
    };
    let watch = match standin_registry::watch(config) {
        Ok(watch) => watch,
        Err(error) => {
            error!(kind = error.kind(), "{error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let mut agent = Agent::new(target, watch);
    let code = tokio::select! {
        _ = interrupt.recv() => EXIT_DONE,
        _ = terminate.recv() => EXIT_DONE,
        taken = agent.run() => {
            error!("{taken}; this agent exits");
            EXIT_UNAVAILABLE
        }
    };
    agent.end().await;
    code
}
