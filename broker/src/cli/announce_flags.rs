//! The flags of `standin-broker announce`. Each flag except `--check` can also be set by an environment variable, for a systemd unit.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use standin_daemon::settings::{Secret, SettingsError, ZooKeeperAuth};
use standin_registry::{Endpoint, ZnodeReaders, ZooKeeperConfig};

/// Registers a nats-server in ZooKeeper as long as it serves
///
/// Runs beside an unmodified nats-server, on the same host. Connects to it as a client, and keeps its record in ZooKeeper while it answers:
/// the record is deleted when the server ends or stops answering, and says "draining" when the server enters lame duck mode.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Signals: INT and TERM delete the record and end the program.
Exit codes: 0 success, 64 bad usage, 69 the check failed or another node has registered under this id, 70 internal error.

Examples:
  standin-broker announce --node 10.0.0.1:4222 --zookeeper 10.0.0.7:2181,10.0.0.8:2181,10.0.0.9:2181
  standin-broker announce --node 127.0.0.1:4222 --advertise nats-1.example.org:4222 --zookeeper zk:2181 --user sys --password-file FILE
  standin-broker announce --node 10.0.0.1:4222 --check")]
pub struct AnnounceFlags {
    /// The nats-server, by its address for clients
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_NODE",
        value_name = "[nats://]HOST:PORT",
        value_parser = client_endpoint
    )]
    pub node: Endpoint,

    /// Its monitoring port; /healthz there must answer 200
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_HTTP",
        value_name = "[http://]HOST:PORT",
        value_parser = http_endpoint
    )]
    pub http: Option<Endpoint>,

    /// The address by which clients reach the server [default: --node]
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_ADVERTISE",
        value_name = "[nats://]HOST:PORT",
        value_parser = client_endpoint
    )]
    pub advertise: Option<Endpoint>,

    /// Id of the record [default: the name of the server in INFO]
    #[arg(long, env = "STANDIN_ANNOUNCE_ID", value_name = "ID")]
    pub id: Option<String>,

    /// Zone in which the server runs
    #[arg(long, env = "STANDIN_ANNOUNCE_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,

    /// Share of the clients, relative to other nodes
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_WEIGHT",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub weight: u32,

    /// Check the server once, print the result, and exit: 0 if it serves, 69 if not
    #[arg(short = 't', long)]
    pub check: bool,

    /// See [`ZooKeeperFlags`].
    #[command(flatten)]
    pub zookeeper: ZooKeeperFlags,
    /// See [`LoginFlags`].
    #[command(flatten)]
    pub login: LoginFlags,
    /// See [`NodeTlsFlags`].
    #[command(flatten)]
    pub tls: NodeTlsFlags,
    /// See [`CheckFlags`].
    #[command(flatten)]
    pub checks: CheckFlags,
}

/// The flags for ZooKeeper.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ZooKeeper")]
pub struct ZooKeeperFlags {
    /// ZooKeeper servers
    #[arg(
        long = "zookeeper",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER",
        value_name = "HOSTS[/chroot]",
        required_unless_present = "check"
    )]
    pub hosts: Option<String>,

    /// The znode under which nodes register
    #[arg(
        long = "zookeeper-path",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER_PATH",
        value_name = "PATH",
        default_value = "/standin/nodes"
    )]
    pub path: String,

    /// Time after which ZooKeeper deletes the record if this program has died
    #[arg(
        long = "zookeeper-session-timeout-ms",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER_SESSION_TIMEOUT_MS",
        value_name = "MS",
        default_value_t = 6000
    )]
    pub session_timeout_ms: u64,

    /// Digest credentials for ZooKeeper
    #[arg(
        long = "zookeeper-auth",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER_AUTH",
        hide_env_values = true,
        value_name = "USER:PASSWORD"
    )]
    pub auth: Option<Secret>,

    /// File with these credentials
    #[arg(
        long = "zookeeper-auth-file",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER_AUTH_FILE",
        conflicts_with = "auth",
        value_name = "FILE"
    )]
    pub auth_file: Option<PathBuf>,

    /// With credentials: who may read the record
    #[arg(
        long = "zookeeper-readers",
        env = "STANDIN_ANNOUNCE_ZOOKEEPER_READERS",
        value_name = "WHO",
        default_value = "all"
    )]
    pub readers: Readers,
}

