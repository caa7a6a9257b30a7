//! Output on the command line, and exit codes.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use thiserror::Error;

use crate::settings::Loaded;

/// Success: an orderly stop, or a command that was answered.
pub const EXIT_DONE: u8 = 0;
/// Warnings of `doctor`, while nothing fails.
pub const EXIT_WARNINGS: u8 = 1;
/// Invalid command line or settings.
pub const EXIT_USAGE: u8 = 64;
/// The output is there, but it lacks parts of the input, which are named on standard error.
pub const EXIT_INCOMPLETE: u8 = 65;
/// The program cannot listen, reach a server that it needs, send a signal, or write its output; or another node has taken
/// its server name.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// Bug in the program.
pub const EXIT_BUG: u8 = 70;

/// Text to print instead of running the program: help, version, or an error in the command line.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct CliMessage(#[from] clap::Error);

impl CliMessage {
    /// Returns the exit code: 0 for help and version, 64 for an error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.0.kind() {
            clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => EXIT_DONE,
            _ => EXIT_USAGE,
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// Prints help and version to standard output, and an error to standard error.
    pub fn print(&self) {
        // If the output fails, there is no other place to report the error.
        let _ = self.0.print();
    }
}

/// Prints the result of `--print-config` (if `print_config`) or of `--check` to standard output. Returns the exit code.
#[must_use]
pub fn answer<S>(program: &str, print_config: bool, loaded: &Loaded<S>) -> ExitCode {
    let text = if print_config {
        loaded.print()
    } else {
        let warnings = loaded.warnings.iter();
        let warnings: String = warnings.map(|warning| format!("warning: {warning}\n")).collect();
        format!("{warnings}settings are valid\n")
    };
    print(program, &text)
}

/// Prints a text to standard output. Returns the exit code.
#[must_use]
pub fn print(program: &str, text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => EXIT_DONE.into(),
        // The reader of the pipe has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => EXIT_DONE.into(),
        Err(error) => {
            eprintln!("{program}: cannot write to standard output: {error}");
            EXIT_UNAVAILABLE.into()
        }
    }
}

/// Prints an error in the settings to standard error, because there is no log yet. Returns the exit code.
#[must_use]
pub fn usage(program: &str, error: &dyn std::error::Error) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("{program}: {line}");
    }
    EXIT_USAGE.into()
}
