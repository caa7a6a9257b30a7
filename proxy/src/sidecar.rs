//! The whole sidecar as one value: it is started from settings, reloaded and stopped.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle as ThreadHandle;
use std::time::{Duration, Instant};

use standin_daemon::descriptors;
use standin_daemon::http::PageAccess;
use standin_daemon::inherited_sockets::{InheritedSocketError, InheritedSockets};
use standin_daemon::listen::{self, is_missing};
use standin_daemon::settings::changes;
use standin_daemon::successor::Successor;
use standin_daemon::unix_socket::{self, UnixSocket};
use standin_registry::{NodeState, RegistryError, Snapshot};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::handover::{Handover, SessionRecord, SidecarRecord, millis_since, taken};
use crate::listener::{ListenSocket, Listener};
use crate::policy::Policy;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::settings::{ListenerSection, Settings, SettingsError};
use crate::sidecar_state::SidecarState;
use crate::task::{FormerRest, FormerTask};
use crate::upgrade::{KeptListener, Upgrade, UpgradeError};
use crate::worker::{AcceptedConnection, Workers};
use crate::{balance_task, http, listener, prober, reporter};

/// Sessions of the former program that are passed to the workers together, because a worker that sleeps between two sessions wakes up slowly.
const BATCH: usize = 100;

/// Reason why a sidecar cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The registry cannot be started.
    #[error("cannot watch for nodes: {0}")]
    Registry(#[from] RegistryError),
    /// The sidecar cannot listen on an address.
    #[error("cannot listen on {address}: {source}; is it in use, or not an address of this host?")]
    Listen {
        /// The address as given in the settings.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The sidecar cannot listen on a Unix socket.
    #[error("cannot listen on unix:{path}: {source}; is its folder there, and writable for this user?", path = path.display())]
    UnixSocket {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A socket of the service manager cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritedSocketError),
    /// A listener that is not in the settings has components.
    #[error(
        "listener {} is not in the settings, but has components ({sessions}); keep it, or restart the sidecar to close them",
        addresses.join(", ")
    )]
    InUse {
        /// The addresses of the listener.
        addresses: Vec<String>,
        /// Number of its sessions.
        sessions: usize,
    },
    /// A thread or event queue cannot be created.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[source] io::Error),
}

impl RunError {
    /// Returns the fixed name of this kind of error, for logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Settings(_) => "settings",
            Self::Registry(_) => "registry",
            Self::Listen { .. } | Self::UnixSocket { .. } | Self::Inherited(_) | Self::InUse { .. } => {
                "listen"
            }
            Self::Worker(_) => "worker",
        }
    }
}

/// A running sidecar. Dropping it stops listening. Its sessions end when their components close.
pub struct Sidecar {
    shared: Arc<SidecarState>,
    workers: Arc<Workers>,
    addresses: Vec<SocketAddr>,
    http_address: Option<SocketAddr>,
    page_access: watch::Sender<PageAccess>,
    accepting: JoinSet<()>,
    /// The listening sockets once more, for a program that replaces this one.
    listeners: Vec<KeptListener>,
    /// The other tasks, among them the HTTP pages.
    background: JoinSet<()>,
}

/// Runs a sidecar until `shutdown` is ready, then stops it gracefully.
///
/// # Errors
/// [`RunError`] if the sidecar cannot start.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let sidecar = Sidecar::start(settings).await?;
    shutdown.await;
    sidecar.stop().await;
    Ok(())
}

