//! The command line. It has the flags of `nats-server`, so that start scripts for `nats-server` work. Flags override all other settings.
//!
//! `words` parses the command line as `nats-server` does. The supported flags are in this file, the flags of unsupported features in
//! `unsupported`. [`signal`] implements `--signal`. [`Subcommand`] has the commands that `nats-server` does not have; their flags are
//! parsed by clap alone.

// clap shows the doc comments of the flags as help texts, in which brackets are not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod announce_flags;
mod import_flags;
mod node_flags;
pub mod signal;
mod subcommand;
mod unsupported;
mod words;

use std::env;
use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
pub use standin_daemon::cli::{
    CliMessage, EXIT_BUG, EXIT_DONE, EXIT_INCOMPLETE, EXIT_UNAVAILABLE, EXIT_USAGE,
};
use standin_daemon::settings::Secret;
use toml::Value;

pub use self::announce_flags::{AnnounceFlags, LoginFlags, NodeTlsFlags, ZooKeeperFlags};
pub use self::import_flags::ImportFlags;
pub use self::node_flags::{ClusterViewFlags, DoctorFlags};
pub use self::subcommand::Subcommand;
use self::unsupported::UnsupportedFlags;
use self::words::number;
use crate::settings::{Flag, Input, Loaded, Settings, SettingsError, credentials, split_url};

const AFTER_HELP: &str = "\
The flags and their values are those of nats-server, with one dash or two: -port 4222, --port=4222, -p -1, -DV, -D=false. The settings
file is TOML: deploy/broker.toml lists every key with its default. A file *.conf is read in the format of nats-server. Flags and keys
of nats-server for unsupported features (JetStream, leaf nodes, syslog, profiling, ...) are errors that name the feature.
A command, if there is one, is the first word, and has flags of its own: standin-broker announce --help.

Environment: STANDIN_<SECTION>_<KEY> for each key of the settings file.
Signals: INT stops the server. TERM stops it too, but in a cluster it starts lame duck mode. USR2 starts lame duck mode: clients are
notified, get time to reconnect, are closed one by one, and the process exits. HUP reloads the settings. USR1 reopens the log file.
Exit codes: 0 success, 64 bad usage or settings, 65 import left out some keys, 69 cannot listen, join the cluster or send the signal, 70
internal error.

Examples:
  standin-broker -p 4222 -m 8222 --user a --pass b
  standin-broker --zookeeper 10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181
  standin-broker -p 4222 --cluster nats://10.0.0.1:6222 --routes nats://10.0.0.2:6222,nats://10.0.0.3:6222
  standin-broker -c /etc/standin/broker.toml -l /var/log/standin-broker.log -P /run/standin-broker.pid
  standin-broker --signal reload=/run/standin-broker.pid";

/// A node of the broker, which serves core NATS to clients
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "standin-broker",
    version,
    disable_version_flag = true,
    args_override_self = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP,
    max_term_width = 110
)]
pub struct Cli {
    /// See [`Subcommand`].
    #[command(subcommand)]
    pub subcommand: Option<Subcommand>,

    /// Settings file (TOML, or *.conf in the format of nats-server)
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<OsString>,

    /// Print the version and exit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    clients: ClientFlags,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// See [`OperationFlags`].
    #[command(flatten)]
    pub operation: OperationFlags,

    #[command(flatten)]
    unsupported: UnsupportedFlags,

    /// Switches that were given with `=false`.
    #[arg(skip)]
    off: Vec<String>,
}

/// The flags for connections of clients.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Clients")]
struct ClientFlags {
    /// Address to listen on [default: 0.0.0.0]
    #[arg(short = 'a', long, alias = "net", value_name = "IP")]
    addr: Option<String>,

    /// Port to listen on for clients; -1: any free one [default: 4222]
    #[arg(short = 'p', long, value_name = "N", value_parser = number)]
    port: Option<i64>,

    /// Name of this server [default: the server id]
    #[arg(short = 'n', long, visible_alias = "server_name", value_name = "NAME")]
    name: Option<String>,

    /// The host:port in INFO, by which clients reach this server [default: --addr and --port]
    #[arg(long, alias = "client_advertise", value_name = "HOST:PORT")]
    advertise: Option<String>,

    /// User name that clients must send, with --pass
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    user: Option<String>,

    /// Password of the user of --user
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pass: Option<Secret>,

