//! SIGUSR2: the program on disk replaces the running one in the same process, with all connections kept (promise S13).
//!
//! 1. The program on disk is checked with a state without sessions, so that most mistakes disturb nobody.
//! 2. Sessions with TLS to their component are ended in an orderly way, and those with TLS to their node leave it: the keys of a connection
//!    cannot be passed on.
//!    From here on no connection is accepted; new ones wait.
//! 3. Each session comes to [`rest`](crate::rest) and writes its state.
//! 4. The program on disk is checked with this very state.
//! 5. It is executed. It takes over the sockets and goes on with each session ([`Sidecar::go_on`](crate::sidecar::Sidecar::go_on)).
//!
//! If a step fails, the sessions go on in the running program, and the log says why. Those with TLS to their component have ended by then if
//! step 2 has begun.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use standin_daemon::handover_file::{HandoverFile, HandoverWriter};
use standin_daemon::successor::{HeldSignals, Successor, SuccessorError};
use standin_registry::RegistryMemory;
use thiserror::Error;
use tracing::debug;

use crate::handover::{self, FORMAT, ListenerRecord, Opening, Part, SidecarRecord, millis_since};
use crate::reporter;
use crate::rest::AtRest;
use crate::session::Session;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// Timeout for the first check, in which no session rests.
const FIRST_CHECK: Duration = Duration::from_secs(10);
/// Timeout for the second check, in which all sessions rest.
const SECOND_CHECK: Duration = Duration::from_secs(2);
/// Timeout for sessions with TLS to end or to leave their node.
const PREPARATION: Duration = Duration::from_secs(2);
/// Timeout for all sessions to come to rest.
const COME_TO_REST: Duration = Duration::from_secs(2);
/// Interval between two looks at each session. With many sessions, more looks would take the time that the sessions need (`tests/bench moves
/// --only upgrade`).
const LOOK: Duration = Duration::from_millis(20);

/// Reason why the running program was not replaced.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The program on disk.
    #[error(transparent)]
    Successor(#[from] SuccessorError),
    /// The state cannot be written.
    #[error(
        "state of the sidecar cannot be written: {0}; is there memory for it, and are there free file descriptors?"
    )]
    Write(#[from] io::Error),
    /// Signals cannot be held back while the program is replaced.
    #[error("signals cannot be held back: {0}")]
    Signals(#[source] io::Error),
    /// Sessions have not come to rest.
    #[error("{0} sessions have not come to rest within {COME_TO_REST:?}")]
    Busy(usize),
}

/// A socket that listens, kept open for the next program.
#[derive(Debug)]
pub(crate) struct KeptListener {
    pub(crate) socket: OwnedFd,
    /// See [`ListenerRecord::own_file`].
    pub(crate) own_file: Option<PathBuf>,
}

/// One attempt to replace the running program. When it is dropped, all sessions go on.
pub(crate) struct Upgrade<'u> {
    pub(crate) shared: &'u Arc<SidecarState>,
    pub(crate) listeners: &'u [KeptListener],
    pub(crate) successor: &'u Successor,
}

/// All sessions go on, also if the upgrade is cancelled.
impl Drop for Upgrade<'_> {
    fn drop(&mut self) {
        self.shared.rest.end();
        self.tell_all(SessionCommand::GoOn);
    }
}