impl Sidecar {
    /// Starts listening, whether ZooKeeper and the nodes are up or down. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        Self::start_on(InheritedSockets::default(), settings).await
    }

    /// Starts as [`start`](Self::start) does, and listens for components on the sockets of the service manager where the addresses are
    /// the same.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start_on(inherited: InheritedSockets, settings: Settings) -> Result<Self, RunError> {
        Self::start_from(inherited, settings, None)
    }

    /// Goes on in place of the program that has left this state, with all of its sessions.
    ///
    /// # Errors
    /// [`RunError`]. The sessions are then closed.
    pub async fn go_on(handover: Handover, settings: Settings) -> Result<Self, RunError> {
        let Handover {
            opening,
            mut sidecar,
            sessions,
            is_partial,
        } = handover;
        let sockets = std::mem::take(&mut sidecar.sockets).into_iter();
        let sockets = sockets.filter_map(|record| Some((taken(record.socket)?, record.own_file)));
        let inherited = InheritedSockets::of_former(sockets.collect::<Vec<_>>());
        let (began, former_listeners) = (sidecar.rest_began, std::mem::take(&mut sidecar.listeners));
        let started = Self::start_from(inherited, settings, Some(sidecar))?;
        debug!(started_ms = millis_since(began), "going on with sessions");
        let places = places(&former_listeners, &started.shared.settings.load());
        let count = started.restore(sessions, &places);
        if is_partial {
            descriptors::close_left();
        }
        started.shared.metrics.upgrades.increment("done");
        info!(
            from = opening.version,
            to = env!("CARGO_PKG_VERSION"),
            sessions = count,
            pause_ms = millis_since(began),
            "sidecar upgraded"
        );
        Ok(started)
    }

    fn start_from(
        mut inherited: InheritedSockets,
        settings: Settings,
        mut former: Option<SidecarRecord>,
    ) -> Result<Self, RunError> {
        let policy = Policy::new(&settings)?;
        // The HTTP address is bound first, so that its pages can be read as soon as components can connect.
        let http_listener = match settings.http_listen() {
            None => None,
            Some(address) => {
                let mut none = InheritedSockets::default();
                // The service manager passes no socket for it, but the former program does.
                let inherited = if former.is_some() {
                    &mut inherited
                } else {
                    &mut none
                };
                let mut bound = or_go_on(
                    bind(&address, settings.socket.listen_backlog, inherited),
                    former.is_some(),
                )?;
                bound.pop()
            }
        };
        let (page_access, access) = watch::channel(settings.page_access()?);
        let listeners = listen(&settings, inherited)?;
        let kept = listeners
            .iter()
            .map(|listener| (listener.as_fd(), listener.own_file()));
        let http_socket = http_listener.as_ref().map(|listener| (listener.as_fd(), None));
        let kept = kept.chain(http_socket).map(|(socket, own_file)| {
            let socket = socket.try_clone_to_owned()?;
            Ok(KeptListener { socket, own_file })
        });
        let kept = kept.collect::<io::Result<Vec<_>>>().map_err(RunError::Worker)?;
        let addresses: Vec<SocketAddr> = listeners.iter().filter_map(Listener::tcp_address).collect();
        let names: Vec<String> = listeners.iter().map(Listener::address).collect();
        let memory = former.as_mut().map(|former| std::mem::take(&mut former.registry));
        let registry = standin_registry::watch_on(settings.registry_config()?, memory)?;
        let workers = match settings.limits.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let has_sessions = former.is_some();
        let shared = Arc::new(SidecarState::new(settings, policy, registry, &addresses, former));
        let workers = Workers::start(workers, has_sessions, &shared).map_err(RunError::Worker)?;
        let workers = Arc::new(workers);
        let mut background = JoinSet::new();
        background.spawn(follow_registry(Arc::clone(&shared)));
        background.spawn(prober::run(Arc::clone(&shared)));
        background.spawn(reporter::run(Arc::clone(&shared)));
        background.spawn(balance_task::run(Arc::clone(&shared)));
        let accept = |listener| listener::serve(listener, Arc::clone(&shared), Arc::clone(&workers));
        let accepting = listeners.into_iter().map(accept).collect();
        shared.listening.store(true, Relaxed);
        let mut http_address = None;
        if let Some(listener) = http_listener {
            http_address = listener.local_addr().ok();
            background.spawn(http::serve(listener, Arc::clone(&shared), access));
        }
        if let Some(address) = http_address {
            info!(%address, "serving HTTP");
        }
        for address in &names {
            info!(%address, "listening for components");
        }
        Ok(Self {
            shared,
            workers,
            addresses,
            http_address,
            page_access,
            accepting,
            listeners: kept,
            background,
        })
    }

    /// Goes on with the sessions of the former program. `places` has the place of each of its listeners in the present settings. Returns
    /// the number of sessions that go on.
    #[expect(clippy::vec_box, reason = "see `Handover::sessions`")]
    fn restore(&self, sessions: Vec<Box<SessionRecord>>, places: &[Option<usize>]) -> usize {
        let (mut count, mut batch) = (0, Vec::with_capacity(BATCH));
        let mut pass_on = |batch: &mut Vec<AcceptedConnection>| {
            count += batch.len();
            batch
                .drain(..)
                .for_each(|connection| self.workers.take(connection));
        };
        for record in sessions {
            let (id, component) = (record.id, record.component);
            match self.restored(*record, places) {
                Some(connection) => batch.push(connection),
                None => {
                    warn!(session = id, %component, "session closed: its connection is lost");
                }
            }
            if batch.len() == BATCH {
                pass_on(&mut batch);
            }
        }
        pass_on(&mut batch);
        self.shared.recovery.restored();
        count
    }

    fn restored(&self, record: SessionRecord, places: &[Option<usize>]) -> Option<AcceptedConnection> {
        // All of them, so that those that are not needed are closed.
        let component = taken(record.component_socket);
        let node = record.node_socket.and_then(taken);
        let next = record
            .next
            .and_then(|next| Some((taken(next.socket)?.into(), next)));
        let listener = places.get(record.listener).copied().flatten()?;
        let stream = component?.into();
        let client = record.session.client_label().cloned().unwrap_or_default();
        let session = SessionInfo::new(record.id, listener, record.component);
        session.has_sent_command.store(!record.task.is_half_open, Relaxed);
        let session = session.restored(record.connected, record.traffic, record.moves, client);
        let session = Arc::new(session);
        let half_open = record.task.is_half_open.then(|| Arc::clone(&session));
        self.shared
            .admission
            .restore(record.id, record.component.ip(), half_open);
        self.shared
            .recovery
            .restore_session(&session, record.task.served.as_ref(), record.away);
        self.shared.sessions.insert(Arc::clone(&session));
        let rest = FormerRest {
            node: node.map(Into::into),
            next,
            task: record.task,
        };
        let mut former = FormerTask {
            session: record.session,
            rest,
        };
        former.session.share_node(|node| self.shared.book.shared(node));
        Some(AcceptedConnection {
            stream,
            session,
            former: Some(Box::new(former)),
        })
    }

    /// Lets the program on disk replace this one, with all connections kept (promise S13). Returns only if that fails; then everything goes
    /// on as before.
    pub async fn upgrade(&mut self, successor: &Successor) -> UpgradeError {
        let upgrade = Upgrade {
            shared: &self.shared,
            listeners: &self.listeners,
            successor,
        };
        upgrade.run().await
    }

    /// Returns the TCP addresses to which components connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the runtimes of the worker threads, for the watchdog.
    pub fn workers(&self) -> Vec<Handle> {
        self.workers.runtimes()
    }

    /// Returns the address of the HTTP pages, if they are on.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Applies new settings (sources, limits, times) without closing a session. If the change of a setting needs a restart,
    /// it is logged, and the setting keeps its value.
    ///
    /// # Errors
    /// [`RunError`] if the new settings cannot be used; the present ones then stay in force.
    pub fn reload(&mut self, new: Settings) -> Result<(), RunError> {
        let old = self.shared.settings.load_full();
        let (new, pending) = old.reloaded(new);
        let policy = Policy::new(&new)?;
        let access = new.page_access()?;
        self.shared.registry.reconfigure(new.registry_config()?)?;
        for change in changes(&*old, &new) {
            info!(%change, "setting changed");
        }
        for change in pending {
            warn!(%change, "setting change needs a restart");
        }
        let settings = Arc::new(new);
        self.shared.policy.store(Arc::new(policy));
        self.shared.settings.store(Arc::clone(&settings));
        self.shared.forget_tls();
        self.page_access.send_replace(access);
        self.shared.book.set_settings(settings);
        self.send_all(SessionCommand::ReadPolicy);
        Ok(())
    }

    /// Records for `/metrics` whether a reload of the settings succeeded.
    pub fn record_reload(&self, is_successful: bool) {
        self.shared
            .metrics
            .reload_successful
            .set(f64::from(is_successful));
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    fn send_all(&self, command: SessionCommand) {
        let sessions = self.shared.sessions.all();
        sessions.iter().for_each(|session| session.send(command));
    }

    /// Stops gracefully. The sidecar accepts no new components. Every session passes on its held bytes, gets its node's
    /// last answers and closes. The sessions have `process.shutdown_secs` for this.
    pub async fn stop(mut self) {
        let until = Instant::now() + self.shared.settings.load().process.shutdown_secs.duration();
        self.shared.stopping.store(true, Relaxed);
        self.accepting.abort_all();
        let sessions = self.shared.sessions.len();
        info!(sessions, "stopping");
        self.send_all(SessionCommand::ShutDown);
        // The sessions that are left at the deadline are logged next.
        let _ = tokio::time::timeout_at(until.into(), self.shared.sessions.emptied()).await;
        let left = self.shared.sessions.len();
        if left > 0 {
            warn!(
                sessions = left,
                buffered_bytes = self.shared.buffered(),
                "sessions cut off after process.shutdown_secs"
            );
        }
        reporter::log_losses_now(&self.shared);
        self.background.shutdown().await;
        self.shared.registry.clone().close().await;
        let threads = Arc::into_inner(self.workers)
            .map(Workers::finish)
            .unwrap_or_default();
        if left == 0 {
            join(threads).await;
        }
        info!("stopped");
    }
}

