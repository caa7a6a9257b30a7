//! A child process, for actions that affect a whole process: to freeze it, and to measure its CPU time. It is the test binary,
//! running one of its tests.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::PATIENCE;

pub(crate) const HOSTS_VARIABLE: &str = "STANDIN_TEST_CHILD_HOSTS";

/// Returns the host list for a child process; `None` in a normal test run.
pub(crate) fn hosts_for_a_child() -> Option<String> {
    std::env::var(HOSTS_VARIABLE).ok()
}

/// A child process, which prints its state line by line.
pub(crate) struct ChildProcess {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    /// Starts a child process that runs the test `role`.
    pub(crate) fn start(role: &str, hosts: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", role, "--nocapture"])
            .env(HOSTS_VARIABLE, hosts)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits for a line, and returns the time that this took.
    pub(crate) async fn until(&mut self, wanted: &str) -> Duration {
        let begun = Instant::now();
        let mut seen = Vec::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.trim_end() == wanted {
                    return;
                }
                seen.push(line);
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, reading).await.is_ok(),
            "no {wanted:?} from the child: {seen:?}"
        );
        begun.elapsed()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().unwrap() as i32), signal).unwrap();
    }

    /// Returns the CPU time used so far, with the resolution of `/proc`, 10 ms.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id().unwrap())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}
