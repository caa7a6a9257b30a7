//! The command line. It has the flags of `nats-server`, so that start scripts for `nats-server` work. Flags override all other settings.
//!
//! `words` parses it as `nats-server` does. The supported flags are in this file, the flags of unsupported features in `unsupported`.
//! [`signal`] is the command `--signal`.

pub mod signal;
mod unsupported;
mod words;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
pub use standin_daemon::cli::{CliMessage, EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE};
use toml::Value;

use self::unsupported::UnsupportedFlags;
use self::words::number;
use crate::settings::{Flag, Input, Loaded, Settings, SettingsError, credentials, split_url};

const AFTER_HELP: &str = "\
The flags and their values are those of nats-server, with one dash or two: -port 4222, --port=4222, -p -1, -DV, -D=false. The settings
file is TOML: deploy/broker.toml lists every key with its default. A file *.conf is read in the format of nats-server. Flags and keys
of nats-server for unsupported features (TLS, JetStream, accounts, syslog, profiling, ...) are errors that name the feature.

Environment: STANDIN_<SECTION>_<KEY> for each key of the settings file.
Signals: INT stops the server. TERM stops it too, but in a cluster it starts lame duck mode. USR2 starts lame duck mode: clients are
notified, get time to reconnect, are closed one by one, and the process exits. HUP reloads the settings. USR1 reopens the log file.
Exit codes: 0 success, 64 bad usage or settings, 69 cannot listen, join the cluster or send the signal, 70 internal error.

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
    after_help = AFTER_HELP,
    max_term_width = 110
)]
pub struct Cli {
    /// Settings file (TOML, or *.conf in the format of nats-server)
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<OsString>,

    /// Address to listen on [default: 0.0.0.0]
    #[arg(short = 'a', long, alias = "net", value_name = "IP", help_heading = "Clients")]
    addr: Option<String>,

    /// Port to listen on for clients; -1: any free one [default: 4222]
    #[arg(
        short = 'p',
        long,
        value_name = "N",
        value_parser = number,
        help_heading = "Clients"
    )]
    port: Option<i64>,

    /// Name of this server [default: the server id]
    #[arg(
        short = 'n',
        long = "name",
        visible_alias = "server_name",
        value_name = "NAME",
        help_heading = "Clients"
    )]
    name: Option<String>,

    /// The host:port in INFO, by which clients reach this server [default: the address they connected to]
    #[arg(
        long,
        alias = "client_advertise",
        value_name = "HOST:PORT",
        help_heading = "Clients"
    )]
    advertise: Option<String>,

    /// User name that clients must send, with --pass
    #[arg(
        long,
        value_name = "USER",
        allow_hyphen_values = true,
        help_heading = "Clients"
    )]
    user: Option<String>,

    /// Password of the user of --user
    #[arg(
        long,
        value_name = "PASSWORD",
        allow_hyphen_values = true,
        help_heading = "Clients"
    )]
    pass: Option<String>,

    /// Token that clients must send
    #[arg(
        long,
        value_name = "TOKEN",
        allow_hyphen_values = true,
        help_heading = "Clients"
    )]
    auth: Option<String>,

    /// Join a cluster: the URL to listen on for other nodes, nats://[user:password@]host:port; port -1: any free one
    #[arg(
        long,
        visible_alias = "cluster_listen",
        value_name = "URL",
        help_heading = "Cluster"
    )]
    cluster: Option<String>,

    /// Name of the cluster, the same for all nodes
    #[arg(
        long = "cluster_name",
        alias = "cluster-name",
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    cluster_name: Option<String>,

    /// The host:port by which other nodes reach this one [default: that of --cluster]
    #[arg(
        long = "cluster_advertise",
        alias = "cluster-advertise",
        value_name = "HOST:PORT",
        help_heading = "Cluster"
    )]
    cluster_advertise: Option<String>,

    /// Other nodes, nats://[user:password@]host:port,…
    #[arg(long, value_name = "URLS", help_heading = "Cluster")]
    routes: Option<String>,

    /// Do not send clients the addresses of the other nodes
    #[arg(long = "no_advertise", alias = "no-advertise", help_heading = "Cluster")]
    no_advertise: bool,

    /// ZooKeeper servers, by which nodes and sidecars find each other
    #[arg(long, value_name = "HOSTS[/chroot]", help_heading = "Cluster")]
    zookeeper: Option<String>,

    /// The znode under which nodes register [default: /standin/nodes]
    #[arg(
        long = "zookeeper-path",
        alias = "zookeeper_path",
        value_name = "PATH",
        help_heading = "Cluster"
    )]
    zookeeper_path: Option<String>,

    /// Port for the pages /varz /connz /subsz /routez /healthz /metrics; -1: any free one [default: none]
    #[arg(
        short = 'm',
        long = "http_port",
        alias = "http-port",
        value_name = "N",
        value_parser = number,
        help_heading = "Operation"
    )]
    http_port: Option<i64>,

    /// File to write the process id to
    #[arg(short = 'P', long, value_name = "FILE", help_heading = "Operation")]
    pid: Option<String>,

    /// Folder for the file standin-broker_PID.ports, which lists the ports in use
    #[arg(
        long = "ports_file_dir",
        alias = "ports-file-dir",
        value_name = "DIR",
        help_heading = "Operation"
    )]
    ports_file_dir: Option<String>,

    /// File for the log; USR1 reopens it [default: standard error]
    #[arg(short = 'l', long, value_name = "FILE", help_heading = "Operation")]
    log: Option<String>,

    /// Log at level debug: connections of clients and other nodes
    #[arg(short = 'D', long, help_heading = "Operation")]
    debug: bool,

    /// Log at level trace: every frame
    #[arg(short = 'V', long, help_heading = "Operation")]
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
    #[arg(
        long,
        visible_alias = "sl",
        value_name = "COMMAND[=PID]",
        help_heading = "Operation"
    )]
    pub signal: Option<String>,

    /// Check the settings and exit: 0 if they are valid, 64 and the errors if not
    #[arg(short = 't', long, help_heading = "Operation")]
    pub check: bool,

    /// Print the settings in force, each with its source, and exit
    #[arg(long, alias = "print_config", help_heading = "Operation")]
    pub print_config: bool,

    /// Print the version and exit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    unsupported: UnsupportedFlags,

    /// Switches that were given with `=false`.
    #[arg(skip)]
    off: Vec<String>,
}