impl Handover {
    /// Checks that this program can listen on the addresses in the settings that the running program does not listen on, and that the settings
    /// have all listeners with sessions.
    ///
    /// # Errors
    /// [`RunError::Listen`], [`RunError::UnixSocket`], [`RunError::InUse`].
    pub fn check(&self, settings: &Settings) -> Result<(), RunError> {
        let places = places(&self.sidecar.listeners, settings);
        let former = self.sidecar.listeners.iter().zip(&self.sidecar.sessions);
        for ((addresses, sessions), place) in former.zip(places) {
            if *sessions > 0 && place.is_none() {
                return Err(RunError::InUse {
                    addresses: addresses.clone(),
                    sessions: *sessions,
                });
            }
        }
        let has = |address: &String| {
            self.sidecar.listeners.iter().flatten().any(|had| had == address)
                || self.sidecar.http.as_ref() == Some(address)
        };
        let listeners = settings.listeners();
        let all: Vec<String> = listeners
            .iter()
            .flat_map(|listener| listener.listen.clone())
            .collect();
        let new = all.iter().cloned().chain(settings.http_listen());
        for address in new.filter(|address| !has(address)) {
            let refused = |source| RunError::Listen {
                address: address.clone(),
                source,
            };
            if let Some(path) = unix_socket::path_of(&address) {
                unix_socket::try_listen(path).map_err(|source| RunError::UnixSocket {
                    path: path.to_owned(),
                    source,
                })?;
                continue;
            }
            for found in address.to_socket_addrs().map_err(refused)? {
                match listen::bind(found) {
                    Err(error) if is_missing(&error) && is_ipv6_beside_ipv4(&address, &all) => {}
                    bound => drop(bound.map_err(refused)?),
                }
            }
        }
        Ok(())
    }
}

