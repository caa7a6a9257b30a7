//! A child process, for actions that affect a whole process: to freeze it, and to measure its CPU time. The child is the test
//! binary again. It runs one test, which prints the live nodes after each change.

use e2e::{Process, Program};

pub(crate) const HOSTS_VARIABLE: &str = "STANDIN_TEST_CHILD_HOSTS";

/// Returns the host list for a child process; `None` in a normal test run.
pub(crate) fn hosts_for_a_child() -> Option<String> {
    std::env::var(HOSTS_VARIABLE).ok()
}

/// Starts a child process that runs the test `role`.
pub(crate) fn child_process(role: &str, hosts: &str) -> Process {
    Program::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--nocapture"])
        .env(HOSTS_VARIABLE, hosts)
        .start(role)
}
