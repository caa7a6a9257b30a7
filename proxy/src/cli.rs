//! The command line. Its flags override the settings file and the environment.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "clap prints the comments of the flags as help"
)]

mod subcommand;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
pub use standin_daemon::cli::{CliMessage, EXIT_BUG, EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE};
use standin_daemon::settings::Secret;
use toml::Value;

pub use self::subcommand::{Command, ViewFlags};
use crate::settings::{Flag, Input, Loaded, Settings, SettingsError};

const AFTER_HELP: &str = "\
Nodes are used in this order: the nodes now in ZooKeeper or DNS, the last known list, --upstream.
At least one of --zookeeper, --dns, --upstream is needed, here or in the settings file.

Environment: STANDIN_<SECTION>_<KEY> for each key of the settings file; NATS_URL is read as --upstream.
Signals: HUP reloads the settings. USR2 replaces the running program by the one on disk, with all connections kept.
TERM and INT stop the sidecar gracefully.
Exit codes: 0 success, 64 bad usage or settings, 69 cannot listen or start its threads, 70 internal error.

Before the first start, and when something is wrong: standin-proxy doctor with the same flags.

Examples:
  standin-proxy --upstream nats://10.0.0.1:4222
  standin-proxy --zookeeper zk1:2181,zk2:2181,zk3:2181 --cache /var/lib/standin/nodes.json --http 127.0.0.1:8222";

/// The sidecar: keeps components that know one NATS address connected to a live node of a cluster.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "standin-proxy", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// Settings file (TOML). deploy/proxy.toml has every key with its default
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address on which the sidecar listens for components, or "unix:/path". Several: separated by commas, or repeat the flag
    /// [default: 127.0.0.1:4222 and [::1]:4222]
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Components")]
    pub listen: Vec<String>,

    /// ZooKeeper servers where the nodes are registered, "host:port,host:port"
    #[arg(long, global = true, value_name = "HOSTS[/chroot]", help_heading = "Nodes")]
    pub zookeeper: Option<String>,

    /// Znode whose children are the nodes [default: /standin/nodes]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Nodes")]
    pub zookeeper_path: Option<String>,

    /// Address of a node, "nats://[user:password@]host[:port]". Several: separated by commas, or repeat the flag
    #[arg(long, global = true, value_name = "URL", help_heading = "Nodes")]
    pub upstream: Vec<Secret>,

    /// DNS name whose addresses are nodes, or "_nats._tcp.name" for SRV records. Several: separated by commas, or repeat
    /// the flag
    #[arg(long, global = true, value_name = "NAME:PORT", help_heading = "Nodes")]
    pub dns: Vec<String>,

    /// File for the last known list of nodes, for a start while ZooKeeper is down [default: none]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Nodes")]
    pub cache: Option<String>,

    /// Address of the HTTP pages /healthz, /readyz, /metrics, /sessionz, /nodez: host:port, or a port of 127.0.0.1 [default: no pages]
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Operation")]
    pub http: Option<String>,

    /// Run N broker nodes (default 1) in this process and use only them: for trials and development, not for production
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_parser = embedded_count,
        conflicts_with_all = ["zookeeper", "upstream", "dns", "cache"],
        help_heading = "Nodes"
    )]
    pub embedded: Option<usize>,

    /// Addresses of the embedded nodes.
    #[arg(skip)]
    pub embedded_urls: Vec<String>,

    /// Check the settings and exit: code 0 if they are valid, else 64 and the errors
    #[arg(long, help_heading = "Operation")]
    pub check: bool,

    /// Print the settings in force, each with its origin, and exit
    #[arg(long, help_heading = "Operation")]
    pub print_config: bool,

    /// The subcommand; without one, the sidecar runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Returns the definition of the whole command line with its subcommands, from which manual pages and completions are made.
    #[must_use]
    pub fn definition() -> clap::Command {
        Self::command()
    }

    /// Parses a command line whose first argument is the program's name.
    ///
    /// # Errors
    /// [`CliMessage`]: the text to be printed, with the exit code. It is also returned for `--help` and `--version`.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, CliMessage> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let read = Self::try_parse_from(&arguments);
        read.map_err(|error| CliMessage::from(with_embedded_tip(error, &arguments)))
    }

    /// Loads the settings: the defaults, overridden by the file of `--config`, the environment and the flags. Called again
    /// at SIGHUP.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn settings(&self) -> Result<Loaded<Settings>, SettingsError> {
        self.input().load()
    }

    /// Loads the settings for a subcommand that only reads pages of the running sidecar: they need no source of nodes.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn settings_for_view(&self) -> Result<Settings, SettingsError> {
        Ok(self.input().load_incomplete()?.settings)
    }

    fn input(&self) -> Input<'_> {
        // A variable that is not UTF-8 is ignored. `env::vars` would panic on it.
        let environment = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Input {
            file: self.config.as_deref().map(Path::new),
            environment: environment.collect(),
            flags: self.flags(),
            ..Input::default()
        }
    }

    /// Returns the given flags as overrides of the settings.
    fn flags(&self) -> Vec<Flag> {
        let single = [
            ("nodes.zookeeper", "--zookeeper", &self.zookeeper),
            ("nodes.zookeeper_path", "--zookeeper-path", &self.zookeeper_path),
            ("nodes.cache_file", "--cache", &self.cache),
            ("http.listen", "--http", &self.http),
        ];
        let upstream = self.upstream.iter().map(|url| url.reveal().to_owned()).collect();
        let lists = [
            ("listen", "--listen", &self.listen),
            ("nodes.upstream", "--upstream", &upstream),
            ("nodes.upstream", "--embedded", &self.embedded_urls),
            ("nodes.dns", "--dns", &self.dns),
        ];
        let single = single.into_iter().filter_map(|(key, flag, text)| {
            let value = Value::from(text.clone()?);
            Some(Flag { key, flag, value })
        });
        let lists = lists.into_iter().filter(|(.., texts)| !texts.is_empty());
        let lists = lists.map(|(key, flag, texts)| {
            let value = Value::from(texts.clone());
            Flag { key, flag, value }
        });
        // The file and the environment may name other sources of nodes, which would come first.
        let cleared = [
            ("nodes.zookeeper", Value::from("")),
            ("nodes.dns", Value::Array(Vec::new())),
            ("nodes.cache_file", Value::from("")),
        ];
        let cleared = cleared.into_iter().filter(|_| !self.embedded_urls.is_empty());
        let flag = "--embedded";
        let cleared = cleared.map(|(key, value)| Flag { key, flag, value });
        single.chain(lists).chain(cleared).collect()
    }
}

