//! The loop that keeps a ZooKeeper session alive. It connects to a server and runs the task in the session. When the
//! connection fails, it connects to the next server.
//!
//! The loop runs in its own thread, with a runtime per connection, because dropping the runtime is the only way to
//! end the client library's tasks. The loop moves on when the connection ends, when a call fails, or when a call is not
//! answered within a third of the session timeout. The task makes a call at least that often, so a frozen server is left
//! before the session expires. Servers are tried in random order, each once per round. The wait between rounds
//! doubles up to a cap, so that a server that accepts and closes costs almost nothing.
//!
//! A lost connection does not end the session. Each new connection resumes the last session, so the ephemeral znodes
//! stay and readers notice nothing. While the session can still be resumed, the waits are short. A new session begins
//! only after a server reports that the session has expired; ZooKeeper itself has then deleted its znodes. The new
//! session begins on that server, at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{mpsc, watch};

use crate::client::{CallError, Client};
use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::hosts::HostList;
use crate::relay::Relay;
use crate::resolver::Resolver;
use crate::session::{Session, SessionError, SessionReport, Stopped};
use crate::session_key::{SessionAnswer, SessionKey};
use crate::session_task::SessionTask;

/// Wait after the first round without a session. It doubles with each further round.
const ROUND_WAIT_MS_MIN: u64 = 1_000;
const ROUND_WAIT_MS_MAX: u64 = 5_000;
/// Divisor of the session timeout. The result is the longest wait while the session can still be resumed.
const CONTINUE_WAIT_PART: u32 = 6;
/// If a session is lost at least this long after its round began, this is a new outage, and the doubling starts again.
const SESSION_GOOD_MS: u64 = 5_000;
/// Upper bound of the random wait after a good session, so that the nodes of a fleet do not reconnect at the same
/// moment.
const RESUME_WAIT_MS_MAX: u64 = 250;
/// Limit for each of the two closing steps: the task's last calls, and the close of the session.
const CLOSE_MS_MAX: u64 = 300;

/// State of the loop.
pub(crate) struct SessionLoop {
    config: ZooKeeperConfig,
    hosts: HostList,
    task: SessionTask,
    reports: mpsc::Sender<SessionReport>,
    stopped: watch::Receiver<()>,
    /// The session that the next connection resumes.
    key: Option<SessionKey>,
    /// Time of the last [`End::Lost`].
    lost_at: Option<Instant>,
}

/// Outcome of a connection, or of the attempt to connect.
enum End {
    /// No session could be opened, or the session was lost before the task reported anything.
    NoSession(String),
    /// The session that the connection should resume has expired.
    Expired,
    /// The session was lost after the task had reported something.
    Lost,
}