impl ZooKeeperFlags {
    /// Returns the configuration of the ensemble; `None` without `--zookeeper`.
    ///
    /// # Errors
    /// The file of the credentials cannot be used.
    pub fn config(&self) -> Result<Option<ZooKeeperConfig>, SettingsError> {
        let Some(hosts) = &self.hosts else {
            return Ok(None);
        };
        let (auth, file) = (
            self.auth.clone().unwrap_or_default(),
            self.auth_file.clone().unwrap_or_default(),
        );
        let auth = ZooKeeperAuth::new(&auth, &file);
        Ok(Some(ZooKeeperConfig {
            path: self.path.clone(),
            session_timeout_ms: self.session_timeout_ms,
            digest_auth: auth.read()?,
            readers: match self.readers {
                Readers::All => ZnodeReaders::All,
                Readers::Creator => ZnodeReaders::Creator,
            },
            ..ZooKeeperConfig::new(hosts)
        }))
    }
}

/// Who may read the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Readers {
    /// Everybody
    All,
    /// Only programs with the same credentials
    Creator,
}

/// The flags for the login at the server. Without them, the agent logs in without credentials.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Login at the server")]
pub struct LoginFlags {
    /// User name
    #[arg(long, env = "STANDIN_ANNOUNCE_USER", value_name = "USER")]
    pub user: Option<String>,

    /// File with the password of the user
    #[arg(long, env = "STANDIN_ANNOUNCE_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Password; prefer the file or the variable, because every user of the host sees flags
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<Secret>,

    /// File with a token
    #[arg(long, env = "STANDIN_ANNOUNCE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// File with the seed of an nkey
    #[arg(long, env = "STANDIN_ANNOUNCE_NKEY_SEED_FILE", value_name = "FILE")]
    pub nkey_seed_file: Option<PathBuf>,

    /// NATS credentials file: a JWT and its seed
    #[arg(long, env = "STANDIN_ANNOUNCE_CREDS_FILE", value_name = "FILE")]
    pub creds_file: Option<PathBuf>,
}

/// The flags for TLS with the server. Without them, TLS is used if the server demands it. With any of them, the agent does not log in to
/// a server that offers no TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS with the server")]
pub struct NodeTlsFlags {
    /// Authorities that certify the server, PEM [default: those of the system]
    #[arg(
        long = "tls-ca-file",
        env = "STANDIN_ANNOUNCE_TLS_CA_FILE",
        value_name = "FILE"
    )]
    pub ca_file: Option<PathBuf>,

    /// Certificate of this program, PEM, for a server that asks for one
    #[arg(
        long = "tls-cert-file",
        env = "STANDIN_ANNOUNCE_TLS_CERT_FILE",
        value_name = "FILE"
    )]
    pub cert_file: Option<PathBuf>,

    /// Key of this certificate, PEM
    #[arg(
        long = "tls-key-file",
        env = "STANDIN_ANNOUNCE_TLS_KEY_FILE",
        value_name = "FILE"
    )]
    pub key_file: Option<PathBuf>,

    /// The name in the server's certificate [default: the host of --node]
    #[arg(
        long = "tls-server-name",
        env = "STANDIN_ANNOUNCE_TLS_SERVER_NAME",
        value_name = "NAME"
    )]
    pub server_name: Option<String>,

    /// Begin TLS before INFO, for a server with handshake_first
    #[arg(long = "tls-first", env = "STANDIN_ANNOUNCE_TLS_FIRST")]
    pub first: bool,
}

/// The flags for the checks, and for the log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Checks and log")]
pub struct CheckFlags {
    /// Time between two checks
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_INTERVAL_MS",
        value_name = "MS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(100..=60_000)
    )]
    pub interval_ms: u64,

    /// Time limit of each step of a check: connection, TLS handshake, INFO, PING, /healthz
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_TIMEOUT_MS",
        value_name = "MS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(100..=60_000)
    )]
    pub timeout_ms: u64,

    /// Failed checks in a row after which the record is deleted; a refused connection deletes it at once
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_FAILURES",
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub failures: u32,

    /// Passed checks in a row after which a deleted record is written again
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_SUCCESSES",
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub successes: u32,

    /// Log level: error, warn, info, debug or trace
    #[arg(
        long,
        env = "STANDIN_ANNOUNCE_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: String,

    /// Log as one JSON object per line
    #[arg(long, env = "STANDIN_ANNOUNCE_LOG_JSON")]
    pub log_json: bool,
}

/// Parses an address for clients, with or without `nats://`.
fn client_endpoint(text: &str) -> Result<Endpoint, String> {
    let address = text.strip_prefix("nats://").unwrap_or(text);
    address.parse().map_err(|error| format!("{error}"))
}

/// Parses the address of a monitoring port, with or without `http://` and a slash at its end.
fn http_endpoint(text: &str) -> Result<Endpoint, String> {
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.strip_suffix('/').unwrap_or(address);
    address.parse().map_err(|error| format!("{error}"))
}