/// Adds a tip to the error for `--embedded 3`, because the optional value must follow a `=`.
fn with_embedded_tip(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let mut pairs = arguments.windows(2);
    let next = pairs.find_map(|pair| pair[1].to_str().filter(|_| pair[0] == "--embedded"));
    // After a flag, clap takes the number for a subcommand or, if more flags follow, for an argument.
    let strange = match error.kind() {
        ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
        _ => None,
    };
    let strange = match strange {
        Some(ContextValue::String(strange)) => Some(strange.as_str()),
        _ => None,
    };
    if let Some(count) = next.filter(|next| strange == Some(*next)) {
        let tip = format!("to run {count} embedded nodes, write '--embedded={count}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn embedded_count(text: &str) -> Result<usize, String> {
    let max = crate::embedded::NODES_MAX;
    match text.parse() {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => Err(format!("the number of embedded nodes must be 1 to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, CliMessage> {
        Cli::read(
            std::iter::once("standin-proxy")
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    #[test]
    fn the_definition_of_the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_its_key() {
        let cli = read(
            "--listen 127.0.0.1:1 --listen [::1]:2 --zookeeper z:2181/c --zookeeper-path /n --upstream a:1,a:2 \
             --upstream b:2 --dns n:3 --cache /c --http 127.0.0.1:9",
        )
        .unwrap();
        let input = Input {
            flags: cli.flags(),
            ..Input::default()
        };
        let settings = input.load::<Settings>().unwrap().settings;
        assert_eq!(settings.listen, ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(settings.nodes.zookeeper, "z:2181/c");
        assert_eq!(settings.nodes.zookeeper_path, "/n");
        let upstream: Vec<_> = settings.nodes.upstream.iter().map(|url| url.reveal()).collect();
        assert_eq!(upstream, ["a:1", "a:2", "b:2"]);
        assert_eq!(settings.nodes.dns, ["n:3"]);
        assert_eq!(settings.nodes.cache_file, Path::new("/c"));
        assert_eq!(settings.http.listen, "127.0.0.1:9");
    }

    #[test]
    fn debug_shows_no_secret() {
        let cli = read("--upstream nats://u:hunter2@h:1").unwrap();
        let loaded = cli.settings().unwrap();
        let registry = loaded.settings.registry_config().unwrap();
        let shown = format!("{cli:?} {loaded:?} {registry:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn embedded_nodes_are_a_source_and_exclude_other_sources() {
        assert_eq!(read("--embedded").unwrap().embedded, Some(1));
        assert_eq!(read("--embedded=1").unwrap().embedded, Some(1));
        assert_eq!(read("--listen 127.0.0.1:1").unwrap().embedded, None);
        for line in [
            "--embedded=0",
            "--embedded=x",
            "--embedded --upstream a:1",
            "--embedded --cache /c",
            "--embedded 1",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), EXIT_USAGE, "{line}");
        }
        let text = read("--embedded 3").unwrap_err().text();
        assert!(
            text.contains("tip: to run 3 embedded nodes, write '--embedded=3'"),
            "{text}"
        );
        let text = read("--embedded --check 3").unwrap_err().text();
        assert!(!text.contains("embedded nodes"), "{text}");
        let cli = Cli {
            embedded_urls: vec!["nats://127.0.0.1:7".to_owned()],
            ..Cli::default()
        };
        let environment = [
            ("NATS_URL", "nats://elsewhere:1"),
            ("STANDIN_NODES_ZOOKEEPER", "elsewhere:2181"),
            ("STANDIN_NODES_DNS", "elsewhere:1"),
            ("STANDIN_NODES_CACHE_FILE", "/c"),
        ];
        let input = Input {
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            flags: cli.flags(),
            ..Input::default()
        };
        let config = input
            .load::<Settings>()
            .unwrap()
            .settings
            .registry_config()
            .unwrap();
        assert_eq!(config.fixed.len(), 1);
        assert_eq!(config.fixed[0].endpoint.to_string(), "127.0.0.1:7");
        assert!(config.zookeeper.is_none() && config.dns.is_empty() && config.cache_file.is_none());
    }

    #[test]
    fn help_and_version_exit_with_0_and_bad_usage_with_64() {
        for (line, code) in [
            ("--help", EXIT_DONE),
            ("-h", EXIT_DONE),
            ("--version", EXIT_DONE),
            ("--nonsense", EXIT_USAGE),
            ("--http", EXIT_USAGE),
            ("stray", EXIT_USAGE),
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), code, "{line}");
        }
    }
}
