//! The subcommands `doctor`, `nodes` and `sessions`, as they run. `cli/subcommand.rs` defines their flags.

use std::process::ExitCode;

use standin_daemon::cli::EXIT_UNAVAILABLE;
use standin_daemon::live_view::{print, show, watch};
use standin_daemon::terminal::Terminal;

use crate::cli::{Cli, Command, ViewFlags};
use crate::doctor;
use crate::views::{self, NODES, PageView, SESSIONS};

/// Runs a subcommand. `cli` has the flags of settings, which all subcommands share. Returns the exit code.
pub async fn run(command: &Command, program: &'static str, cli: &Cli) -> ExitCode {
    match command {
        Command::Doctor { json } => run_doctor(cli, *json).await,
        Command::Nodes(flags) => run_view(program, cli, NODES, *flags).await,
        Command::Sessions(flags) => run_view(program, cli, SESSIONS, *flags).await,
    }
}

async fn run_doctor(cli: &Cli, json: bool) -> ExitCode {
    let report = match cli.settings() {
        Ok(loaded) => doctor::examine_all(&loaded, cli.config.as_deref()).await,
        Err(error) => {
            let mut report = doctor::report();
            report.add_invalid_settings(&error);
            report
        }
    };
    report.print(json)
}

async fn run_view(program: &str, cli: &Cli, view: PageView, flags: ViewFlags) -> ExitCode {
    let settings = match cli.settings_for_view() {
        Ok(settings) => settings,
        Err(error) => return standin_daemon::cli::usage(program, &error),
    };
    let pages = match views::pages(&settings) {
        Ok(pages) => pages,
        Err(reason) => {
            eprintln!("{program}: {reason}");
            return EXIT_UNAVAILABLE.into();
        }
    };
    if flags.json {
        return match view.json(&pages).await {
            Ok(text) => print(program, &text),
            Err(reason) => {
                eprintln!("{program}: {reason}");
                EXIT_UNAVAILABLE.into()
            }
        };
    }
    let lines = async |terminal: &Terminal| view.lines(&pages, terminal).await;
    if flags.watch {
        watch(program, lines).await
    } else {
        show(program, lines).await
    }
}
