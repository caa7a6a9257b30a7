//! A child process that a test drives: started, spoken to, frozen, killed, and always gone at the end.
//!
//! It is ended by its pid when dropped, also by a panic; and when the whole test process is killed the kernel ends it
//! too (`setpriv --pdeathsig`). What it writes is kept line by line, with the time; the last lines are in every failure.

use crate::condition::{eventually, found};
use crate::figures::Figures;
use crate::netns::{self, Netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::Location;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most lines kept of one process; a test that gets more is running away.
const LINES_MAX: usize = 2_000_000;
const TAIL_LINES: usize = 20;

/// Which of its two streams a process wrote a line to.
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
    /// When it came.
    pub at: Instant,
    /// Where it was written to.
    pub stream: Stream,
    /// The line without its end.
    pub text: String,
}

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    netns: Option<String>,
}

impl Program {
    /// The program at this path, or of this name in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            netns: None,
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

    /// Runs it in this network namespace.
    #[must_use]
    pub fn inside(self, netns: &Netns) -> Self {
        self.inside_named(netns.name())
    }

    #[must_use]
    pub(crate) fn inside_named(mut self, netns: &str) -> Self {
        self.netns = Some(netns.to_owned());
        self
    }

    /// Starts it; `name` appears in every failure.
    pub fn start(&self, name: impl Into<String>) -> Process {
        let name = name.into();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(netns) = &self.netns {
            command.args(netns::inside(netns));
        }
        command
            .arg(&self.path)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(n, v)| (n, v)));
        for meant_for_others in [
            "STANDIN_PEERS",
            "STANDIN_PROXY_BIN",
            "STANDIN_BROKER_BIN",
            "NATS_URL",
        ] {
            command.env_remove(meant_for_others);
        }
        command
            .stdin(Stdio::piped())
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

/// A running (or ended) child process.
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
    /// The name given at start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far, both streams, in the order it came.
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines came so far: a mark from which [`wait_for_line_after`](Self::wait_for_line_after) can look.
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    /// True when any line contains `text`.
    pub fn has_line(&self, text: &str) -> bool {
        self.count_lines(text) > 0
    }

    /// How many lines contain `text`.
    pub fn count_lines(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.text.contains(text))
            .count()
    }

    /// Waits for a line that contains `text`, from the start on.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str, patience: Duration) -> impl Future<Output = Line> {
        self.wait_for_line_after(0, text, patience)
    }

    /// Waits for a line that contains `text`, among those after the mark.
    #[track_caller]
    pub fn wait_for_line_after(
        &mut self,
        mark: usize,
        text: &str,
        patience: Duration,
    ) -> impl Future<Output = Line> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + patience;
            loop {
                // Looked at first: what was written before the end is still to be found.
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
                    self.fail(at, &format!("a line with {text:?} within {patience:?}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else {
            panic!("{}: its input is closed", self.name)
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
            // It may end between the look and the signal; its pid is not used again before it is waited for.
            let _ = kill(self.nix_pid(), signal);
        }
    }

    /// SIGSTOP, and waits until every thread has stopped: it stays connected and answers nothing.
    pub async fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        let what = format!("{} is frozen", self.name);
        eventually(what, Duration::from_secs(5), async || self.is_frozen()).await;
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL, and waits until the kernel has closed its sockets.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended = self.child.wait().ok();
    }

    /// False once it has ended.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Waits for its end, and until all that it wrote is among its lines.
    #[track_caller]
    pub fn wait_for_end(&mut self, patience: Duration) -> impl Future<Output = ExitStatus> {
        let what = format!("{} ends", self.name);
        found(what, patience, async || {
            let over = !self.is_running() && self.has_been_read();
            if over { self.ended } else { None }
        })
    }

    /// CPU time used so far, user and system.
    pub fn cpu_time(&self) -> Duration {
        self.figures().cpu_time
    }

    /// Resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.figures().resident_kib
    }

    /// What it takes of the machine now; all zero once it has ended.
    pub fn figures(&self) -> Figures {
        Figures::of(self.pid())
    }

    /// The last lines it wrote, for a failure.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        Self::listed(lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)))
    }

    /// True once both of its streams have ended and every line of them is kept.
    fn has_been_read(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// True while every thread of it is stopped, as after [`freeze`](Self::freeze).
    pub fn is_frozen(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return false;
        };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state is the field after the name in parentheses. A thread that has just ended has none.
            stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Lines around this one, for a failure that is not about the last ones.
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
            "{at}: {} expected {wanted}\n  it is {state}; its last lines:\n{}",
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
            eprintln!("--- {} wrote at the end:\n{}", self.name, self.tail());
        }
    }
}
