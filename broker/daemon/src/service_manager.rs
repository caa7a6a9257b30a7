//! What the program tells the service manager, systemd or one like it: that it is ready, reloads its settings, stops, and is alive.
//! `man sd_notify` describes the messages. Without the variable `NOTIFY_SOCKET` nothing is sent.
//!
//! A message is one datagram. It is sent without blocking the thread, because the same thread accepts connections, and the service manager
//! may be busy or frozen.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Time limit for sending one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager that started the program; none by default.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    socket: Option<PathBuf>,
    /// Longest time between two watchdog messages. If it passes without one, the service manager kills the program.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let number = |name| env::var(name).ok()?.parse().ok();
        let is_for_other =
            number("WATCHDOG_PID").is_some_and(|pid: u64| pid != u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && !is_for_other);
        Self {
            socket: env::var_os("NOTIFY_SOCKET").map(|name| path_of(&name)),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// Says that the program accepts connections, or that it has reloaded its settings.
    pub async fn ready(&self) {
        self.send("READY=1").await;
    }

    /// Says that the program reloads its settings. [`ready`](Self::ready) must follow.
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}")).await;
    }

    /// Says that the program stops, and that it may need this long.
    pub async fn stopping(&self, longest: Duration) {
        let micros = longest.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}"))
            .await;
    }

    /// Sends watchdog messages, if the service manager wants them, until the task is ended. Before each message, a task must have run on
    /// this runtime and on each of `workers`. So if a thread hangs or has panicked, the messages stop, and the service manager restarts
    /// the program.
    pub async fn keep_alive(self, workers: Vec<Handle>) {
        let Some(watchdog) = self.watchdog else {
            return;
        };
        loop {
            for worker in &workers {
                if worker.spawn(async {}).await.is_err() {
                    warn!(
                        "a worker thread has ended; no more watchdog messages are sent to the service manager"
                    );
                    return;
                }
            }
            self.send("WATCHDOG=1").await;
            // So a message may be late by two thirds of the watchdog time.
            sleep(watchdog / 3).await;
        }
    }

    async fn send(&self, message: &str) {
        let Some(path) = &self.socket else {
            return;
        };
        let sending = async { UnixDatagram::unbound()?.send_to(message.as_bytes(), path).await };
        let error = match timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        warn!(message, error, "cannot notify the service manager");
    }
}

/// Returns the path of a socket. A name that begins with `@` is that of an abstract socket (unix(7)), whose path begins with a zero byte.
fn path_of(name: &OsStr) -> PathBuf {
    let mut name = name.as_bytes().to_vec();
    if let Some(first) = name.first_mut().filter(|first| **first == b'@') {
        *first = 0;
    }
    OsStr::from_bytes(&name).into()
}
