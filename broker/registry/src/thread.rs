//! The thread of the session, as its owner sees it: started, listened to, ended with its owner, and started again
//! when it fell.

use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::session::Report;
use crate::work::Work;
use crate::zookeeper::Engine;

/// At most 15 bytes.
const THREAD_NAME: &str = "zookeeper";
/// A thread that fell is started again after this.
const RESTART_MS: u64 = 5_000;
/// Reports waiting for the owner; then the thread waits for it.
const REPORTS_QUEUED_MAX: usize = 64;

/// A thread at work. Dropping it orders the thread to end, without waiting for it.
pub(crate) struct Thread {
    config: ZooKeeperConfig,
    work: Work,
    running: Option<Running>,
    restart_at: Instant,
}

struct Running {
    _stop: channel::Sender<()>,
    reports: mpsc::Receiver<Report>,
}

impl Thread {
    /// # Errors
    /// [`RegistryError::Address`] for the host list; [`RegistryError::Thread`] when the system gives no
    /// thread.
    pub(crate) fn start(config: ZooKeeperConfig, work: Work) -> Result<Self, RegistryError> {
        Ok(Self {
            running: Some(start(config.clone(), work.clone())?),
            config,
            work,
            restart_at: Instant::now(),
        })
    }

    /// The next report. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Report {
        if self.running.is_none() {
            tokio::time::sleep_until(self.restart_at).await;
            match start(self.config.clone(), self.work.clone()) {
                Ok(running) => self.running = Some(running),
                Err(error) => return self.fallen(error.to_string()),
            }
        }
        let report = match &mut self.running {
            Some(running) => running.reports.recv().await,
            None => None,
        };
        match report {
            Some(report) => report,
            None => self.fallen("the thread of the session ended by itself".to_owned()),
        }
    }

    fn fallen(&mut self, reason: String) -> Report {
        self.running = None;
        self.restart_at = Instant::now() + Duration::from_millis(RESTART_MS);
        let reason = format!("{reason}; it is started again in {RESTART_MS} ms");
        Report::Fallen { reason }
    }

    /// Orders the thread to end and waits until it has; what it still reports is left aside.
    pub(crate) async fn close(self) {
        if let Some(Running { _stop, mut reports }) = self.running {
            drop(_stop);
            while reports.recv().await.is_some() {}
        }
    }
}

fn start(config: ZooKeeperConfig, work: Work) -> Result<Running, RegistryError> {
    let (stop, stopped) = channel::channel(());
    let (reports, queue) = mpsc::channel(REPORTS_QUEUED_MAX);
    let engine = Engine::new(config, work, reports, stopped)?;
    thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || {
            // The library logs each event as information and each expected loss as an error; what matters is
            // reported instead.
            let silence = tracing::Dispatch::none();
            tracing::dispatcher::with_default(&silence, || engine.run());
        })
        .map_err(|error| RegistryError::Thread {
            reason: error.to_string(),
        })?;
    Ok(Running {
        _stop: stop,
        reports: queue,
    })
}
