//! The `standin-broker` program: command line, log, signals, exit code. All else is in the library.

use std::fs;
use std::process::ExitCode;

use standin_broker::Server;
use standin_broker::cli::{Cli, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::filter::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(said) => {
            said.print();
            return said.exit_code().into();
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::new(cli.log_level()))
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    runtime.block_on(serve(&cli)).into()
}

async fn serve(cli: &Cli) -> u8 {
    let settings = match cli.settings() {
        Ok(settings) => settings,
        Err(error) => {
            error!("{error}");
            return EXIT_USAGE;
        }
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!("cannot listen for signals: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let server = match Server::start(settings) {
        Ok(server) => server,
        Err(error) => {
            error!(kind = error.kind(), "{error}");
            return EXIT_UNAVAILABLE;
        }
    };
    if let Some(path) = &cli.pid
        && let Err(error) = fs::write(path, std::process::id().to_string())
    {
        error!("cannot write the pid file {}: {error}", path.display());
        return EXIT_UNAVAILABLE;
    }
    info!("Server is ready");
    signals.wait().await;
    info!("stopping clients={}", server.clients());
    server.stop().await;
    if let Some(path) = &cli.pid
        && let Err(error) = fs::remove_file(path)
    {
        error!("cannot remove the pid file {}: {error}", path.display());
    }
    info!("stopped");
    EXIT_DONE
}

/// The signals that end the program in order.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