    /// Token that clients must send
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    auth: Option<Secret>,
}

/// The flags for TLS. Each of them switches TLS on, except a switch with `=false`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS for clients")]
struct TlsFlags {
    /// Require TLS of clients
    #[arg(long)]
    tls: bool,

    /// Certificate of this server, PEM
    #[arg(long, value_name = "FILE")]
    tlscert: Option<String>,

    /// Private key of the certificate, PEM
    #[arg(long, value_name = "FILE")]
    tlskey: Option<String>,

    /// Require certificates of clients
    #[arg(long)]
    tlsverify: bool,

    // nats-server prints only the help of the TLS flags. Here it is the whole help.
    #[arg(long = "help_tls", hide = true, action = ArgAction::Help)]
    help_tls: Option<bool>,

    /// Authorities that certify clients, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<String>,
}

/// The flags for the connections to other nodes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterFlags {
    /// Join a cluster: the URL to listen on for other nodes, nats://[user:password@]host:port; port -1: any free one
    #[arg(long, visible_alias = "cluster_listen", value_name = "URL")]
    cluster: Option<Secret>,

    /// Name of the cluster, the same for all nodes
    #[arg(long = "cluster_name", alias = "cluster-name", value_name = "NAME")]
    cluster_name: Option<String>,

    /// The host:port by which other nodes reach this one [default: that of --cluster]
    #[arg(
        long = "cluster_advertise",
        alias = "cluster-advertise",
        value_name = "HOST:PORT"
    )]
    cluster_advertise: Option<String>,

    /// Other nodes, nats://[user:password@]host:port,…
    #[arg(long, value_name = "URLS")]
    routes: Option<Secret>,

    /// Do not send clients the addresses of the other nodes
    #[arg(long = "no_advertise", alias = "no-advertise")]
    no_advertise: bool,

    /// ZooKeeper servers, by which nodes and sidecars find each other
    #[arg(long, value_name = "HOSTS[/chroot]")]
    zookeeper: Option<String>,

    /// The znode under which nodes register [default: /standin/nodes]
    #[arg(long, alias = "zookeeper_path", value_name = "PATH")]
    zookeeper_path: Option<String>,
}

/// The flags for operators.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Operation")]
pub struct OperationFlags {
    /// Port for the pages /varz /connz /subsz /routez /healthz /metrics, on --addr; -1: any free one [default: none]
    #[arg(short = 'm', long = "http_port", alias = "http-port", value_name = "N", value_parser = number)]
    http_port: Option<i64>,

    /// Port for the pages over HTTPS, with the certificate of --tlscert; -1: any free one [default: none]
    #[arg(long = "https_port", visible_alias = "ms", alias = "https-port", value_name = "N", value_parser = number)]
    https_port: Option<i64>,

    /// File to write the process id to
    #[arg(short = 'P', long, value_name = "FILE")]
    pid: Option<String>,

    /// Folder for the file standin-broker_PID.ports, which lists the ports in use
    #[arg(long = "ports_file_dir", alias = "ports-file-dir", value_name = "DIR")]
    ports_file_dir: Option<String>,

    /// File for the log; USR1 reopens it [default: standard error]
    #[arg(short = 'l', long, value_name = "FILE")]
    log: Option<String>,

    /// Log at level debug: connections of clients and other nodes
    #[arg(short = 'D', long)]
    debug: bool,

    /// Log at level trace: every frame
    #[arg(short = 'V', long)]
    trace: bool,

    #[arg(long = "DV", hide = true)]
    debug_and_trace: bool,

    // In nats-server, also traces the frames of the system account.
    #[arg(long = "VV", hide = true)]
    trace_verbose: bool,

    #[arg(long = "DVV", hide = true)]
    debug_and_trace_verbose: bool,

    /// Send a signal to a running server and exit: stop (SIGKILL), quit (SIGINT), term (SIGTERM), reload (SIGHUP), reopen (SIGUSR1),
    /// ldm (SIGUSR2). PID: a process id, a pid file, or the first digits of process ids and `*`. Without PID: the only running server
    #[arg(long, visible_alias = "sl", value_name = "COMMAND[=PID]")]
    pub signal: Option<String>,

    /// Check the settings and exit: 0 if they are valid, 64 and the errors if not
    #[arg(short = 't', long)]
    pub check: bool,

    /// Print the settings in force, each with its source, and exit
    #[arg(long, alias = "print_config")]
    pub print_config: bool,
}

