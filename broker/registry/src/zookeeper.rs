//! The engine that keeps a ZooKeeper session alive. It dials a server and works in the session (`work.rs`). When the
//! connection fails, it gives it up and dials the next server.
//!
//! The engine runs in its own thread, with a runtime per connection, because dropping the runtime is the only way to
//! end the client library's tasks. A connection is given up when it ends, when a call fails, or when a call is not
//! answered within a third of the session timeout. The work makes a call at least that often, so a frozen server is left
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

use crate::client::{CallError, Changes, Client};
use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::gate::{Gate, Opened};
use crate::hosts::HostList;
use crate::resolver::Resolver;
use crate::session::{Broken, Gone, Report, Session};
use crate::ticket::Ticket;
use crate::work::Work;

/// Wait after the first round without a session. It doubles with each further round.
const ROUND_WAIT_MS_MIN: u64 = 1_000;
const ROUND_WAIT_MS_MAX: u64 = 5_000;
/// Divisor of the session timeout. While the session may not have expired yet, no wait is longer than this part of
/// it.
const CONTINUE_WAIT_PART: u32 = 6;
/// A session that lasted this long resets the doubling: a later loss is a new outage.
const SESSION_GOOD_MS: u64 = 5_000;
/// Upper bound of the random wait after a good session, so that the nodes of a fleet do not reconnect at the same
/// moment.
const RESUME_WAIT_MS_MAX: u64 = 250;
/// Limit for each of the two closing steps: the last calls of the work, and the close of the session.
const CLOSE_MS_MAX: u64 = 300;

/// The engine, before and while it runs.
pub(crate) struct Engine {
    config: ZooKeeperConfig,
    hosts: HostList,
    work: Work,
    reports: mpsc::Sender<Report>,
    stopped: watch::Receiver<()>,
    /// The session that the next connection resumes.
    ticket: Option<Ticket>,
    /// Time at which the last proven connection was lost.
    lost_at: Option<Instant>,
}

/// Outcome of a connection, or of the attempt.
enum End {
    /// No session could be opened, or the session was lost before any call of the work succeeded.
    Never(String),
    /// The session that the connection should resume has expired.
    Expired,
    /// The connection was proven and then lost.
    Lost,
}

