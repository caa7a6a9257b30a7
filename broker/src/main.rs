//! The `standin-broker` program: command line, log, signals, exit code. Everything else is in the library.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use standin_broker::cli::{self, Cli, EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE, Subcommand};
use standin_broker::process_files::ProcessFiles;
use standin_broker::{RunError, Server, Settings, Sockets, VERSION, announce, import, node_commands};
use standin_daemon::certificate_watch::{CertificateWatch, warnings};
use standin_daemon::cli::{answer, usage};
use standin_daemon::inherited_sockets::{InheritedSocketError, InheritedSockets};
use standin_daemon::logging::Logging;
use standin_daemon::service_manager::ServiceManager;
use standin_daemon::settings::Loaded;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

const PROGRAM: &str = "standin-broker";

/// Time that the program requests of the service manager for its stop, in addition to the time of lame duck mode.
const STOP_MARGIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(message) => {
            message.print();
            return message.exit_code().into();
        }
    };
    if let Some(subcommand) = cli.subcommand {
        return run(subcommand);
    }
    if let Some(text) = &cli.operation.signal {
        return match cli::signal::send(text) {
            Ok(()) => EXIT_DONE.into(),
            Err(error) if error.is_usage() => usage(PROGRAM, &error),
            Err(error) => {
                eprintln!("{PROGRAM}: {error}");
                EXIT_UNAVAILABLE.into()
            }
        };
    }
    let mut loaded = match cli.settings() {
        Ok(loaded) => loaded,
        Err(error) => return usage(PROGRAM, &error),
    };
    if cli.operation.print_config || cli.operation.check {
        // While the program runs, the watch logs these warnings.
        loaded.warnings.extend(warnings(&loaded.settings.tls_doors()));
        return answer(PROGRAM, cli.operation.print_config, &loaded);
    }
    let settings = loaded.settings.clone();
    let inherited = match InheritedSockets::from_environment() {
        Ok(inherited) => inherited,
        Err(error) => return usage(PROGRAM, &error),
    };
    let log = &settings.log;
    let logging = match Logging::start(&log.level, log.format, settings.log_file()) {
        Ok(logging) => logging,
        Err(error) => return usage(PROGRAM, &error),
    };
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    let sockets = match sockets(inherited, &settings) {
        Ok(sockets) => sockets,
        Err(error) => {
            error!("{error}");
            return EXIT_USAGE.into();
        }
    };
    settings.connections().raise_limit(is_limit_given(&loaded));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    runtime.block_on(serve(&cli, sockets, settings, &logging)).into()
}

/// Returns the socket for clients, if the service manager opened it. If the settings have 0.0.0.0, a socket for both families (`::`) is
/// taken too.
fn sockets(mut inherited: InheritedSockets, settings: &Settings) -> Result<Sockets, InheritedSocketError> {
    let mut addresses: Vec<SocketAddr> = settings.listen().resolve().into_iter().collect();
    let is_any = |address: &&SocketAddr| address.ip() == IpAddr::from([0, 0, 0, 0]);
    let both = |address: &SocketAddr| SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    let dual = addresses.iter().find(is_any).map(both);
    addresses.extend(dual);
    let clients = inherited.take_tcp(&addresses).map(Into::into);
    inherited.finish("addr and port")?;
    Ok(Sockets {
        clients,
        ..Sockets::default()
    })
}

/// Runs a command. Returns the exit code.
fn run(subcommand: Subcommand) -> ExitCode {
    match subcommand {
        Subcommand::Announce(flags) => announce::run(&flags).into(),
        Subcommand::Import(flags) => import::run(&flags).into(),
        Subcommand::Doctor(flags) => node_commands::run_doctor(&flags),
        Subcommand::Cluster(flags) => node_commands::run_cluster(&flags),
    }
}

/// Returns whether the operator has set the maximum number of clients.
fn is_limit_given(loaded: &Loaded<Settings>) -> bool {
    loaded.is_given(loaded.settings.connections().key)
}

