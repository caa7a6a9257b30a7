//! [`Agent`]: checks the server again and again, and keeps its record in ZooKeeper accordingly.
//!
//! Most checks are a PING on the connection that is kept open. After [`LOGIN_EVERY`] of them, and after a failed check, a new connection
//! with a new login takes its place, because an old one does not prove that the server still accepts clients. A server in lame duck mode
//! accepts no new connection, so there the old one is used until the server closes it.
//!
//! If two agents check one server, the agent that started last holds the record, and the earlier agent waits until the later one ends. If
//! a server at another address holds the id, this is an error. It ends an agent that has never registered; any other agent retries.

use std::time::{Duration, Instant};

use standin_registry::{Announcement, Node, RegistrationState, Watch};
use standin_wire::Info;
use tokio::sync::watch as channel;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::check_error::CheckError;
use super::hysteresis::Hysteresis;
use super::record;
use super::server_connection::ServerConnection;
use super::target::Target;

/// Number of checks after which the agent logs in anew. A login may cost the server some milliseconds of CPU time (bcrypt, TLS).
const LOGIN_EVERY: u32 = 30;

/// Minimum time between the starts of two checks, so that a server that closes each connection after the login is not flooded.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The agent's state.
pub(super) struct Agent {
    target: Target,
    watch: Watch,
    hysteresis: Hysteresis,
    connection: Option<ServerConnection>,
    /// Number of checks on the present connection.
    checks: u32,
    registered: Option<Registered>,
    /// Whether a record of the agent was in ZooKeeper at any time.
    has_registered: bool,
    /// Whether the last check failed. The first failure in a row is logged as a warning, and so is the one after which the server no
    /// longer counts as serving. The others are logged at level debug.
    is_failing: bool,
}

/// The registration of the server, while it serves.
struct Registered {
    announcement: Announcement,
    state: channel::Receiver<RegistrationState>,
    node: Node,
    /// Identifier of the server process. A new process gets a new registration.
    server_id: String,
}

/// What the agent waits for between two checks.
enum Event {
    Due,
    /// The server has sent an INFO on the open connection.
    Info,
    Ended(CheckError),
    Registration(RegistrationState),
}

impl Agent {
    pub(super) fn new(target: Target, watch: Watch) -> Self {
        Self {
            hysteresis: Hysteresis::new(target.failures, target.successes),
            target,
            watch,
            connection: None,
            checks: 0,
            registered: None,
            has_registered: false,
            is_failing: false,
        }
    }

    /// Checks and registers the server, until its id turns out to be taken. Returns the reason. Cancel-safe.
    pub(super) async fn run(&mut self) -> String {
        loop {
            let began = Instant::now();
            let due = began + self.target.interval;
            let checked = self.check().await;
            self.judge(checked);
            self.settle().await;
            loop {
                match self.event(due).await {
                    Event::Due => break,
                    Event::Info => self.settle().await,
                    Event::Ended(error) => {
                        debug!(kind = error.kind(), "connection to the server ended: {error}");
                        self.connection = None;
                        sleep_until((began + PAUSE_MIN).into()).await;
                        break;
                    }
                    Event::Registration(RegistrationState::Announced) => self.has_registered = true,
                    Event::Registration(RegistrationState::Taken { reason }) if !self.has_registered => {
                        return reason;
                    }
                    Event::Registration(_) => {}
                }
            }
        }
    }

    /// Deletes the record and ends the ZooKeeper session.
    pub(super) async fn end(mut self) {
        self.unregister().await;
        self.watch.close().await;
    }

    /// Makes one check.
    async fn check(&mut self) -> Result<(), CheckError> {
        let limit = self.target.limit;
        if let Some(connection) = &mut self.connection
            && (connection.info.ldm || self.checks < LOGIN_EVERY)
        {
            self.checks += 1;
            connection.ping(limit).await?;
            if connection.info.ldm {
                return Ok(());
            }
        } else {
            match ServerConnection::open(&self.target).await {
                Ok(connection) => self.connection = Some(connection),
                // The server may have entered lame duck mode, and have said so on the old connection.
                Err(_) if self.is_lame_duck().await => return Ok(()),
                Err(error) => return Err(error),
            }
            self.checks = 0;
        }
        self.target.check_healthz().await
    }

