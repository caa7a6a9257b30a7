//! A child process of a test, which can be sent input and signals, frozen and killed.
//!
//! Dropping it kills it, also during a panic. When the test process itself is killed, the kernel kills the child
//! (`setpriv --pdeathsig`). Every line that it writes is kept with its time, and every failure shows the last lines.

use crate::condition::{eventually, found};
use crate::figures::Figures;
use crate::netns::{self, Netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::panic::Location;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Limit on the lines kept of one process. A process that writes more is out of control, and is not read any further.
const LINES_MAX: usize = 2_000_000;
const TAIL_LINES: usize = 20;
/// Moves the socket from standard input to the place where systemd puts the first one.
const TAKE_SOCKET: &str = r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@""#;

/// The stream to which a process wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that a process wrote.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// The stream to which it was written.
    pub stream: Stream,
    /// The line without its end.
    pub text: String,
}

/// A program with its arguments, environment and network namespace.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    netns: Option<String>,
    /// A socket for the program.
    socket: Option<Arc<OwnedFd>>,
    /// Argument of `nsenter` that enters the mounts of a machine.
    mounts: Option<String>,
}

impl Program {
    /// Returns the program at this path, or with this name in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            netns: None,
            socket: None,
            mounts: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Passes a listening socket to the program, as systemd does. The socket stays open here too.
    #[must_use]
    pub fn socket(mut self, socket: &TcpListener) -> Self {
        let socket = socket
            .try_clone()
            .unwrap_or_else(|error| panic!("cannot clone a socket: {error}"));
        self.socket = Some(Arc::new(socket.into()));
        self
    }

    /// Runs the program in this network namespace.
    #[must_use]
    pub fn inside(self, netns: &Netns) -> Self {
        self.inside_named(Some(netns.name()))
    }

    /// Runs the program in the mounts that this argument of `nsenter` names.
    #[must_use]
    pub(crate) fn inside_mounts(mut self, argument: String) -> Self {
        self.mounts = Some(argument);
        self
    }

    #[must_use]
    pub(crate) fn inside_named(mut self, netns: Option<&str>) -> Self {
        self.netns = netns.map(str::to_owned);
        self
    }

    /// Starts the program. Every failure message contains `name`.
    pub fn start(&self, name: impl Into<String>) -> Process {
        let name = name.into();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(netns) = &self.netns {
            command.args(netns::inside(netns));
        }
        if let Some(mounts) = &self.mounts {
            command.args(["nsenter", mounts, "--"]);
        }
        for meant_for_others in [
            "STANDIN_PEERS",
            "STANDIN_PROXY_BIN",
            "STANDIN_BROKER_BIN",
            "NATS_URL",
        ] {
            command.env_remove(meant_for_others);
        }
        if self.socket.is_some() {
            command.args(["bash", "-c", TAKE_SOCKET]);
        }
        command
            .arg(&self.path)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(n, v)| (n, v)))
            .stdin(self.stdin())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let lines = Arc::default();
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(keep_lines(out, Stream::Out, Arc::clone(&lines)));
        }
        if let Some(err) = child.stderr.take() {
            readers.push(keep_lines(err, Stream::Err, Arc::clone(&lines)));
        }
        let stdin = child.stdin.take();
        Process {
            name,
            child,
            stdin,
            lines,
            readers,
            ended: None,
        }
    }
}

impl Program {
    fn stdin(&self) -> Stdio {
        let socket = self.socket.as_ref().map(|socket| socket.try_clone());
        socket.map_or_else(Stdio::piped, |socket| {
            socket
                .unwrap_or_else(|error| panic!("cannot clone a socket: {error}"))
                .into()
        })
    }
}

fn keep_lines(
    stream: impl Read + Send + 'static,
    from: Stream,
    lines: Arc<Mutex<Vec<Line>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(
                lines.len() < LINES_MAX,
                "a process wrote more than {LINES_MAX} lines"
            );
            lines.push(Line {
                at: Instant::now(),
                stream: from,
                text,
            });
        }
    })
}

