//! A child process for what can only be done to a whole process: freezing it, and measuring its CPU time. It
//! is the test binary again, in the role of one of its tests.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::PATIENCE;

pub(crate) const HOSTS_VARIABLE: &str = "STANDIN_TEST_CHILD_HOSTS";

/// What the role is to be played with; `None` when it is run as a test, and there is nothing to do.
pub(crate) fn hosts_for_a_child() -> Option<String> {
    std::env::var(HOSTS_VARIABLE).ok()
}

/// The child, which tells what it sees line by line.
pub(crate) struct ChildProcess {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    /// Starts the role of this name.
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

    /// Waits for a line, and returns how long it took.
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

    /// CPU time used so far, by `/proc`, in its unit of 10 ms.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id().unwrap())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}
