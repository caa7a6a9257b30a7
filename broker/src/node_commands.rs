//! The commands `doctor` and `cluster`, as they run. `cli/node_flags.rs` defines their flags.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use standin_daemon::cli::{EXIT_UNAVAILABLE, usage};
use standin_daemon::live_view::{print, show, watch};
use standin_daemon::terminal::Terminal;

use crate::cli::{Cli, ClusterViewFlags, DoctorFlags};
use crate::cluster_view::ClusterView;
use crate::doctor;

const PROGRAM: &str = "standin-broker";

/// Time over which rates are measured when the cluster is shown once.
const RATES_OVER: Duration = Duration::from_secs(1);

/// Runs `doctor`. Returns the exit code.
#[must_use]
pub fn run_doctor(flags: &DoctorFlags) -> ExitCode {
    let cli = match node(&flags.node) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let json = flags.json;
    run(async move {
        let report = match cli.settings() {
            Ok(loaded) => doctor::examine_all(&loaded, cli.file()).await,
            Err(error) => {
                let mut report = doctor::report();
                report.add_invalid_settings(&error);
                report
            }
        };
        report.print(json)
    })
}

/// Runs `cluster`. Returns the exit code.
#[must_use]
pub fn run_cluster(flags: &ClusterViewFlags) -> ExitCode {
    let cli = match node(&flags.node) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let settings = match cli.settings() {
        Ok(loaded) => loaded.settings,
        Err(error) => return usage(PROGRAM, &error),
    };
    let (is_json, is_watch) = (flags.json, flags.watch);
    run(async move {
        let mut cluster = match ClusterView::new(settings) {
            Ok(cluster) => cluster,
            Err(reason) => return unavailable(&reason),
        };
        if is_json {
            return match cluster.json().await {
                Ok(text) => print(PROGRAM, &text),
                Err(reason) => unavailable(&reason),
            };
        }
        if is_watch {
            watch(PROGRAM, async |terminal: &Terminal| cluster.lines(terminal).await).await
        } else {
            show(PROGRAM, async |terminal: &Terminal| {
                // Rates are known from the second view on.
                cluster.lines(terminal).await?;
                tokio::time::sleep(RATES_OVER).await;
                cluster.lines(terminal).await
            })
            .await
        }
    })
}

/// Parses the flags of the broker. An error or a help text is printed here.
fn node(flags: &[OsString]) -> Result<Cli, ExitCode> {
    let arguments = [OsString::from(PROGRAM)].into_iter().chain(flags.iter().cloned());
    Cli::read(arguments).map_err(|message| {
        message.print();
        message.exit_code().into()
    })
}

fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unavailable(&format!("cannot start: {error}")),
    };
    let code = runtime.block_on(command);
    // A thread may still be blocked in a lookup of a host name. The program does not wait for it.
    runtime.shutdown_background();
    code
}

fn unavailable(reason: &str) -> ExitCode {
    eprintln!("{PROGRAM}: {reason}");
    EXIT_UNAVAILABLE.into()
}
