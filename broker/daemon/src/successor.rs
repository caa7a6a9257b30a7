//! The program on disk that is to replace the running one in the same process (`execve`), such as a new version of it.
//!
//! It is checked first: as a child process, with the same arguments and `--check`, it reads the settings and the state that it would get.
//! If it does not accept both, the running program goes on. A child leaves no trace: it has none of the running program's sockets.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs, io};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, execv};
use rustix::stdio::dup2_stdin;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tracing::warn;

use crate::descriptors;
use crate::handover_file::{HandoverFile, HandoverWriter};

/// Line on standard output with which a program accepts a state. A program that does not know of states does not print it.
pub const ACCEPTED: &str = "state of the running program accepted";

/// Bytes of the child's output that are read, and the length of its reason in the log.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
const REASON_CHARS_MAX: usize = 400;

/// Signals that wait while the program is replaced. Without that, one that comes before the next program handles it would end the process.
const HANDLED: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Reason why the program on disk cannot replace the running one.
#[derive(Debug, Error)]
pub enum SuccessorError {
    /// It cannot be executed.
    #[error("cannot execute {}, or cannot give it the state: {source}", program.display())]
    Execute {
        /// The program on disk.
        program: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It took too long to check the state.
    #[error("{} has not checked the state within {timeout:?}", program.display())]
    Timeout {
        /// The program on disk.
        program: PathBuf,
        /// The limit.
        timeout: Duration,
    },
    /// Another file has come in its place after it was checked.
    #[error("{} was replaced during the upgrade; send SIGUSR2 again", program.display())]
    Replaced {
        /// The path of the program on disk.
        program: PathBuf,
    },
    /// It refused the settings or the state.
    #[error("{} refused: {reason}", program.display())]
    Refused {
        /// The program on disk.
        program: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// The program on disk.
#[derive(Debug, Clone)]
pub struct Successor {
    program: PathBuf,
    /// Its name and its arguments, those of the running program.
    arguments: Vec<OsString>,
}

impl Successor {
    /// Finds the file of the running program. Must be called at its start, because the file may be replaced later. A symbolic link stays
    /// a link, so that it can be pointed to another version.
    #[must_use]
    pub fn of_this_program() -> Self {
        let arguments: Vec<OsString> = env::args_os().collect();
        let name = arguments.first().map(OsString::as_os_str).unwrap_or_default();
        let program = located(name).or_else(|| env::current_exe().ok());
        Self {
            program: program.unwrap_or_else(|| name.into()),
            arguments,
        }
    }

    /// Returns the path of the program on disk.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Replaces the path of the program on disk by that which the former program has found at its start.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Lets the program on disk check the settings and then this state, once that is sealed.
    ///
    /// # Errors
    /// [`SuccessorError::Execute`].
    pub fn begin_check(&self, state: &HandoverWriter) -> Result<Check, SuccessorError> {
        let failed = |source| SuccessorError::Execute {
            program: self.program.clone(),
            source,
        };
        let stdin = state.reader().map_err(failed)?;
        let file = FileVersion::of(&self.program).map_err(failed)?;
        // `systemctl kill -s USR2` sends the signal to all processes of the unit, also to the child. It inherits what is blocked here, and
        // keeps it blocked.
        let held = HeldSignals::hold().map_err(failed)?;
        let child = Command::new(&self.program)
            .args(self.arguments.iter().skip(1))
            .arg("--check")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The program on disk may be a script, whose children are to end with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        drop(held);
        Ok(Check {
            program: self.program.clone(),
            file,
            group: Group::of(&child),
            child,
        })
    }

    /// Replaces the running program. The next one gets `state` as its standard input, and these descriptors under their numbers. Returns
    /// only if that fails; then nothing has changed.
    pub fn execute(&self, state: &HandoverFile, descriptors: &[RawFd]) -> SuccessorError {
        let error = self.try_execute(state, descriptors);
        for descriptor in descriptors {
            if let Err(error) = descriptors::keep(*descriptor) {
                warn!(
                    descriptor,
                    "file descriptor stays open for child processes: {error}"
                );
            }
        }
        SuccessorError::Execute {
            program: self.program.clone(),
            source: error,
        }
    }

    fn try_execute(&self, state: &HandoverFile, descriptors: &[RawFd]) -> io::Error {
        let text = |text: &OsStr| CString::new(text.as_bytes().to_vec());
        let arguments = self.arguments.iter().map(|argument| text(argument));
        let (program, arguments) = match (
            text(self.program.as_os_str()),
            arguments.collect::<Result<Vec<_>, _>>(),
        ) {
            (Ok(program), Ok(arguments)) => (program, arguments),
            (Err(error), _) | (_, Err(error)) => return error.into(),
        };
        let stdin = io::stdin();
        let former_stdin = stdin.as_fd().try_clone_to_owned();
        let mut descriptors = descriptors.iter();
        let prepared = descriptors
            .try_for_each(|descriptor| descriptors::leave(*descriptor))
            .and_then(|()| Ok(dup2_stdin(state)?));
        let error = match prepared {
            Ok(()) => match execv(&program, &arguments) {
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        if let Ok(former) = former_stdin
            && let Err(error) = dup2_stdin(&former)
        {
            warn!("cannot restore the standard input: {error}");
        }
        error
    }
}

/// A check by the program on disk. Dropping it ends the check.
#[derive(Debug)]
pub struct Check {
    program: PathBuf,
    file: FileVersion,
    /// Dropped before the child: once the child was waited for, its number may belong to another process.
    group: Group,
    child: Child,
}

impl Check {
    /// Waits for the verdict. The state must be sealed. Then checks that the program on disk is still the same file.
    ///
    /// # Errors
    /// [`SuccessorError`].
    pub async fn verdict(self, timeout: Duration) -> Result<(), SuccessorError> {
        let (program, file) = (self.program.clone(), self.file);
        match tokio::time::timeout(timeout, self.refusal()).await {
            Err(_) => Err(SuccessorError::Timeout { program, timeout }),
            Ok(Err(source)) => Err(SuccessorError::Execute { program, source }),
            Ok(Ok(Some(reason))) => Err(SuccessorError::Refused { program, reason }),
            Ok(Ok(None)) if FileVersion::of(&program).ok() != Some(file) => {
                Err(SuccessorError::Replaced { program })
            }
            Ok(Ok(None)) => Ok(()),
        }
    }

    /// Returns why the program refuses; `None` if it accepts.
    async fn refusal(mut self) -> io::Result<Option<String>> {
        let (said, complained) = (self.child.stdout.take(), self.child.stderr.take());
        let ended = async {
            let status = self.child.wait().await;
            // Processes that the child has left may keep its output open.
            drop(self.group);
            status
        };
        let (status, said, complained) = tokio::join!(ended, text_of(said), text_of(complained));
        let status = status?;
        if status.success() && said.lines().any(|line| line == ACCEPTED) {
            return Ok(None);
        }
        let mut reason = String::new();
        for line in complained.lines().filter(|line| !line.trim().is_empty()) {
            let separator = if reason.is_empty() { "" } else { "; " };
            // Writing to a string cannot fail.
            let line = line.replace(char::is_control, " ");
            let _ = write!(reason, "{separator}{line}");
        }
        if reason.is_empty() {
            reason = if status.success() {
                "it does not know how to take over a running program".to_owned()
            } else {
                format!("it ended with {status} and said nothing")
            };
        }
        Ok(Some(reason.chars().take(REASON_CHARS_MAX).collect()))
    }
}

/// What is different after a file was replaced or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    /// In seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileVersion {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// The process group of a child. Dropping this kills all processes in it. That is done right after the child has ended, before the system
/// uses the number again.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok());
        Self(leader.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Fails if there is no process left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Holds the signals of the program back. The system keeps those that come meanwhile, also over `execve`. This blocks them in the calling
/// thread and in threads that it starts later, so a program calls this first in its main thread. Dropping the value lets the signals
/// through to this thread; then the program must handle all of them.
#[derive(Debug)]
pub struct HeldSignals(());

impl HeldSignals {
    /// Holds the signals back.
    ///
    /// # Errors
    /// The error of the system.
    pub fn hold() -> io::Result<Self> {
        handled().thread_block()?;
        Ok(Self(()))
    }

    /// Holds the signals back until the process ends.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        if let Err(error) = handled().thread_unblock() {
            warn!("signals stay blocked: {error}");
        }
    }
}

fn handled() -> SigSet {
    HANDLED.into_iter().collect()
}

/// Returns the path of the running program, found by the name with which it was started. `None` if that path is another file, or none.
fn located(name: &OsStr) -> Option<PathBuf> {
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = id(Path::new("/proc/self/exe"))?;
    let is_own = |path: &PathBuf| id(path) == Some(own);
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok().filter(is_own);
    }
    let folders = env::var_os("PATH")?;
    let paths = env::split_paths(&folders).map(|folder| folder.join(name));
    paths.into_iter().find(is_own)
}

/// Reads the beginning of the output of a child.
async fn text_of(output: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        // What was read before an error is shown.
        let _ = output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