impl OperationFlags {
    /// Returns the port of --http_port; `None` for 0. As in nats-server, 0 switches the pages off, even if a settings file has a port.
    fn http_port(&self) -> Option<i64> {
        self.http_port.filter(|port| *port != 0)
    }

    /// Returns the port of --https_port. 0 means "not given".
    fn https_port(&self) -> Option<i64> {
        self.https_port.filter(|port| *port != 0)
    }
}

impl Cli {
    /// Parses a command line. The first argument is the name of the program.
    ///
    /// # Errors
    /// [`CliMessage`]: the text to be printed, with the exit code. Includes `--help` and `--version`.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, CliMessage> {
        let mut command = Self::command();
        command.build();
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        if arguments
            .get(1)
            .is_some_and(|word| command.find_subcommand(word).is_some())
        {
            let matches = command.try_get_matches_from_mut(arguments)?;
            return Ok(Self::from_arg_matches(&matches)?);
        }
        let words = words::read(arguments, &mut command)?;
        let matches = command.try_get_matches_from_mut(words.arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.off = words.off;
        let refusals = cli.unsupported.refusals();
        if !refusals.is_empty() {
            let message = refusals.join("\nerror: ");
            return Err(command.error(ErrorKind::UnknownArgument, message).into());
        }
        let operation = &cli.operation;
        if operation.http_port().and(operation.https_port()).is_some() {
            let message = "flags --http_port (-m) and --https_port (-ms) are both given; keep one";
            return Err(command.error(ErrorKind::ArgumentConflict, message).into());
        }
        Ok(cli)
    }