impl SessionLoop {
    /// Creates the loop. Dropping the sender of `stopped` stops it.
    ///
    /// # Errors
    /// [`RegistryError::Address`] if the host list is invalid.
    pub(crate) fn new(
        config: ZooKeeperConfig,
        task: SessionTask,
        reports: mpsc::Sender<SessionReport>,
        stopped: watch::Receiver<()>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            hosts: config.hosts.parse()?,
            config,
            task,
            reports,
            stopped,
            key: None,
            lost_at: None,
        })
    }

    /// Runs until it is stopped, or until the receiver of the reports is gone.
    pub(crate) fn run(mut self) {
        let mut disconnected_since = Instant::now();
        let mut failed_rounds = 0;
        loop {
            let started = Instant::now();
            let Ok(end) = self.round(disconnected_since) else {
                return;
            };
            let good = Duration::from_millis(SESSION_GOOD_MS);
            let wait = match end {
                End::Lost if started.elapsed() >= good => {
                    failed_rounds = 0;
                    Duration::from_millis(rand::random_range(0..=RESUME_WAIT_MS_MAX))
                }
                _ => {
                    failed_rounds += 1;
                    round_wait(failed_rounds)
                }
            };
            if matches!(end, End::Lost) {
                disconnected_since = Instant::now();
                self.lost_at = Some(disconnected_since);
            }
            let wait = wait.min(self.wait_max());
            if self.pause(end, wait).is_err() {
                return;
            }
        }
    }

    /// Runs `work` in a runtime of its own and drops the runtime afterwards. Returns `Err` only if the runtime cannot
    /// be built.
    fn in_own_runtime<O>(&mut self, work: impl AsyncFnOnce(&mut Self) -> O) -> Result<O, Stopped> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| Stopped)?;
        let done = runtime.block_on(work(self));
        drop(runtime);
        Ok(done)
    }

    /// Tries one server after the other until one provides a session. Returns when that session is lost, or when all
    /// servers have failed.
    fn round(&mut self, disconnected_since: Instant) -> Result<End, Stopped> {
        let (servers, mut errors) = self.in_own_runtime(async |this| {
            let resolver = Resolver::new(None);
            tokio::select! {
                resolved = this.hosts.resolve(&resolver) => Ok(resolved),
                () = stopped_by_owner(&mut this.stopped) => Err(Stopped),
            }
        })??;
        for server in servers {
            let mut connect =
                || self.in_own_runtime(async |this| this.connection(server, disconnected_since).await);
            let mut end = connect()??;
            if matches!(end, End::Expired) {
                end = connect()??;
            }
            match end {
                End::NoSession(reason) => errors.push(format!("{server}: {reason}")),
                End::Expired => errors.push(format!("{server}: refuses a new session")),
                End::Lost => return Ok(end),
            }
        }
        Ok(End::NoSession(errors.join("; ")))
    }

    /// Reports why there is no session now, and waits.
    fn pause(&mut self, end: End, wait: Duration) -> Result<(), Stopped> {
        self.in_own_runtime(async |this| {
            if let End::NoSession(reason) = end {
                this.report(SessionReport::Unreachable { reason }).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => Ok(()),
                () = stopped_by_owner(&mut this.stopped) => Err(Stopped),
            }
        })?
    }

    /// Runs one connection to one server, from the dial to its end.
    async fn connection(&mut self, server: SocketAddr, disconnected_since: Instant) -> Result<End, Stopped> {
        let mut stopped = self.stopped.clone();
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let mut relay = tokio::select! {
            opened = Relay::open(server, limit, self.key.clone()) => match opened {
                Ok(relay) => relay,
                Err(reason) => return Ok(End::NoSession(reason)),
            },
            () = stopped_by_owner(&mut stopped) => return Err(Stopped),
        };
        let begin = tokio::select! {
            begun = self.begin(&mut relay) => begun,
            () = stopped_by_owner(&mut stopped) => return Err(Stopped),
        };
        let (client, key) = match begin {
            Ok(Some(begun)) => begun,
            Ok(None) => {
                self.key = None;
                return Ok(End::Expired);
            }
            Err(reason) => return Ok(End::NoSession(reason_of_end(&mut relay, reason).await)),
        };
        let since = Instant::now();
        let id = key.session;
        let before = self.key.replace(key);
        let mut session = Session {
            id,
            is_resumed: before.is_some_and(|before| before.session == id),
            client: Arc::new(client),
            server,
            disconnected_since,
            reports: &self.reports,
            is_proven: false,
        };
        let reason = tokio::select! {
            ended = relay.ended() => Some(ended),
            served = self.task.run(&mut session) => match served {
                Ok(never) => match never {},
                Err(SessionError::Stopped(_)) => None,
                Err(SessionError::Call(error)) => Some(error.to_string()),
            },
            () = stopped_by_owner(&mut stopped) => None,
        };
        let (client, is_proven) = (session.client, session.is_proven);
        let Some(reason) = reason else {
            self.close_session(&client, &mut relay).await;
            return Err(Stopped);
        };
        if !is_proven {
            return Ok(End::NoSession(reason));
        }
        let lasted = since.elapsed();
        self.report(SessionReport::Lost {
            server,
            reason,
            lasted,
        })
        .await?;
        Ok(End::Lost)
    }

    /// Opens the session. Returns `None` if the session to be resumed has expired.
    async fn begin(&self, relay: &mut Relay) -> Result<Option<(Client, SessionKey)>, String> {
        let text = |error: CallError| error.to_string();
        let session = self.session_timeout();
        let mut client = Client::connect(relay, session, session / 3).await.map_err(text)?;
        let key = match relay.opened(session / 3).await? {
            SessionAnswer::Granted(key) => key,
            SessionAnswer::Expired => return Ok(None),
        };
        if let Some(digest) = &self.config.digest_auth {
            client
                .authenticate(digest, self.config.readers)
                .await
                .map_err(text)?;
        }
        Ok(Some((client, key)))
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.config.session_timeout_ms)
    }

    /// Returns the upper bound of the next wait. It is short while the session can still be resumed.
    fn wait_max(&self) -> Duration {
        let is_urgent = self.key.is_some()
            && self
                .lost_at
                .is_some_and(|lost_at| lost_at.elapsed() < self.session_timeout());
        if is_urgent {
            self.session_timeout() / CONTINUE_WAIT_PART
        } else {
            Duration::MAX
        }
    }

    /// Deletes this node's znode and closes the session, if the server answers in time.
    async fn close_session(&mut self, client: &Client, relay: &mut Relay) {
        let limit = Duration::from_millis(CLOSE_MS_MAX);
        let _ = tokio::time::timeout(limit, self.task.registration_task.before_close(client)).await;
        let closing = async {
            client.close(limit).await;
            // The close request still has to pass the relay. The server closes the connection when it has received the
            // request.
            relay.ended().await
        };
        let _ = tokio::time::timeout(limit, closing).await;
    }

    async fn report(&self, report: SessionReport) -> Result<(), Stopped> {
        self.reports.send(report).await.map_err(|_| Stopped)
    }
}

/// Returns why the connection ended, which says more than `reason`, the error of the failed call. Returns `reason` if the
/// connection has not ended.
async fn reason_of_end(relay: &mut Relay, reason: String) -> String {
    match tokio::time::timeout(Duration::ZERO, relay.ended()).await {
        Ok(ended) => ended,
        Err(_) => reason,
    }
}

async fn stopped_by_owner(stopped: &mut watch::Receiver<()>) {
    // No value is ever sent. The drop of the sender stops the loop.
    while stopped.changed().await.is_ok() {}
}

fn round_wait(failed_rounds: u32) -> Duration {
    let whole = ROUND_WAIT_MS_MIN
        .saturating_mul(1 << (failed_rounds - 1).min(10))
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
