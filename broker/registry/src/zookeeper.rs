//! The thread that keeps a ZooKeeper session going: it dials, lists, watches, and when the session is worth
//! nothing any more, gives it up and builds the next.
//!
//! It is a thread with a runtime of its own per session, because dropping that runtime is what ends the
//! client library's tasks. A session is given up when its connection ends, when a call fails, or when one is
//! not answered within a third of the session timeout; heartbeats come as often, so a frozen server is left
//! before the session has run out. Servers are tried in random order, each once per round; between rounds the
//! wait doubles up to a cap, so that a server that accepts and closes costs next to nothing.
//!
//! *Architecture invariant.* Only reports leave this thread; the last good list is kept by those who read them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::children::{Children, Listing};
use crate::client::{CallError, Changes, Client};
use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::gate::Gate;
use crate::hosts::HostList;
use crate::resolver::Resolver;

/// The wait after the first round without a session; each further one doubles it.
const ROUND_WAIT_MS_MIN: u64 = 1_000;
const ROUND_WAIT_MS_MAX: u64 = 5_000;
/// A session that lasted this long ends the doubling: what follows is a new outage.
const SESSION_GOOD_MS: u64 = 5_000;
/// After a good session the next is tried within this, at random, so that a fleet does not come back in one
/// moment.
const RESUME_WAIT_MS_MAX: u64 = 250;
/// Changes that come in a burst are read together.
const BURST_MS: u64 = 20;
/// What saying goodbye may take.
const CLOSE_MS_MAX: u64 = 300;

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// A session with this server is up, after so long without one.
    Up { server: SocketAddr, after: Duration },
    /// All that is registered now.
    Listing(Listing),
    /// The session is lost, after so long.
    Lost {
        server: SocketAddr,
        reason: String,
        lasted: Duration,
    },
    /// A whole round of servers gave no session.
    Unreachable { reason: String },
    /// The audit found so many differences that no watch had told.
    Audited { differences: usize },
}