/// A child process, running or ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Returns the name for failure messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all lines of both streams so far, in the order in which they were read.
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of lines so far, for [`wait_for_line_after`](Self::wait_for_line_after).
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    /// Returns whether any line contains `text`.
    pub fn has_line(&self, text: &str) -> bool {
        self.count_lines(text) > 0
    }

    /// Returns the number of lines that contain `text`.
    pub fn count_lines(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.text.contains(text))
            .count()
    }

    /// Fails if any line contains `text`.
    #[track_caller]
    pub fn assert_no_line(&self, text: &str) {
        assert!(
            !self.has_line(text),
            "{} has a line with {text:?}:\n{}",
            self.name,
            self.tail()
        );
    }

    /// Waits for a line that contains `text`, among all lines since the start.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> impl Future<Output = Line> {
        self.wait_for_line_after(0, text, timeout)
    }

    /// Waits for a line that contains `text`, among the lines after the mark.
    #[track_caller]
    pub fn wait_for_line_after(
        &mut self,
        mark: usize,
        text: &str,
        timeout: Duration,
    ) -> impl Future<Output = Line> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + timeout;
            loop {
                // Checked before the lines, so that a line written just before the end is not missed.
                let running = self.is_running() || !self.has_been_read();
                if let Some(line) = self
                    .lines()
                    .iter()
                    .skip(mark)
                    .find(|line| line.text.contains(text))
                {
                    return line.clone();
                }
                if !running || Instant::now() > deadline {
                    self.fail(at, &format!("a line with {text:?} within {timeout:?}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else {
            panic!("{}: standard input is closed", self.name)
        };
        let written = stdin.write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            self.fail(
                Location::caller(),
                &format!("to take the input line {line:?}: {error}"),
            );
        }
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // It may have ended since the check. Its pid is not reused until the test has waited for it.
            let _ = kill(self.nix_pid(), signal);
        }
    }

    /// Sends SIGSTOP and waits until every thread has stopped. The process stays connected and answers nothing.
    pub async fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        let what = format!("{} is frozen", self.name);
        eventually(what, Duration::from_secs(5), async || self.is_frozen()).await;
    }

    /// Sends SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sends SIGKILL and waits until the kernel has closed the sockets of the process.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended = self.child.wait().ok();
    }

    /// Returns whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Waits until the process has ended and everything that it wrote has been read.
    #[track_caller]
    pub fn wait_for_end(&mut self, timeout: Duration) -> impl Future<Output = ExitStatus> {
        let what = format!("{} ends", self.name);
        found(what, timeout, async || {
            let over = !self.is_running() && self.has_been_read();
            if over { self.ended } else { None }
        })
    }

    /// Returns the threads, files, memory and CPU time now; all zero after the end.
    pub fn figures(&self) -> Figures {
        Figures::of(self.pid())
    }

    /// Returns the last lines, for a failure message.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        Self::listed(lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)))
    }

    /// Returns whether both streams have been read to their end.
    fn has_been_read(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Returns whether every thread is stopped, as after [`freeze`](Self::freeze).
    pub fn is_frozen(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return false;
        };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name in parentheses. `stat` of a thread that has just ended is empty.
            stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Returns the lines around the line with index `line`, for a failure message that is not about the last lines.
    pub(crate) fn around(&self, line: usize) -> String {
        Self::listed(
            self.lines()
                .iter()
                .skip(line.saturating_sub(TAIL_LINES / 2))
                .take(TAIL_LINES),
        )
    }

    fn listed<'a>(lines: impl Iterator<Item = &'a Line>) -> String {
        lines.fold(String::new(), |mut list, line| {
            let _ = writeln!(list, "    {:?} | {}", line.stream, line.text);
            list
        })
    }

    pub(crate) fn fail(&mut self, at: &Location<'_>, wanted: &str) -> ! {
        let state = if self.is_running() {
            "running".to_owned()
        } else {
            format!("ended, {:?}", self.ended)
        };
        panic!(
            "{at}: {} expected {wanted}\n  state: {state}; last lines:\n{}",
            self.name,
            self.tail()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- last lines of {}:\n{}", self.name, self.tail());
        }
    }
}