/// Returns the place of each listener of the former program in the present settings: that of the first one with a common address.
fn places(former: &[Vec<String>], settings: &Settings) -> Vec<Option<usize>> {
    let present = settings.listeners();
    let place = |addresses: &Vec<String>| {
        let mut present = present.iter();
        present.position(|listener| listener.listen.iter().any(|address| addresses.contains(address)))
    };
    former.iter().map(place).collect()
}

/// Waits for the end of `threads`, at most a second.
async fn join(threads: Vec<ThreadHandle<()>>) {
    let joining = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join())));
    let _ = tokio::time::timeout(Duration::from_secs(1), joining).await;
}

/// Listens on all addresses of all listeners, on the inherited sockets as far as they have these addresses.
fn listen(settings: &Settings, mut inherited: InheritedSockets) -> Result<Vec<Listener>, RunError> {
    let backlog = settings.socket.listen_backlog;
    let mut listeners = Vec::new();
    for (number, section) in settings.listeners().iter().enumerate() {
        let sockets = sockets(section, backlog, &mut inherited)?.into_iter();
        listeners.extend(sockets.map(|socket| Listener { number, socket }));
    }
    inherited.finish("listen")?;
    Ok(listeners)
}

/// Opens the sockets of one listener. On a host without IPv6, the IPv6 loopback address is skipped if the IPv4 one is also
/// listed.
fn sockets(
    section: &ListenerSection,
    backlog: u32,
    inherited: &mut InheritedSockets,
) -> Result<Vec<ListenSocket>, RunError> {
    let mut sockets = Vec::new();
    for address in &section.listen {
        if let Some(path) = unix_socket::path_of(address) {
            let mode = section.mode().unwrap_or_default();
            let listen = || UnixSocket::listen(path, mode, backlog);
            let socket = inherited.take_unix(path).map_or_else(listen, |former| {
                UnixSocket::inherited(former, path, mode).or_else(|_| listen())
            });
            let socket = socket.map_err(|source| RunError::UnixSocket {
                path: path.to_owned(),
                source,
            });
            let opened = socket.map(|socket| vec![ListenSocket::Unix(socket)]);
            sockets.extend(or_go_on(opened, inherited.are_of_former())?);
            continue;
        }
        match bind(address, backlog, inherited) {
            Ok(bound) => sockets.extend(bound.into_iter().map(ListenSocket::Tcp)),
            Err(RunError::Listen { source, .. })
                if is_missing(&source) && is_ipv6_beside_ipv4(address, &section.listen) =>
            {
                info!(%address, "not listening: the host has no IPv6");
            }
            Err(error) => sockets.extend(or_go_on(Err(error), inherited.are_of_former())?),
        }
    }
    Ok(sockets)
}