/// The signals that the program handles.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    reopen: Signal,
    lame_duck: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reopen: signal(SignalKind::user_defined1())?,
            lame_duck: signal(SignalKind::user_defined2())?,
        })
    }

    /// Handles SIGHUP, SIGUSR1 and changes of certificate files. Returns at a signal that ends the program, or when another node holds this
    /// node's name.
    async fn until_end(
        &mut self,
        cli: &Cli,
        server: &Server,
        clustered: bool,
        logging: &Logging,
        manager: &ServiceManager,
    ) -> End {
        let mut certificates = CertificateWatch::new(server.settings().tls_doors());
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return End::Now,
                why = server.displaced() => {
                    error!("{why}; this node exits");
                    return End::Displaced;
                }
                // In a cluster, clients can move to other nodes, so they are given time to do it.
                _ = self.terminate.recv() => return if clustered { End::Terminated } else { End::Now },
                _ = self.lame_duck.recv() => return End::LameDuck,
                _ = self.hangup.recv() => {
                    manager.reloading().await;
                    reload(cli, server, logging);
                    manager.ready().await;
                    certificates = CertificateWatch::new(server.settings().tls_doors());
                }
                () = certificates.changed() => reload(cli, server, logging),
                _ = self.reopen.recv() => logging.reopen(),
            }
        }
    }

    /// Returns at SIGINT or at the second SIGTERM. The first SIGTERM is ignored, as in `nats-server`: Kubernetes sends one after a preStop
    /// hook that has already started lame duck mode. If SIGTERM started lame duck mode (`by_sigterm`), that was the first.
    async fn end_of_lame_duck(&mut self, by_sigterm: bool) {
        if !by_sigterm {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => {}
            }
            info!("SIGTERM ignored in lame duck mode; a second SIGTERM, or SIGINT, stops the server at once");
        }
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How the program ends.
#[derive(PartialEq, Eq)]
enum End {
    Now,
    /// After lame duck mode, started by SIGUSR2.
    LameDuck,
    /// After lame duck mode, started by SIGTERM.
    Terminated,
    /// After lame duck mode, with an error: another node holds this node's name.
    Displaced,
}

async fn serve(cli: &Cli, sockets: Sockets, settings: Settings, logging: &Logging) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!("cannot listen for signals: {error}");
            return EXIT_BUG;
        }
    };
    info!("Starting {PROGRAM}");
    let own = env!("CARGO_PKG_VERSION");
    info!("  Version:  {own} (as nats-server {VERSION})");
    let process = settings.process.clone();
    let name = settings.server_name.clone();
    let clustered = settings.is_clustered();
    let stop = async {
        tokio::select! {
            _ = signals.interrupt.recv() => {}
            _ = signals.terminate.recv() => {}
            _ = signals.lame_duck.recv() => {}
        }
    };
    let server = match Server::start_on(sockets, settings, stop).await {
        Ok(server) => server,
        Err(RunError::Stopped) => return EXIT_DONE,
        Err(error) => {
            error!(kind = error.kind(), "{error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let name = if name.is_empty() { server.id() } else { &name };
    info!("  Name:     {name}");
    info!("  ID:       {}", server.id());
    let _process_files = match ProcessFiles::write(&process, &server) {
        Ok(process_files) => process_files,
        Err(error) => {
            error!("{error}");
            server.stop().await;
            return EXIT_USAGE;
        }
    };
    info!("Server is ready");
    let manager = ServiceManager::from_environment();
    manager.ready().await;
    tokio::spawn(manager.clone().keep_alive(server.workers()));
    let end = signals
        .until_end(cli, &server, clustered, logging, &manager)
        .await;
    let settings = server.settings();
    let lame_duck =
        settings.process.lame_duck_grace_secs.duration() + settings.process.lame_duck_secs.duration();
    manager.stopping(lame_duck + STOP_MARGIN).await;
    if end != End::Now {
        info!("Entering lame duck mode, stop accepting new clients");
        tokio::select! {
            () = server.lame_duck() => {}
            () = signals.end_of_lame_duck(end == End::Terminated) => {}
        }
    }
    info!("Initiating Shutdown, clients={}", server.clients());
    server.stop().await;
    info!("Server Exiting");
    if end == End::Displaced {
        EXIT_UNAVAILABLE
    } else {
        EXIT_DONE
    }
}

/// Reloads the settings, after SIGHUP or a change of a certificate file.
fn reload(cli: &Cli, server: &Server, logging: &Logging) {
    let loaded = cli.settings();
    let is_given = loaded.as_ref().is_ok_and(is_limit_given);
    let apply = |settings: Settings| {
        settings.connections().raise_limit(is_given);
        server.reload(settings)
    };
    let old = server.settings();
    let is_reloaded =
        standin_daemon::reload::reload(&*old, loaded, logging, |settings| &settings.log.level, apply);
    server.record_reload(is_reloaded);
    if is_reloaded {
        info!("Reloaded server configuration");
    }
}
