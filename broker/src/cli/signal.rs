//! The flag `--signal COMMAND[=PID]`: sends a signal to a running server. As in `nats-server`, PID is a process id, a pid file, or the first
//! digits of process ids and `*`.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

/// The name of this program in `/proc/PID/comm`.
const PROGRAM: &str = "standin-broker";

const COMMANDS: [(&str, Signal); 6] = [
    ("stop", Signal::KILL),
    ("quit", Signal::INT),
    ("term", Signal::TERM),
    ("reload", Signal::HUP),
    ("reopen", Signal::USR1),
    ("ldm", Signal::USR2),
];

/// Errors of [`send`].
#[derive(Debug, Error)]
pub enum SignalError {
    /// The command is unknown.
    #[error("--signal {0:?}: no such command; the commands are stop, quit, term, reload, reopen and ldm")]
    Command(String),
    /// The value has more than one `=`.
    #[error("--signal {0:?}: give COMMAND, or COMMAND=PID, where PID may be a pid file")]
    Form(String),
    /// PID is neither a process id nor a file with one.
    #[error("--signal: {0:?} is neither a process id nor a pid file")]
    Process(String),
    /// No server is running, or none with such a process id.
    #[error("--signal: no {PROGRAM} is running{0}")]
    NoProcess(String),
    /// Several servers are running, and PID is not given.
    #[error("--signal: {} {PROGRAM} processes are running: {}; give COMMAND=PID, or COMMAND=* for all", .0.len(), listed(.0))]
    Several(Vec<i32>),
    /// The system call failed, for these processes.
    #[error("--signal: {}", .0.iter().map(|(pid, error)| format!("process {pid}: {error}")).collect::<Vec<_>>().join("; "))]
    Refused(Vec<(i32, io::Error)>),
    /// The folder `/proc` cannot be read.
    #[error("--signal: cannot list the processes: {0}; give COMMAND=PID")]
    Unlisted(io::Error),
}

impl SignalError {
    /// Returns whether the command line is wrong, and not the state of the host.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Command(_) | Self::Form(_) | Self::Process(_))
    }
}

fn listed(pids: &[i32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    pids.join(", ")
}

/// Sends the signal of `text`, the value of the flag.
///
/// # Errors
/// [`SignalError`].
pub fn send(text: &str) -> Result<(), SignalError> {
    let mut parts = text.split('=');
    let (command, process) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(SignalError::Form(text.to_owned()));
    }
    let known = COMMANDS.iter().find(|(name, _)| *name == command);
    let Some((_, signal)) = known else {
        return Err(SignalError::Command(command.to_owned()));
    };
    let pids = match process.unwrap_or_default() {
        "" => match running()?.as_slice() {
            [] => return Err(SignalError::NoProcess(String::new())),
            [one] => vec![*one],
            several => return Err(SignalError::Several(several.to_vec())),
        },
        process => match process.strip_suffix('*') {
            Some(start) if start.is_empty() || pid(start).is_some() => starting_with(start, running()?)?,
            _ => vec![process_id(process)?],
        },
    };
    let send = |id: i32| {
        let sent = Pid::from_raw(id).map_or(Err(rustix::io::Errno::SRCH), |pid| kill_process(pid, *signal));
        Some((id, io::Error::from(sent.err()?)))
    };
    let refused: Vec<_> = pids.into_iter().filter_map(send).collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(SignalError::Refused(refused))
    }
}

/// Returns the running processes whose id begins with `start`.
fn starting_with(start: &str, running: Vec<i32>) -> Result<Vec<i32>, SignalError> {
    let pids: Vec<i32> = running
        .into_iter()
        .filter(|pid| pid.to_string().starts_with(start))
        .collect();
    match pids.as_slice() {
        [] if start.is_empty() => Err(SignalError::NoProcess(String::new())),
        [] => Err(SignalError::NoProcess(format!(
            " with a process id that begins with {start}"
        ))),
        _ => Ok(pids),
    }
}

/// Parses a process id. Rejects 0 and negative numbers, which are process groups for kill(2).
fn pid(text: &str) -> Option<i32> {
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Returns the process id that is given directly, or in a pid file.
fn process_id(process: &str) -> Result<i32, SignalError> {
    let text = fs::read_to_string(process);
    let text = text.as_deref().unwrap_or(process);
    pid(text).ok_or_else(|| SignalError::Process(process.to_owned()))
}

/// Lists the processes with the name of this program, without this process.
fn running() -> Result<Vec<i32>, SignalError> {
    // A program that was started through a symbolic link has the link's name in comm, so that name is matched too.
    let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let own_id = std::process::id().to_string();
    let entries = fs::read_dir("/proc").map_err(SignalError::Unlisted)?;
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| *name != own_id)
        .filter_map(|name| {
            let id = pid(&name)?;
            let comm = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
            (comm.trim() == PROGRAM || comm == own).then_some(id)
        })
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_or_process_is_refused_before_any_signal_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        fs::write(&file, "not a number").unwrap();
        for (text, error) in [
            ("", "no such command"),
            (
                "kill",
                "the commands are stop, quit, term, reload, reopen and ldm",
            ),
            ("STOP=1", "no such command"),
            ("stop=1=2", "give COMMAND, or COMMAND=PID"),
            ("stop=x", "\"x\" is neither a process id nor a pid file"),
            ("stop=0", "\"0\" is neither a process id"),
            ("stop=-1", "\"-1\" is neither a process id"),
            ("stop=x*", "\"x*\" is neither a process id"),
            (
                &format!("stop={}", file.display()),
                "is neither a process id nor a pid file",
            ),
        ] {
            let refused = send(text).unwrap_err();
            assert!(
                refused.is_usage() && refused.to_string().contains(error),
                "{refused}"
            );
        }
        let gone = send(&format!("reload={}", i32::MAX)).unwrap_err();
        assert!(!gone.is_usage());
        assert!(
            gone.to_string().contains("process 2147483647: No such process"),
            "{gone}"
        );
    }

    #[test]
    fn several_processes_are_listed_with_a_hint() {
        assert_eq!(
            SignalError::Several(vec![7, 12]).to_string(),
            "--signal: 2 standin-broker processes are running: 7, 12; give COMMAND=PID, or COMMAND=* for all"
        );
    }

    #[test]
    fn a_star_matches_the_rest_of_a_process_id() {
        let running = || vec![12, 123, 213];
        assert_eq!(starting_with("", running()).unwrap(), [12, 123, 213]);
        assert_eq!(starting_with("12", running()).unwrap(), [12, 123]);
        let error = starting_with("4", running()).unwrap_err().to_string();
        assert!(
            error.ends_with("is running with a process id that begins with 4"),
            "{error}"
        );
    }
}