/// Returns the sockets. Once this program `has_sessions` of a former one, they go on although an address cannot be used.
fn or_go_on<T>(opened: Result<Vec<T>, RunError>, has_sessions: bool) -> Result<Vec<T>, RunError> {
    match opened {
        Err(error) if has_sessions => {
            error!(%error, "address cannot be used any more; the sidecar goes on without it");
            Ok(Vec::new())
        }
        opened => opened,
    }
}

/// Returns whether `address` is the IPv6 loopback address and `all` has the IPv4 loopback address with the same port.
pub(crate) fn is_ipv6_beside_ipv4(address: &str, all: &[String]) -> bool {
    let port = address.strip_prefix("[::1]:");
    port.is_some_and(|port| all.contains(&format!("127.0.0.1:{port}")))
}

/// Listens on every address to which `address` (host:port) resolves.
fn bind(address: &str, backlog: u32, inherited: &mut InheritedSockets) -> Result<Vec<TcpListener>, RunError> {
    let refused = |source| RunError::Listen {
        address: address.to_owned(),
        source,
    };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(refused)?.collect();
    if found.is_empty() {
        return Err(refused(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )));
    }
    found
        .into_iter()
        .map(|address| {
            let socket = match inherited.take_tcp(&[address]) {
                Some(socket) => socket,
                None => listen::bind(address).map_err(refused)?,
            };
            listen::start(socket, backlog).map_err(refused)
        })
        .collect()
}

/// Pause between two reads of registry changes. Each read visits all sessions.
const REGISTRY_PAUSE: Duration = Duration::from_millis(20);

/// Sends a command to each session whose node was removed from the registry or is marked there as draining.
async fn follow_registry(shared: Arc<SidecarState>) {
    let mut registry = shared.registry.clone();
    shared.book.take_snapshot(&registry.snapshot(), Instant::now());
    loop {
        registry.changed().await;
        let snapshot = registry.snapshot();
        for session in shared.sessions.all() {
            let node = session.status().node.clone();
            if let Some(command) = node.and_then(|node| command_for(&node, &snapshot)) {
                session.send(command);
            }
        }
        shared.book.take_snapshot(&snapshot, Instant::now());
        tokio::time::sleep(REGISTRY_PAUSE).await;
    }
}

/// Returns the command for a session on `node`, given the present nodes.
fn command_for(node: &standin_registry::Node, snapshot: &Snapshot) -> Option<SessionCommand> {
    match snapshot.find(&node.client) {
        Some(known) if known.state == NodeState::Draining => snapshot
            .iter()
            .any(|node| node.state == NodeState::Up)
            .then_some(SessionCommand::Leave),
        Some(_) => None,
        None => Some(SessionCommand::Probe),
    }
}