impl Upgrade<'_> {
    /// Replaces the running program. Returns only if that fails. Dropping the future cancels the upgrade. Then all sessions go on.
    pub(crate) async fn run(self) -> UpgradeError {
        let Err(error) = self.try_run().await;
        self.shared.metrics.upgrades.increment("refused");
        error
    }

    async fn try_run(&self) -> Result<std::convert::Infallible, UpgradeError> {
        let registry = self.shared.registry.memory().await.unwrap_or_default();
        let first = HandoverWriter::create()?;
        let check = self.successor.begin_check(&first)?;
        let state = self.completed(first, Instant::now(), &registry)?;
        check.verdict(FIRST_CHECK).await?;
        drop(state);
        let file = HandoverWriter::create()?;
        // It starts while no session rests yet.
        let check = self.successor.begin_check(&file)?;
        self.prepare().await;
        self.shared.rest.begin(file);
        let at_rest = self.come_to_rest().await?;
        if let Some(error) = at_rest.error {
            return Err(error.into());
        }
        let began = at_rest.began.unwrap_or_else(Instant::now);
        // Losses that are not logged yet are not part of the state.
        reporter::log_losses_now(self.shared);
        let state = self.completed(at_rest.file, began, &registry)?;
        let rest_ms = millis_since(began);
        check.verdict(SECOND_CHECK).await?;
        let checked_ms = millis_since(began);
        debug!(
            state_bytes = state.bytes(),
            rest_ms, checked_ms, "executing the program on disk"
        );
        let listeners = self.listeners.iter().map(|listener| listener.socket.as_raw_fd());
        let sockets: Vec<RawFd> = at_rest.sockets.into_iter().chain(listeners).collect();
        let held = HeldSignals::hold().map_err(UpgradeError::Signals)?;
        // A signal that came before is handled now: SIGTERM cancels the upgrade.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let error = self.successor.execute(&state, &sockets);
        drop(held);
        Err(error.into())
    }

    /// Stops the acceptance of connections, and tells each session to prepare its rest. Waits for the sessions, for at most [`PREPARATION`],
    /// and for the PROXY protocol headers of accepted connections, which have a timeout of their own.
    async fn prepare(&self) {
        let rest = &self.shared.rest;
        rest.prepare();
        for session in self.shared.sessions.all() {
            session.is_preparing.store(true, Relaxed);
            session.send(SessionCommand::PrepareRest);
        }
        let until = Instant::now() + PREPARATION;
        let is_done =
            |session: &Arc<SessionInfo>| session.is_over.load(Relaxed) || !session.is_preparing.load(Relaxed);
        let is_prepared = || self.shared.sessions.all().iter().all(is_done) || Instant::now() >= until;
        while rest.pending_headers() > 0 || !is_prepared() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells all sessions to rest, and waits until they do, for at most [`COME_TO_REST`].
    async fn come_to_rest(&self) -> Result<AtRest, UpgradeError> {
        let rest = &self.shared.rest;
        let until = Instant::now() + COME_TO_REST;
        loop {
            let mut missing = self.shared.sessions.all();
            missing.retain(|session| !session.is_over.load(Relaxed));
            rest.retain_missing(&mut missing);
            if missing.is_empty() {
                break;
            }
            if Instant::now() >= until {
                return Err(UpgradeError::Busy(missing.len()));
            }
            rest.expect(self.shared.sessions.len());
            // Includes sessions that have begun since the last look.
            missing
                .iter()
                .for_each(|session| session.send(SessionCommand::Rest));
            // If a session ends instead, the number is not reached, and the next look finds that nothing is missing.
            let _ = tokio::time::timeout(LOOK, rest.reached()).await;
        }
        rest.take().ok_or(UpgradeError::Busy(0))
    }

    /// Writes the parts besides the sessions, and seals the file.
    fn completed(
        &self,
        mut file: HandoverWriter,
        rest_began: Instant,
        registry: &RegistryMemory,
    ) -> io::Result<HandoverFile> {
        let opening = Opening {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: self.successor.program().to_owned(),
        };
        let sidecar = Box::new(self.sidecar(rest_began, registry));
        for part in [Part::<&Session>::Opening(opening), Part::Sidecar(sidecar)] {
            file.write_all(&handover::encode_part(&part)?)?;
        }
        file.seal()
    }

    fn sidecar(&self, rest_began: Instant, registry: &RegistryMemory) -> SidecarRecord {
        let shared = self.shared;
        let settings = shared.settings.load();
        let listeners = settings.listeners();
        let mut sessions = vec![0; listeners.len()];
        for session in shared
            .sessions
            .all()
            .iter()
            .filter(|session| !session.is_over.load(Relaxed))
        {
            sessions[session.listener] += 1;
        }
        SidecarRecord {
            listeners: listeners.iter().map(|listener| listener.listen.clone()).collect(),
            sessions,
            http: settings.http_listen(),
            sockets: self
                .listeners
                .iter()
                .map(|listener| ListenerRecord {
                    socket: listener.socket.as_raw_fd(),
                    own_file: listener.own_file.clone(),
                })
                .collect(),
            mark: shared.book.self_check.mark().to_string(),
            session_ids: shared.session_ids.load(Relaxed),
            started: shared.started,
            rest_began,
            ended: shared.sessions.ended(),
            registry: registry.clone(),
            nodes: shared.book.record(),
            recovery: shared.recovery.record(),
            balancer: shared.balancer().record(),
            moves_total: shared.moves.total(),
            moves: shared.moves.kept(),
            losses: shared.losses.totals(),
            metrics: shared.metrics.save(),
        }
    }

    fn tell_all(&self, command: SessionCommand) {
        let sessions = self.shared.sessions.all();
        sessions.iter().for_each(|session| session.send(command));
    }
}
