//! What the programs say on the command line, and the codes they end with.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use crate::settings::Loaded;

/// Done: stopped in order, or a question was answered.
pub const EXIT_DONE: u8 = 0;
/// Bad usage or bad settings.
pub const EXIT_USAGE: u8 = 64;
/// Cannot listen, or cannot reach what it must.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// A bug of the program.
pub const EXIT_BUG: u8 = 70;

/// What there is to say instead of a command line: help, the version, or what is wrong.
#[derive(Debug)]
pub struct Said {
    error: clap::Error,
}

impl From<clap::Error> for Said {
    fn from(error: clap::Error) -> Self {
        Self { error }
    }
}

impl Said {
    /// Help and version are no errors; all else is bad usage.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.error.kind() {
            clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => EXIT_DONE,
            _ => EXIT_USAGE,
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        self.error.to_string()
    }

    /// Prints it: help and version to standard output, all else to standard error.
    pub fn print(&self) {
        // Nobody is left to be told that a closed terminal does not print.
        let _ = self.error.print();
    }
}

/// Answers `--print-config`, or else `--check`, on standard output.
#[must_use]
pub fn answer<S>(program: &str, print_config: bool, loaded: &Loaded<S>) -> ExitCode {
    let mut text = String::new();
    if print_config {
        text += &loaded.print();
    } else {
        for warning in &loaded.warnings {
            text += &format!("warning: {warning}\n");
        }
        text += "settings are good\n";
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => EXIT_DONE.into(),
        // Who closed the pipe has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => EXIT_DONE.into(),
        Err(error) => {
            eprintln!("{program}: cannot write to standard output: {error}");
            EXIT_UNAVAILABLE.into()
        }
    }
}

/// Says what is wrong with the settings while there is no log yet.
#[must_use]
pub fn usage(program: &str, error: &dyn std::error::Error) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("{program}: {line}");
    }
    EXIT_USAGE.into()
}
