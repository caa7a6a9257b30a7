//! The `standin-proxy` program: command line, log, signals, exit code. Everything else is in the library.

use std::process::ExitCode;
use std::time::Duration;

use standin_daemon::certificate_watch::{CertificateWatch, warnings};
use standin_daemon::cli::{answer, print, usage};
use standin_daemon::descriptors;
use standin_daemon::handover_file::{HandoverFile, empty_stdin};
use standin_daemon::inherited_sockets::InheritedSockets;
use standin_daemon::logging::Logging;
use standin_daemon::service_manager::ServiceManager;
use standin_daemon::settings::Loaded;
use standin_daemon::successor::{ACCEPTED, HeldSignals, Successor};
use standin_proxy::cli::{Cli, Command, EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE};
use standin_proxy::embedded::Embedded;
use standin_proxy::{Handover, RunError, Settings, Sidecar};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

const PROGRAM: &str = "standin-proxy";

/// Time that the program requests of the service manager for its stop, in addition to `process.shutdown_secs`.
const STOP_MARGIN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // Until they are handled: also those that came while this program replaced another one.
    let held = HeldSignals::hold().ok();
    let mut successor = Successor::of_this_program();
    let mut cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(said) => {
            said.print();
            return said.exit_code().into();
        }
    };
    if let Some(command) = cli.command.clone() {
        drop(held);
        return run_command(&command, &cli);
    }
    let embedded = match embedded(&mut cli) {
        Ok(embedded) => embedded,
        Err(error) => {
            eprintln!("{PROGRAM}: cannot listen for an embedded node: {error}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    // Waits until the state is complete. The settings are read after that, so that a later change of them is seen.
    let to_check = cli.check.then(HandoverFile::on_stdin).flatten();
    let mut loaded = match cli.settings() {
        Ok(loaded) => loaded,
        Err(error) => return usage(PROGRAM, &error),
    };
    if cli.print_config || cli.check {
        // While the program runs, the watch logs these warnings.
        loaded.warnings.extend(warnings(&loaded.settings.tls_doors()));
        if let Some(state) = to_check {
            // The signal for the running program must not end its check.
            if let Some(held) = held {
                held.for_good();
            }
            return check_state(state, &loaded.settings);
        }
        drop(held);
        return answer(PROGRAM, cli.print_config, &loaded);
    }
    let inherited = match InheritedSockets::from_environment() {
        Ok(inherited) => inherited,
        Err(error) => return usage(PROGRAM, &error),
    };
    let settings = loaded.settings.clone();
    let logging = match Logging::start(&settings.log.level, settings.log.format, None) {
        Ok(logging) => logging,
        Err(error) => return usage(PROGRAM, &error),
    };
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    if embedded.is_some() {
        warn!("broker runs in this process (--embedded): for trials and development, not for production");
    }
    settings.connections().raise_limit(is_limit_given(&loaded));
    let start = match former_state() {
        Some(handover) => {
            successor.set_program(handover.program().clone());
            Start::GoOn(Box::new(handover))
        }
        None => Start::New(inherited),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    let upgrades = embedded.is_none().then_some(successor);
    let serving = async {
        let nodes = match embedded {
            Some(embedded) => embedded.run().await.map(Some),
            None => Ok(None),
        };
        match nodes {
            Ok(_running) => serve(&cli, start, settings, &logging, upgrades, held).await,
            Err(error) => {
                error!("cannot run an embedded node: {error}");
                EXIT_UNAVAILABLE
            }
        }
    };
    runtime.block_on(serving).into()
}

/// How the sidecar starts.
enum Start {
    /// With the sockets of the service manager, if it has passed any.
    New(InheritedSockets),
    /// In place of the former program, with its sessions.
    GoOn(Box<Handover>),
}

/// Checks the state of the running program, which this one is to replace (SIGUSR2). It is at standard input.
fn check_state(mut state: HandoverFile, settings: &Settings) -> ExitCode {
    let state = match Handover::read(&mut state, true) {
        Ok(state) => state,
        Err(error) => return usage(PROGRAM, &error),
    };
    match state.check(settings) {
        Ok(()) => print(PROGRAM, &format!("{ACCEPTED}\n")),
        Err(error) => usage(PROGRAM, &error),
    }
}

/// Returns the state of the program that this one has replaced, if it has. If the state cannot be read, its connections are closed.
fn former_state() -> Option<Handover> {
    let mut state = HandoverFile::on_stdin()?;
    let handover = Handover::read(&mut state, false);
    drop(state);
    empty_stdin();
    handover
        .inspect_err(|error| {
            error!("cannot go on with the sessions of the former program, they are closed: {error}");
            descriptors::close_left();
        })
        .ok()
}

/// Runs a subcommand.
fn run_command(command: &Command, cli: &Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{PROGRAM}: cannot start: {error}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    let code = runtime.block_on(standin_proxy::commands::run(command, PROGRAM, cli));
    // A thread may still be blocked in a lookup of a host name. The program does not wait for it.
    runtime.shutdown_background();
    code
}

/// Returns whether the operator has set the limit on components.
fn is_limit_given(loaded: &Loaded<Settings>) -> bool {
    loaded.is_given(loaded.settings.connections().key)
}

/// Returns the sockets of the embedded nodes, if `--embedded` is given, and adds their addresses to `cli`.
fn embedded(cli: &mut Cli) -> std::io::Result<Option<Embedded>> {
    let embedded = cli.embedded.map(Embedded::listen).transpose()?;
    if let Some(embedded) = &embedded {
        cli.embedded_urls = embedded.urls().to_vec();
    }
    Ok(embedded)
}

/// Runs the sidecar until a signal stops it, or `successor` replaces this program. Returns the exit code.
async fn serve(
    cli: &Cli,
    start: Start,
    settings: Settings,
    logging: &Logging,
    successor: Option<Successor>,
    held: Option<HeldSignals>,
) -> u8 {
    let listen = |kind| signal(kind).inspect_err(|error| error!("cannot listen for signals: {error}"));
    let (Ok(mut hangup), Ok(mut interrupt), Ok(mut terminate), Ok(mut upgrade)) = (
        listen(SignalKind::hangup()),
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
        listen(SignalKind::user_defined2()),
    ) else {
        return EXIT_BUG;
    };
    let started = match start {
        Start::New(inherited) => Sidecar::start_on(inherited, settings).await,
        Start::GoOn(handover) => Sidecar::go_on(*handover, settings).await,
    };
    // The threads of the sidecar have begun, and go on holding them back, so this thread gets all signals.
    drop(held);
    let mut sidecar = match started {
        Ok(sidecar) => sidecar,
        Err(error) => {
            error!(kind = error.kind(), "{error}");
            return if matches!(error, RunError::Settings(_) | RunError::Inherited(_)) {
                EXIT_USAGE
            } else {
                EXIT_UNAVAILABLE
            };
        }
    };
    let manager = ServiceManager::from_environment();
    manager.ready().await;
    tokio::spawn(manager.clone().keep_alive(sidecar.workers()));
    let mut certificates = CertificateWatch::new(sidecar.settings().tls_doors());
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                manager.reloading().await;
                reload(cli, &mut sidecar, logging);
                manager.ready().await;
                certificates = CertificateWatch::new(sidecar.settings().tls_doors());
            }
            _ = upgrade.recv() => match &successor {
                Some(successor) => tokio::select! {
                    biased;
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    error = sidecar.upgrade(successor) => error!(%error, "upgrade refused; the sidecar goes on as before"),
                },
                None => error!("upgrade refused: not possible with --embedded, whose nodes would lose their clients"),
            },
            () = certificates.changed() => reload(cli, &mut sidecar, logging),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    let longest = sidecar.settings().process.shutdown_secs.duration() + STOP_MARGIN;
    manager.stopping(longest).await;
    sidecar.stop().await;
    EXIT_DONE
}

/// Loads the settings again and applies them, after SIGHUP or a change of a certificate file.
fn reload(cli: &Cli, sidecar: &mut Sidecar, logging: &Logging) {
    let loaded = cli.settings();
    let is_given = loaded.as_ref().is_ok_and(is_limit_given);
    let old = sidecar.settings();
    let apply = |settings: Settings| {
        settings.connections().raise_limit(is_given);
        sidecar.reload(settings)
    };
    let is_reloaded =
        standin_daemon::reload::reload(&*old, loaded, logging, |settings| &settings.log.level, apply);
    sidecar.record_reload(is_reloaded);
    if is_reloaded {
        info!("settings reloaded");
    }
}