/// The running thread. Dropping it orders it to end.
pub(crate) struct Handle {
    _stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Handle {
    /// Orders the thread to end and waits until it has.
    pub(crate) async fn close(self) {
        drop(self._stop);
        let _ = self.ended.await;
    }

    /// Returns when the thread ended by itself, which only a bug or a full machine can cause. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

/// Where reports go, each with the number of this thread, so that those of an earlier one can be told apart.
pub(crate) struct Reports<T> {
    pub(crate) queue: mpsc::Sender<T>,
    pub(crate) wrap: fn(u64, Report) -> T,
    pub(crate) epoch: u64,
}

impl<T> Reports<T> {
    /// `Err` when nobody listens any more.
    async fn send(&self, report: Report) -> Result<(), Gone> {
        self.queue
            .send((self.wrap)(self.epoch, report))
            .await
            .map_err(|_| Gone)
    }
}

/// Whoever listened is gone, or wants the thread to end.
struct Gone;

/// Why a session does not go on.
enum Broken {
    Gone,
    Call(CallError),
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Starts the thread.
///
/// # Errors
/// [`RegistryError::Address`] for the host list; [`RegistryError::Thread`] when the system gives no thread.
pub(crate) fn start<T: Send + 'static>(
    config: ZooKeeperConfig,
    nodes_max: usize,
    reports: Reports<T>,
) -> Result<Handle, RegistryError> {
    let hosts: HostList = config.hosts.parse()?;
    let (stop, stopped) = watch::channel(false);
    let (ending, ended) = oneshot::channel();
    let watcher = Watcher {
        path: hosts.full_path(&config.path),
        hosts,
        config,
        nodes_max,
        reports,
        stopped,
    };
    thread::Builder::new()
        .name("zookeeper".to_owned())
        .spawn(move || {
            // The library logs each event as information and each expected loss as an error; what matters is
            // reported instead.
            let silence = tracing::Dispatch::none();
            tracing::dispatcher::with_default(&silence, || watcher.run());
            drop(ending);
        })
        .map_err(|error| RegistryError::Thread {
            reason: error.to_string(),
        })?;
    Ok(Handle { _stop: stop, ended })
}

struct Watcher<T> {
    config: ZooKeeperConfig,
    hosts: HostList,
    /// With the chroot.
    path: String,
    nodes_max: usize,
    reports: Reports<T>,
    stopped: watch::Receiver<bool>,
}

/// How a session, or the attempt at one, came to its end.
enum End {
    /// There was none.
    Never(String),
    /// There was one and it was lost.
    Lost,
}

impl<T: Send + 'static> Watcher<T> {
    fn run(mut self) {
        let mut without_since = Instant::now();
        let mut rounds_in_vain = 0;
        loop {
            let started = Instant::now();
            let Ok(end) = self.round(without_since) else {
                return;
            };
            let good = Duration::from_millis(SESSION_GOOD_MS);
            let wait = match end {
                End::Lost if started.elapsed() >= good => {
                    rounds_in_vain = 0;
                    Duration::from_millis(rand::random_range(0..=RESUME_WAIT_MS_MAX))
                }
                _ => {
                    rounds_in_vain += 1;
                    round_wait(rounds_in_vain)
                }
            };
            if matches!(end, End::Lost) {
                without_since = Instant::now();
            }
            if self.pause(end, wait).is_err() {
                return;
            }
        }
    }

    /// Runs `work` in a runtime of its own, ended with it; `Err` when the order to end comes first.
    fn alone<O>(&mut self, work: impl AsyncFnOnce(&mut Self) -> O) -> Result<O, Gone> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| Gone)?;
        let done = runtime.block_on(work(self));
        drop(runtime);
        Ok(done)
    }

    /// Tries every server once until one gives a session, and stays with it until it is lost.
    fn round(&mut self, without_since: Instant) -> Result<End, Gone> {
        let (servers, mut errors) = self.alone(async |watcher| {
            let resolver = Resolver::system();
            tokio::select! {
                resolved = watcher.hosts.resolve(&resolver) => Ok(resolved),
                () = stop_ordered(&mut watcher.stopped) => Err(Gone),
            }
        })??;
        for server in servers {
            match self.alone(async |watcher| watcher.life(server, without_since).await)?? {
                End::Never(reason) => errors.push(format!("{server}: {reason}")),
                lost @ End::Lost => return Ok(lost),
            }
        }
        Ok(End::Never(errors.join("; ")))
    }

    /// Tells why there is no session now, and waits.
    fn pause(&mut self, end: End, wait: Duration) -> Result<(), Gone> {
        self.alone(async |watcher| {
            if let End::Never(reason) = end {
                watcher.reports.send(Report::Unreachable { reason }).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => Ok(()),
                () = stop_ordered(&mut watcher.stopped) => Err(Gone),
            }
        })?
    }

    /// One connection to one server, from dialling to its end.
    async fn life(&mut self, server: SocketAddr, without_since: Instant) -> Result<End, Gone> {
        let mut stopped = self.stopped.clone();
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let mut gate = tokio::select! {
            opened = Gate::open(server, limit) => match opened {
                Ok(gate) => gate,
                Err(reason) => return Ok(End::Never(reason)),
            },
            () = stop_ordered(&mut stopped) => return Err(Gone),
        };
        let begin = tokio::select! {
            begun = self.begin(&gate) => begun.map_err(|error| error.to_string()),
            () = stop_ordered(&mut stopped) => return Err(Gone),
        };
        let (client, changes) = match begin {
            Ok(begun) => begun,
            Err(reason) => return Ok(End::Never(self.better_reason(&mut gate, reason).await)),
        };
        let since = Instant::now();
        let mut is_up = false;
        let reason = tokio::select! {
            ended = gate.ended() => ended,
            ended = self.session(server, without_since, &client, changes, &mut is_up) => match ended {
                Ok(never) => match never {},
                Err(Broken::Gone) => return Err(Gone),
                Err(Broken::Call(error)) => error.to_string(),
            },
            () = stop_ordered(&mut stopped) => {
                let limit = Duration::from_millis(CLOSE_MS_MAX);
                client.close(limit).await;
                // The word has to pass the gate yet; the server closes when it has come.
                let _ = tokio::time::timeout(limit, gate.ended()).await;
                return Err(Gone);
            }
        };
        if !is_up {
            return Ok(End::Never(reason));
        }
        let lost = Report::Lost {
            server,
            reason: reason.clone(),
            lasted: since.elapsed(),
        };
        self.reports.send(lost).await?;
        Ok(End::Lost)
    }

    /// A call fails for a reason when the connection did: that reason says more.
    async fn better_reason(&self, gate: &mut Gate, reason: String) -> String {
        match tokio::time::timeout(Duration::ZERO, gate.ended()).await {
            Ok(ended) => ended,
            Err(_) => reason,
        }
    }

    async fn begin(&self, gate: &Gate) -> Result<(Arc<Client>, Changes), CallError> {
        let session = Duration::from_millis(self.config.session_timeout_ms);
        let (client, changes) = Client::connect(gate, session, session / 3).await?;
        Ok((Arc::new(client), changes))
    }

    /// Proves the session by reading the list, then reports every change until a call fails.
    async fn session(
        &self,
        server: SocketAddr,
        without_since: Instant,
        client: &Arc<Client>,
        mut changes: Changes,
        is_up: &mut bool,
    ) -> Result<Infallible, Broken> {
        if let Some(digest) = &self.config.digest_auth {
            client.authenticate(digest).await?;
        }
        let mut children = Children::new(self.path.clone(), self.nodes_max);
        let mut told = children.refresh(client).await?;
        // Only now is it worth something: a session that may not read the list is none.
        *is_up = true;
        let after = without_since.elapsed();
        self.reports.send(Report::Up { server, after }).await?;
        self.reports.send(Report::Listing(told.clone())).await?;

        let mut heartbeat = every(self.config.session_timeout_ms / 3);
        let mut audit = every(self.config.audit_ms);
        loop {
            tokio::select! {
                change = changes.next() => {
                    tokio::time::sleep(Duration::from_millis(BURST_MS)).await;
                    children.note(change, &mut changes);
                }
                _ = heartbeat.tick() => { client.exists(&self.path).await?; }
                _ = audit.tick() => {
                    let differences = children.audit(client).await?;
                    if differences > 0 {
                        self.reports.send(Report::Audited { differences }).await?;
                    }
                }
            }
            let listing = children.refresh(client).await?;
            if listing != told {
                self.reports.send(Report::Listing(listing.clone())).await?;
                told = listing;
            }
        }
    }
}

/// Ticks at this interval, first after one.
fn every(interval_ms: u64) -> tokio::time::Interval {
    let interval = Duration::from_millis(interval_ms);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn stop_ordered(stopped: &mut watch::Receiver<bool>) {
    // Nothing is ever sent: the end of the sender is the order.
    while stopped.changed().await.is_ok() {}
}

fn round_wait(rounds_in_vain: u32) -> Duration {
    let whole = ROUND_WAIT_MS_MIN
        .saturating_mul(1 << (rounds_in_vain - 1).min(10))
        .min(ROUND_WAIT_MS_MAX);
    Duration::from_millis(rand::random_range(whole * 6 / 10..=whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_wait_longer_up_to_a_cap_and_never_below_half_a_second() {
        for rounds in 1..40 {
            let wait = round_wait(rounds).as_millis() as u64;
            assert!((600..=ROUND_WAIT_MS_MAX).contains(&wait), "{rounds}: {wait}");
        }
        assert!(round_wait(10).as_millis() >= 3_000);
    }
}
