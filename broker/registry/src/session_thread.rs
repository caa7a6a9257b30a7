//! The thread of a ZooKeeper session. Its owner starts it and receives its reports. It ends with its owner, and is started again
//! if it ends by itself.

use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::session::SessionReport;
use crate::session_loop::SessionLoop;
use crate::session_task::SessionTask;

/// Name of the thread. Linux allows 15 bytes.
const THREAD_NAME: &str = "zookeeper";
/// Delay before a thread that ended by itself is started again.
const RESTART_MS: u64 = 5_000;
/// Maximum number of reports that wait for the owner. Above it the thread waits.
const REPORTS_QUEUED_MAX: usize = 64;

/// Handle of the thread. Dropping it stops the thread, without waiting for its end.
pub(crate) struct SessionThread {
    config: ZooKeeperConfig,
    task: SessionTask,
    running: Option<Running>,
    restart_at: Instant,
}

struct Running {
    _stop: channel::Sender<()>,
    reports: mpsc::Receiver<SessionReport>,
}

impl SessionThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`RegistryError::Address`] if the host list is invalid; [`RegistryError::Thread`] if the system cannot start a thread.
    pub(crate) fn start(config: ZooKeeperConfig, task: SessionTask) -> Result<Self, RegistryError> {
        Ok(Self {
            running: Some(start(config.clone(), task.clone())?),
            config,
            task,
            restart_at: Instant::now(),
        })
    }

    /// Waits for the next report. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SessionReport {
        if self.running.is_none() {
            tokio::time::sleep_until(self.restart_at).await;
            match start(self.config.clone(), self.task.clone()) {
                Ok(running) => self.running = Some(running),
                Err(error) => return self.thread_ended(error.to_string()),
            }
        }
        let report = match &mut self.running {
            Some(running) => running.reports.recv().await,
            None => None,
        };
        match report {
            Some(report) => report,
            None => self.thread_ended("the thread of the session ended unexpectedly".to_owned()),
        }
    }

    fn thread_ended(&mut self, reason: String) -> SessionReport {
        self.running = None;
        self.restart_at = Instant::now() + Duration::from_millis(RESTART_MS);
        let reason = format!("{reason}; it is restarted in {RESTART_MS} ms");
        SessionReport::ThreadEnded { reason }
    }

    /// Stops the thread and waits for its end. Further reports are ignored.
    pub(crate) async fn close(self) {
        if let Some(Running { _stop, mut reports }) = self.running {
            drop(_stop);
            while reports.recv().await.is_some() {}
        }
    }
}

fn start(config: ZooKeeperConfig, task: SessionTask) -> Result<Running, RegistryError> {
    let (stop, stopped) = channel::channel(());
    let (reports, queue) = mpsc::channel(REPORTS_QUEUED_MAX);
    let session_loop = SessionLoop::new(config, task, reports, stopped)?;
    thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || {
            // The client library's log is suppressed: it has a line for every event, and an error for each expected disconnect.
            let silence = tracing::Dispatch::none();
            tracing::dispatcher::with_default(&silence, || session_loop.run());
        })
        .map_err(|error| RegistryError::Thread {
            reason: error.to_string(),
        })?;
    Ok(Running {
        _stop: stop,
        reports: queue,
    })
}
