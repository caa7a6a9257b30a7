//! The command line: `nats-server`'s flags, with one dash or two, so that scripts that start it start this too.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};

use crate::auth::Access;
use crate::settings::Settings;

/// Done: stopped in order, or a question was answered.
pub const EXIT_DONE: u8 = 0;
/// Bad usage or bad settings.
pub const EXIT_USAGE: u8 = 64;
/// Cannot listen, or cannot reach what it must.
pub const EXIT_UNAVAILABLE: u8 = 69;

const AFTER_HELP: &str = "\
Flags are nats-server's; one dash does where nats-server takes one (-port 4222, -p -1, -DV).
Exit codes: 0 done, 64 bad usage or settings, 69 cannot listen or reach what it must, 70 a bug.";

/// One node of the broker: core NATS for clients.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "standin-broker", disable_version_flag = true, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// Address to listen on for clients [default: 0.0.0.0]
    #[arg(short = 'a', long, alias = "net", value_name = "IP")]
    addr: Option<IpAddr>,

    /// Port to listen on for clients; -1: any free one [default: 4222]
    #[arg(short = 'p', long, value_name = "N", allow_negative_numbers = true)]
    port: Option<i32>,

    /// Name of this server [default: its id]
    #[arg(short = 'n', long = "name", alias = "server_name", value_name = "NAME")]
    name: Option<String>,

    /// User that clients must give, with --pass
    #[arg(long, value_name = "USER", requires = "pass")]
    user: Option<String>,

    /// Password of that user
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pass: Option<String>,

    /// Token that clients must give
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    auth: Option<String>,

    /// File that gets the process id
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pid: Option<PathBuf>,

    /// Log what clients do
    #[arg(short = 'D', long)]
    debug: bool,

    /// Log even more
    #[arg(short = 'V', long)]
    trace: bool,

    /// Print the version and end
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What clap has to say instead of a command line: help, the version, or what is wrong.
#[derive(Debug)]
pub struct Said {
    error: clap::Error,
}

impl Said {
    /// Help and version are no errors; all else is bad usage.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => EXIT_DONE,
            _ => EXIT_USAGE,
        }
    }

    /// Prints it: help and version to standard output, all else to standard error.
    pub fn print(&self) {
        // Nobody is left to be told that a closed terminal does not print.
        let _ = self.error.print();
    }
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// [`Said`], to be printed, with the exit code.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Said> {
        let said = |error| Said { error };
        let command = Self::command().version(env!("CARGO_PKG_VERSION"));
        let longs: Vec<String> = command
            .get_arguments()
            .flat_map(|argument| {
                let aliases = argument.get_all_aliases().unwrap_or_default();
                argument.get_long().into_iter().chain(aliases)
            })
            .map(str::to_owned)
            .collect();
        let arguments = arguments
            .into_iter()
            .map(|argument| with_usual_dashes(argument, &longs));
        let matches = command.try_get_matches_from(arguments).map_err(said)?;
        clap::FromArgMatches::from_arg_matches(&matches).map_err(said)
    }

    /// The settings that these flags make.
    ///
    /// # Errors
    /// What is wrong with which flag, and what would be right.
    pub fn settings(&self) -> Result<Settings, String> {
        let port = match self.port {
            None => 4222,
            Some(-1) => 0,
            Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("flag --port must be 1 to 65535, or -1 for any free port, not {port}")
            })?,
        };
        let access = match (&self.user, &self.pass, &self.auth) {
            (Some(user), Some(pass), _) => Access::Users(vec![(user.clone(), pass.clone())]),
            (_, _, Some(token)) => Access::Token(token.clone()),
            _ => Access::Open,
        };
        Ok(Settings {
            listen: SocketAddr::new(self.addr.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port),
            server_name: self.name.clone().unwrap_or_default(),
            access,
            ..Settings::default()
        })
    }

    /// The level of the log.
    #[must_use]
    pub const fn log_level(&self) -> &'static str {
        match (self.debug, self.trace) {
            (_, true) => "trace",
            (true, false) => "debug",
            _ => "info",
        }
    }
}

/// Long flags get two dashes and short ones one, however they came.
fn with_usual_dashes(argument: OsString, longs: &[String]) -> OsString {
    let Some(text) = argument.to_str() else {
        return argument;
    };
    let name = text.trim_start_matches('-');
    let dashes = text.len() - name.len();
    let word = name.split('=').next().unwrap_or(name);
    if dashes == 1 && longs.iter().any(|long| long == word) {
        format!("--{name}").into()
    } else if dashes == 2 && word.len() == 1 {
        format!("-{name}").into()
    } else {
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Cli, Said> {
        let program = std::iter::once("standin-broker");
        Cli::read(program.chain(words.iter().copied()).map(OsString::from))
    }

    fn settings(words: &[&str]) -> Settings {
        let cli = read(words).unwrap_or_else(|said| panic!("{words:?}: {}", said.error));
        cli.settings()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    #[test]
    fn one_dash_and_two_are_the_same() {
        for words in [
            ["-a", "127.0.0.1", "-p", "4333"],
            ["--addr", "127.0.0.1", "--port", "4333"],
            ["-addr", "127.0.0.1", "-port", "4333"],
            ["--a", "127.0.0.1", "--p", "4333"],
            ["-net", "127.0.0.1", "-p", "4333"],
        ] {
            assert_eq!(settings(&words).listen.to_string(), "127.0.0.1:4333", "{words:?}");
        }
        assert_eq!(settings(&["-addr=127.0.0.1", "-p=4333"]).listen.port(), 4333);
        assert_eq!(settings(&["-server_name", "one"]).server_name, "one");
    }

    #[test]
    fn any_free_port_is_minus_one() {
        assert_eq!(settings(&["-p", "-1"]).listen.port(), 0);
        assert_eq!(settings(&["--port=-1"]).listen.port(), 0);
        assert_eq!(settings(&[]).listen.to_string(), "0.0.0.0:4222");
        for port in ["0", "-2", "65536"] {
            let cli = read(&["-p", port]).unwrap_or_else(|said| panic!("{}", said.error));
            let error = cli.settings().expect_err("no port");
            assert!(error.contains("--port") && error.contains(port), "{error}");
        }
    }

    #[test]
    fn credentials_are_a_user_with_a_password_or_a_token() {
        let users = Access::Users(vec![("a".into(), "b".into())]);
        assert_eq!(settings(&["--user", "a", "--pass", "b"]).access, users);
        assert_eq!(settings(&["-user", "a", "-pass", "b"]).access, users);
        assert_eq!(settings(&["-auth", "t"]).access, Access::Token("t".into()));
        for words in [
            &["--user", "a"][..],
            &["--pass", "b"],
            &["--auth", "t", "--user", "a", "--pass", "b"],
            &["--no-such-flag"],
            &["-p", "x"],
        ] {
            assert_eq!(
                read(words).map_or_else(|said| said.exit_code(), |_| EXIT_DONE),
                EXIT_USAGE,
                "{words:?}"
            );
        }
    }

    #[test]
    fn letters_can_stand_together() {
        let level = |words: &[&str]| read(words).map_or("", |cli| cli.log_level());
        assert_eq!(level(&["-DV"]), "trace");
        assert_eq!(level(&["-D"]), "debug");
        assert_eq!(level(&["-V"]), "trace");
        assert_eq!(level(&[]), "info");
        let version = read(&["-v"]).map_or_else(|said| said.exit_code(), |_| 1);
        assert_eq!(version, EXIT_DONE);
    }
}