    /// Returns the settings file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let file = self.config.as_deref().filter(|path| !path.is_empty());
        file.map(Path::new)
    }

    /// Loads the settings from the defaults, the file of `--config`, the environment and these flags; the later ones override. Called at the
    /// start and at each SIGHUP.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn settings(&self) -> Result<Loaded<Settings>, SettingsError> {
        // Variables that are not UTF-8 cannot be settings. They are skipped, because env::vars would panic.
        let environment = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let input = Input {
            file: self.file(),
            environment: environment.collect(),
            flags: self.flags(),
            implied: self.implied(),
        };
        let mut loaded: Loaded<Settings> = input.load()?;
        loaded.warnings.extend(self.unsupported.warnings(&self.off));
        loaded.warnings.extend(loaded.settings.warnings());
        Ok(loaded)
    }

    /// Returns the given flags as keys of the settings.
    fn flags(&self) -> Vec<Flag> {
        let (clients, cluster, operation) = (&self.clients, &self.cluster, &self.operation);
        let (user_info, listen) = cluster
            .cluster
            .as_ref()
            .map(|url| split_url(url.reveal()))
            .unzip();
        // Invalid user info becomes a user with an empty password; the settings check refuses it.
        let given = user_info.flatten().map(|user_info| {
            credentials(user_info).unwrap_or_else(|_| (user_info.to_owned(), Secret::default()))
        });
        let (user, password) = given.unzip();
        // As in nats-server, an empty address means 0.0.0.0. Port 0 means "not given".
        let addr = clients
            .addr
            .as_deref()
            .map(|addr| if addr.is_empty() { "0.0.0.0" } else { addr });
        let port = clients.port.filter(|port| *port != 0);
        let texts = [
            ("cluster.listen", "--cluster", listen),
            ("cluster.user", "--cluster", user.as_deref()),
            (
                "cluster.password",
                "--cluster",
                password.as_ref().map(Secret::reveal),
            ),
            ("cluster.name", "--cluster_name", cluster.cluster_name.as_deref()),
            (
                "cluster.advertise",
                "--cluster_advertise",
                cluster.cluster_advertise.as_deref(),
            ),
            ("nodes.zookeeper", "--zookeeper", cluster.zookeeper.as_deref()),
            (
                "nodes.zookeeper_path",
                "--zookeeper-path",
                cluster.zookeeper_path.as_deref(),
            ),
            ("addr", "--addr", addr),
            ("server_name", "--name", clients.name.as_deref()),
            ("advertise", "--advertise", clients.advertise.as_deref()),
            ("authorization.user", "--user", clients.user.as_deref()),
            (
                "authorization.password",
                "--pass",
                clients.pass.as_ref().map(Secret::reveal),
            ),
            (
                "authorization.token",
                "--auth",
                clients.auth.as_ref().map(Secret::reveal),
            ),
            ("process.pid_file", "--pid", operation.pid.as_deref()),
            (
                "process.ports_file_dir",
                "--ports_file_dir",
                operation.ports_file_dir.as_deref(),
            ),
            ("log.file", "--log", operation.log.as_deref()),
        ];
        let texts = texts.map(|(key, flag, text)| Some((key, flag, Value::String(text?.to_owned()))));
        let routes = cluster.routes.as_ref().map(|text| {
            let given = (!text.is_empty()).then(|| Value::String(text.reveal().to_owned()));
            Value::Array(given.into_iter().collect())
        });
        let no_advertise = cluster.no_advertise || self.is_off("no_advertise");
        let no_advertise = no_advertise.then_some(Value::Boolean(cluster.no_advertise));
        let http_port = operation.http_port.map(Value::Integer);
        let https_port = operation.https_port();
        let https_mode = https_port.map(|_| Value::String("required".to_owned()));
        let level = self.level();
        let others = [
            port.map(|port| ("port", "--port", Value::Integer(port))),
            http_port.map(|port| ("http.port", "--http_port", port)),
            https_port.map(|port| ("http.port", "--https_port", Value::Integer(port))),
            https_mode.map(|mode| ("tls.http.mode", "--https_port", mode)),
            level.map(|(flag, level)| ("log.level", flag, Value::String(level.to_owned()))),
            routes.map(|routes| ("cluster.routes", "--routes", routes)),
            no_advertise.map(|flag| ("cluster.no_advertise", "--no_advertise", flag)),
        ];
        let given = texts.into_iter().chain(others).chain(self.tls_flags()).flatten();
        given
            .map(|(key, flag, value)| Flag { key, flag, value })
            .collect()
    }

    /// Returns the values that the given flags imply for keys that nothing else sets. As in nats-server, if a flag sets the port of the
    /// pages, they are served on the address for clients. (If a TOML file sets the port, the default is a loopback address.)
    fn implied(&self) -> Vec<Flag> {
        let http = self.operation.http_port().map(|_| "--http_port");
        let flag = http.or(self.operation.https_port().map(|_| "--https_port"));
        let (key, value) = ("http.addr", Value::String(String::new()));
        flag.map(|flag| Flag { key, flag, value }).into_iter().collect()
    }

    /// Returns the flags for TLS. With `--tls=false` the others have no effect, as in nats-server.
    fn tls_flags(&self) -> Vec<Option<(&'static str, &'static str, Value)>> {
        let TlsFlags {
            tls,
            tlscert,
            tlskey,
            tlsverify,
            tlscacert,
            ..
        } = &self.tls;
        let mode = |mode: &str| Some(("tls.client.mode", "--tls", Value::String(mode.to_owned())));
        if self.is_off("tls") {
            return vec![mode("off")];
        }
        let file = |key, flag, file: &Option<String>| Some((key, flag, Value::String(file.clone()?)));
        let mut flags = vec![
            file("tls.client.cert_file", "--tlscert", tlscert),
            file("tls.client.key_file", "--tlskey", tlskey),
            file("tls.client.ca_file", "--tlscacert", tlscacert),
            tlsverify.then_some(("tls.client.verify", "--tlsverify", Value::Boolean(true))),
        ];
        if *tls || flags.iter().any(Option::is_some) {
            flags.push(mode("required"));
        }
        flags
    }

    /// Returns the log level that the switches set, with the flag for error texts. If none is on, a switch with `=false` sets info, which
    /// overrides `debug: true` of the file.
    fn level(&self) -> Option<(&'static str, &'static str)> {
        let flags = &self.operation;
        let trace =
            flags.trace || flags.debug_and_trace || flags.trace_verbose || flags.debug_and_trace_verbose;
        let off = ["debug", "trace", "DV", "VV", "DVV"]
            .into_iter()
            .any(|flag| self.is_off(flag));
        let levels = [
            ("-V", "trace", trace),
            ("-D", "debug", flags.debug),
            ("-D=false", "info", off),
        ];
        let (flag, level, _) = levels.into_iter().find(|(.., given)| *given)?;
        Some((flag, level))
    }

    /// Returns whether the switch was given with `=false`.
    fn is_off(&self, switch: &str) -> bool {
        self.off.iter().any(|off| off == switch)
    }
}

#[cfg(test)]
mod tests;