impl Cli {
    /// Parses a command line. The first argument is the name of the program.
    ///
    /// # Errors
    /// [`CliMessage`]: the text to be printed, with the exit code. Includes `--help` and `--version`.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, CliMessage> {
        let mut command = Self::command();
        command.build();
        let words = words::read(arguments, &mut command)?;
        let matches = command.try_get_matches_from_mut(words.arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.off = words.off;
        let refusals = cli.unsupported.refusals(&cli.off);
        if !refusals.is_empty() {
            let message = refusals.join("\nerror: ");
            return Err(command.error(ErrorKind::UnknownArgument, message).into());
        }
        Ok(cli)
    }

    /// Returns the path of the settings file, if it is given.
    fn file(&self) -> Option<PathBuf> {
        self.config
            .as_ref()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
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
        let file = self.file();
        let input = Input {
            file: file.as_deref(),
            environment: environment.collect(),
            flags: self.flags(),
        };
        let mut loaded: Loaded<Settings> = input.load()?;
        loaded.warnings.extend(self.unsupported.warnings(&self.off));
        loaded.warnings.extend(loaded.settings.warnings());
        Ok(loaded)
    }

    /// Returns the given flags as keys of the settings.
    fn flags(&self) -> Vec<Flag> {
        let (user_info, listen) = match self.cluster.as_deref() {
            Some(text) => {
                let (user_info, listen) = split_url(text);
                (user_info, Some(listen.to_owned()))
            }
            None => (None, None),
        };
        // Invalid user info becomes a user with an empty password; the settings check refuses it.
        let given = user_info.map(|user_info| {
            credentials(user_info).unwrap_or_else(|_| (user_info.to_owned(), String::new()))
        });
        let (user, password) = given.unzip();
        let texts = [
            ("cluster.listen", "--cluster", &listen),
            ("cluster.user", "--cluster", &user),
            ("cluster.password", "--cluster", &password),
            ("cluster.name", "--cluster_name", &self.cluster_name),
            (
                "cluster.advertise",
                "--cluster_advertise",
                &self.cluster_advertise,
            ),
            ("nodes.zookeeper", "--zookeeper", &self.zookeeper),
            ("nodes.zookeeper_path", "--zookeeper-path", &self.zookeeper_path),
            ("addr", "--addr", &self.addr),
            ("server_name", "--name", &self.name),
            ("advertise", "--advertise", &self.advertise),
            ("authorization.user", "--user", &self.user),
            ("authorization.password", "--pass", &self.pass),
            ("authorization.token", "--auth", &self.auth),
            ("process.pid_file", "--pid", &self.pid),
            ("process.ports_file_dir", "--ports_file_dir", &self.ports_file_dir),
            ("log.file", "--log", &self.log),
        ];
        let texts = texts.into_iter().filter_map(|(key, flag, text)| {
            let text = match (key, text.as_deref()?) {
                // As in nats-server, an empty value means "not given".
                ("addr", "") => "0.0.0.0",
                (_, text) => text,
            };
            let value = Value::String(text.to_owned());
            Some(Flag { key, flag, value })
        });
        let numbers = [
            // As in nats-server, 0 means "not given".
            ("port", "--port", self.port.filter(|port| *port != 0)),
            ("http.port", "--http_port", self.http_port),
        ];
        let numbers = numbers.into_iter().filter_map(|(key, flag, number)| {
            let value = Value::Integer(number?);
            Some(Flag { key, flag, value })
        });
        let routes = self.routes.as_deref().map(|text| {
            let routes = text.split(',').map(str::trim).filter(|route| !route.is_empty());
            let mut routes: Vec<Value> = routes.map(|route| Value::String(route.to_owned())).collect();
            if routes.is_empty() && !text.is_empty() {
                // A value of only commas or blanks is kept, so that the settings check refuses it as a route.
                routes.push(Value::String(text.to_owned()));
            }
            Flag {
                key: "cluster.routes",
                flag: "--routes",
                value: Value::Array(routes),
            }
        });
        let advertised = self.off.iter().any(|off| off == "no_advertise");
        let no_advertise = (self.no_advertise || advertised).then_some(Flag {
            key: "cluster.no_advertise",
            flag: "--no_advertise",
            value: Value::Boolean(self.no_advertise),
        });
        texts
            .chain(numbers)
            .chain(self.level())
            .chain(routes)
            .chain(no_advertise)
            .collect()
    }

    /// Returns the log level that the switches set. If none is on, a switch with `=false` sets info, which overrides `debug: true` of the
    /// file.
    fn level(&self) -> Option<Flag> {
        let trace = self.trace || self.debug_and_trace || self.trace_verbose || self.debug_and_trace_verbose;
        let switches = ["debug", "trace", "DV", "VV", "DVV"];
        let off = self.off.iter().any(|off| switches.contains(&off.as_str()));
        let levels = [
            ("trace", "-V", trace),
            ("debug", "-D", self.debug),
            ("info", "-D=false", off),
        ];
        let (level, flag, _) = levels.into_iter().find(|(.., given)| *given)?;
        Some(Flag {
            key: "log.level",
            flag,
            value: Value::String(level.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests;