impl Engine {
    /// Creates the engine. Dropping the sender of `stopped` is the stop order.
    ///
    /// # Errors
    /// [`RegistryError::Address`] for the host list.
    pub(crate) fn new(
        config: ZooKeeperConfig,
        work: Work,
        reports: mpsc::Sender<Report>,
        stopped: watch::Receiver<()>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            hosts: config.hosts.parse()?,
            config,
            work,
            reports,
            stopped,
            ticket: None,
            lost_at: None,
        })
    }

    /// Runs until the stop order, or until no reader takes the reports any more.
    pub(crate) fn run(mut self) {
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
                self.lost_at = Some(without_since);
            }
            let wait = wait.min(self.wait_max());
            if self.pause(end, wait).is_err() {
                return;
            }
        }
    }

    /// Runs `work` in a runtime of its own and drops the runtime afterwards. Returns `Err` only if the runtime cannot
    /// be built.
    fn alone<O>(&mut self, work: impl AsyncFnOnce(&mut Self) -> O) -> Result<O, Gone> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| Gone)?;
        let done = runtime.block_on(work(self));
        drop(runtime);
        Ok(done)
    }

    /// Tries every server once until one provides a session. Stays with that session until it is lost.
    fn round(&mut self, without_since: Instant) -> Result<End, Gone> {
        let (servers, mut errors) = self.alone(async |engine| {
            let resolver = Resolver::system();
            tokio::select! {
                resolved = engine.hosts.resolve(&resolver) => Ok(resolved),
                () = stop_ordered(&mut engine.stopped) => Err(Gone),
            }
        })??;
        for server in servers {
            let mut end = self.alone(async |engine| engine.life(server, without_since).await)??;
            if matches!(end, End::Expired) {
                end = self.alone(async |engine| engine.life(server, without_since).await)??;
            }
            match end {
                End::Never(reason) => errors.push(format!("{server}: {reason}")),
                End::Expired => errors.push(format!("{server}: refuses a new session")),
                End::Lost => return Ok(end),
            }
        }
        Ok(End::Never(errors.join("; ")))
    }

    /// Reports why there is no session now, and waits.
    fn pause(&mut self, end: End, wait: Duration) -> Result<(), Gone> {
        self.alone(async |engine| {
            if let End::Never(reason) = end {
                engine.report(Report::Unreachable { reason }).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => Ok(()),
                () = stop_ordered(&mut engine.stopped) => Err(Gone),
            }
        })?
    }

    /// Runs one connection to one server, from the dial to its end.
    async fn life(&mut self, server: SocketAddr, without_since: Instant) -> Result<End, Gone> {
        let mut stopped = self.stopped.clone();
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let mut gate = tokio::select! {
            opened = Gate::open(server, limit, self.ticket.clone()) => match opened {
                Ok(gate) => gate,
                Err(reason) => return Ok(End::Never(reason)),
            },
            () = stop_ordered(&mut stopped) => return Err(Gone),
        };
        let begin = tokio::select! {
            begun = self.begin(&mut gate) => begun,
            () = stop_ordered(&mut stopped) => return Err(Gone),
        };
        let (client, changes, ticket) = match begin {
            Ok(Some(begun)) => begun,
            Ok(None) => {
                self.ticket = None;
                return Ok(End::Expired);
            }
            Err(reason) => return Ok(End::Never(better_reason(&mut gate, reason).await)),
        };
        let since = Instant::now();
        let number = ticket.session;
        let before = self.ticket.replace(ticket);
        let mut session = Session {
            number,
            is_continued: before.is_some_and(|before| before.session == number),
            client: Arc::new(client),
            changes,
            server,
            without_since,
            reports: &self.reports,
            is_proven: false,
        };
        let reason = tokio::select! {
            ended = gate.ended() => Some(ended),
            served = self.work.serve(&mut session) => match served {
                Ok(never) => match never {},
                Err(Broken::Gone) => None,
                Err(Broken::Failed(reason)) => Some(reason),
            },
            () = stop_ordered(&mut stopped) => None,
        };
        let (client, is_proven) = (session.client, session.is_proven);
        let Some(reason) = reason else {
            self.farewell(&client, &mut gate).await;
            return Err(Gone);
        };
        if !is_proven {
            return Ok(End::Never(reason));
        }
        let lasted = since.elapsed();
        self.report(Report::Lost {
            server,
            reason,
            lasted,
        })
        .await?;
        Ok(End::Lost)
    }

    /// Opens the session. Returns `None` if the session to be resumed has expired.
    async fn begin(&self, gate: &mut Gate) -> Result<Option<(Client, Changes, Ticket)>, String> {
        let told = |error: CallError| error.to_string();
        let session = self.session_timeout();
        let (mut client, changes) = Client::connect(gate, session, session / 3).await.map_err(told)?;
        let ticket = match gate.opened(session / 3).await? {
            Opened::Session(ticket) => ticket,
            Opened::Expired => return Ok(None),
        };
        if let Some(digest) = &self.config.digest_auth {
            client.authenticate(digest).await.map_err(told)?;
        }
        Ok(Some((client, changes, ticket)))
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.config.session_timeout_ms)
    }

    /// Returns the upper bound of the next wait. It is short while the session may not have expired yet.
    fn wait_max(&self) -> Duration {
        let is_urgent = self.ticket.is_some()
            && self
                .lost_at
                .is_some_and(|lost_at| lost_at.elapsed() < self.session_timeout());
        if is_urgent {
            self.session_timeout() / CONTINUE_WAIT_PART
        } else {
            Duration::MAX
        }
    }

    /// Closes the session in order, if the server cooperates.
    async fn farewell(&mut self, client: &Client, gate: &mut Gate) {
        let limit = Duration::from_millis(CLOSE_MS_MAX);
        let _ = tokio::time::timeout(limit, self.work.leave(client)).await;
        let closing = async {
            client.close(limit).await;
            // The close request still has to pass the gate. The server closes the connection when it has received the
            // request.
            gate.ended().await
        };
        let _ = tokio::time::timeout(limit, closing).await;
    }

    async fn report(&self, report: Report) -> Result<(), Gone> {
        self.reports.send(report).await.map_err(|_| Gone)
    }
}

/// Returns the reason for the end of the connection, if it has ended; it says more than the `reason` of the failed
/// call.
async fn better_reason(gate: &mut Gate, reason: String) -> String {
    match tokio::time::timeout(Duration::ZERO, gate.ended()).await {
        Ok(ended) => ended,
        Err(_) => reason,
    }
}

async fn stop_ordered(stopped: &mut watch::Receiver<()>) {
    // No value is ever sent. The drop of the sender is the stop order.
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