    /// Returns whether the server answers on the open connection and is in lame duck mode.
    async fn is_lame_duck(&mut self) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        connection.ping(self.target.limit).await.is_ok() && connection.info.ldm
    }

    /// Takes the result of a check into account.
    fn judge(&mut self, checked: Result<(), CheckError>) {
        let node = &self.target.node;
        let checked = checked.and_then(|()| self.record().map(drop));
        let served = self.hysteresis.serves();
        match checked {
            Ok(()) => {
                let serves = self.hysteresis.passed();
                if std::mem::take(&mut self.is_failing) || serves != served {
                    info!(server = %node, serves, "check passed");
                }
            }
            Err(error) => {
                self.connection = None;
                let serves = self.hysteresis.failed(error.is_certain());
                let kind = error.kind();
                if !std::mem::replace(&mut self.is_failing, true) || serves != served {
                    warn!(server = %node, kind, serves, "check failed: {error}");
                } else {
                    debug!(server = %node, kind, serves, "check failed: {error}");
                }
            }
        }
    }

    /// Returns the record of the server by its last INFO; `None` without a connection.
    fn record(&self) -> Result<Option<(Node, &Info)>, CheckError> {
        let info = self.connection.as_ref().map(|connection| &connection.info);
        info.map(|info| Ok((record::of(&self.target, info)?, info)))
            .transpose()
    }

    /// Registers the server if it serves, changes its record if it has changed, and deletes it if the server no longer serves.
    async fn settle(&mut self) {
        if !self.hysteresis.serves() {
            return self.unregister().await;
        }
        // Without a connection, the record stays as it is until the next check.
        let Ok(Some((node, info))) = self.record() else {
            return;
        };
        let server_id = info.server_id.clone();
        let is_same =
            |registered: &Registered| registered.server_id == server_id && registered.node.id == node.id;
        if !self.registered.as_ref().is_some_and(is_same) {
            self.unregister().await;
            return self.register(node, server_id);
        }
        let Some(registered) = &mut self.registered else {
            return;
        };
        let node = Node {
            run: registered.node.run.clone(),
            ..node
        };
        if node != registered.node {
            info!(id = %node.id, state = node.state.as_str(), "record changes");
            match registered.announcement.set(node.clone()) {
                Ok(()) => registered.node = node,
                Err(error) => warn!(kind = error.kind(), "record not changed: {error}"),
            }
        }
    }

    fn register(&mut self, node: Node, server_id: String) {
        let announcement = match Announcement::reserve(&self.watch, node.clone()) {
            Ok(announcement) => announcement,
            Err(error) => return warn!(kind = error.kind(), "server not registered, retrying: {error}"),
        };
        info!(id = %node.id, address = %node.client, version = %node.version, "server serves, registering");
        announcement.release();
        self.registered = Some(Registered {
            state: announcement.follow(),
            announcement,
            node,
            server_id,
        });
    }

    async fn unregister(&mut self) {
        if let Some(registered) = self.registered.take() {
            info!(id = %registered.node.id, "unregistering the server");
            registered.announcement.withdraw().await;
        }
    }

    /// Waits for the next event, at most until a check is due.
    async fn event(&mut self, due: Instant) -> Event {
        let Self {
            connection,
            registered,
            ..
        } = self;
        let news = async {
            match connection {
                Some(connection) => connection.next_info().await,
                None => std::future::pending().await,
            }
        };
        let registration = async {
            if let Some(registered) = registered
                && registered.state.changed().await.is_ok()
            {
                return registered.state.borrow_and_update().clone();
            }
            std::future::pending().await
        };
        tokio::select! {
            () = sleep_until(due.into()) => Event::Due,
            news = news => match news {
                Ok(()) => Event::Info,
                Err(error) => Event::Ended(error),
            },
            state = registration => Event::Registration(state),
        }
    }
}
