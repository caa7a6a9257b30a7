//! The whole sidecar as one value: it is started from settings, reloaded and stopped.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle as ThreadHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use standin_daemon::files::ConnectionLimit;
use standin_daemon::listen::is_missing;
use standin_daemon::settings::{Effect, changes, reloaded};
use standin_registry::{NodeState, RegistryError, Snapshot};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::dial_settings::DialSettings;
use crate::identity::IdentitySettings;
use crate::nodes::{ChoiceSettings, NodeBook};
use crate::policy::Policy;
use crate::process_limits::ProcessLimits;
use crate::session_command::SessionCommand;
use crate::settings::{Settings, SettingsError};
use crate::shared::Shared;
use crate::status::SidecarStatus;
use crate::worker::Workers;
use crate::{http, listener, prober, reporter};

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
    /// A thread or event queue is not available.
    #[error("cannot start a worker thread: {0}")]
    Worker(#[source] io::Error),
}

impl RunError {
    /// Returns the stable name, for logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Settings(_) => "settings",
            Self::Registry(_) => "registry",
            Self::Listen { .. } => "listen",
            Self::Worker(_) => "worker",
        }
    }
}

/// A running sidecar. Dropping it stops listening. Its sessions end when their components close.
pub struct Sidecar {
    settings: Settings,
    shared: Arc<Shared>,
    identity_settings: Arc<ArcSwap<IdentitySettings>>,
    workers: Arc<Workers>,
    addresses: Vec<SocketAddr>,
    http_address: Option<SocketAddr>,
    accepting: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    http: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Runs a sidecar until `shutdown` is ready, then stops it in order.
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
    /// Returns the connections that these settings need, for the limit on open files.
    #[must_use]
    pub const fn connections(settings: &Settings) -> ConnectionLimit {
        ProcessLimits::connections(settings)
    }

    /// Starts listening, whether ZooKeeper and the nodes are up or down. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        let policy = Policy::new(&settings)?;
        // The pages come first, so that they can be read as soon as components can connect.
        let http_listener = match settings.http.listen.as_str() {
            "" => None,
            address => Some(bind(address, settings.socket.listen_backlog)?.remove(0)),
        };
        let listeners = listen(&settings)?;
        let config = settings.registry_config()?;
        let identity_settings = IdentitySettings::new(&settings, &config)?;
        let registry = standin_registry::watch(config)?;
        let book = NodeBook::new(ChoiceSettings::new(&settings));
        let shared = Arc::new(Shared::new(
            registry,
            book,
            policy,
            DialSettings::new(&settings),
            ProcessLimits::new(&settings),
        ));
        let identity_settings = Arc::new(ArcSwap::from_pointee(identity_settings));
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if settings.limits.workers == 0 {
            cores()
        } else {
            settings.limits.workers
        };
        let workers = Arc::new(Workers::start(count, &shared, &identity_settings).map_err(RunError::Worker)?);
        let mut sidecar = Self {
            addresses: Vec::new(),
            http_address: None,
            accepting: Vec::new(),
            background: vec![
                tokio::spawn(follow_registry(Arc::clone(&shared))),
                tokio::spawn(prober::run(Arc::clone(&shared))),
                tokio::spawn(reporter::run(Arc::clone(&shared))),
            ],
            http: None,
            settings,
            shared,
            identity_settings,
            workers,
        };
        sidecar.addresses = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        sidecar.shared.book.self_check.set_listening(&sidecar.addresses);
        for listener in listeners {
            let (shared, workers) = (Arc::clone(&sidecar.shared), Arc::clone(&sidecar.workers));
            sidecar
                .accepting
                .push(tokio::spawn(listener::serve(listener, shared, workers)));
        }
        sidecar.shared.listening.store(true, Relaxed);
        if let Some(listener) = http_listener {
            sidecar.http_address = listener.local_addr().ok();
            sidecar.serve_http(listener);
        }
        for address in &sidecar.addresses {
            info!(%address, "listening for components");
        }
        Ok(sidecar)
    }

    /// Returns the addresses to which components connect.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the address of the HTTP pages, if they are on.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Applies other settings (sources, limits, times) without closing a session. A setting that needs a restart is
    /// logged and keeps its value.
    ///
    /// # Errors
    /// [`RunError`] if the new settings cannot be used; the present ones then stay in force.
    pub fn reload(&mut self, new: Settings) -> Result<(), RunError> {
        let policy = Policy::new(&new)?;
        let config = new.registry_config()?;
        let identity_settings = IdentitySettings::new(&new, &config)?;
        self.shared.registry.reconfigure(config)?;
        for change in changes(&self.settings, &new) {
            match change.effect {
                Effect::Now => info!(%change, "setting changed"),
                Effect::Restart => warn!(%change, "setting change needs a restart"),
            }
        }
        self.settings = reloaded(&self.settings, new);
        self.shared.policy.store(Arc::new(policy));
        self.shared
            .dial_settings
            .store(Arc::new(DialSettings::new(&self.settings)));
        self.shared
            .limits
            .store(Arc::new(ProcessLimits::new(&self.settings)));
        self.shared.book.set_choice(ChoiceSettings::new(&self.settings));
        self.identity_settings.store(Arc::new(identity_settings));
        self.shared
            .sessions
            .all()
            .iter()
            .for_each(|session| session.send(SessionCommand::ReadPolicy));
        Ok(())
    }

    /// Returns the settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Stops in order. The sidecar accepts no new components. Every session passes on its held bytes, gets its node's
    /// last answers and closes. This takes `process.shutdown_secs` at most.
    pub async fn stop(mut self) {
        let until = Instant::now() + self.shared.limits.load().shutdown;
        self.shared.stopping.store(true, Relaxed);
        self.accepting.drain(..).for_each(|task| task.abort());
        let sessions = self.shared.sessions.len();
        info!(sessions, "stopping");
        self.shared
            .sessions
            .all()
            .iter()
            .for_each(|session| session.send(SessionCommand::ShutDown));
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
        if let Some((stop, serving)) = self.http.take() {
            drop(stop);
            let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
        }
        self.background.drain(..).for_each(|task| task.abort());
        self.shared.registry.clone().close().await;
        let threads = Arc::into_inner(self.workers)
            .map(Workers::finish)
            .unwrap_or_default();
        if left == 0 {
            join(threads).await;
        }
        info!("stopped");
    }

    fn serve_http(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let status = Arc::new(SidecarStatus(Arc::clone(&self.shared)));
        let metrics = Arc::clone(&self.shared.metrics);
        if let Some(address) = self.http_address {
            info!(%address, "serving HTTP");
        }
        let stopped = async { drop(stopped.await) };
        self.http = Some((
            stop,
            tokio::spawn(http::serve(listener, status, metrics, stopped)),
        ));
    }
}

/// Waits for the end of `threads`, at most a second.
async fn join(threads: Vec<ThreadHandle<()>>) {
    let joining = tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join())));
    let _ = tokio::time::timeout(Duration::from_secs(1), joining).await;
}

/// Listens on all addresses of `listen`. On a host without IPv6 the IPv6 loopback address is left out if the IPv4 one is
/// there.
fn listen(settings: &Settings) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners = Vec::new();
    for address in &settings.listen {
        match bind(address, settings.socket.listen_backlog) {
            Ok(bound) => listeners.extend(bound),
            Err(RunError::Listen { source, .. })
                if is_missing(&source) && is_ipv6_beside_ipv4(address, &settings.listen) =>
            {
                info!(%address, "not listening: the host has no IPv6");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// Returns whether `address` is the IPv6 loopback address and `all` has the IPv4 loopback address with the same port.
fn is_ipv6_beside_ipv4(address: &str, all: &[String]) -> bool {
    let port = address.strip_prefix("[::1]:");
    port.is_some_and(|port| all.contains(&format!("127.0.0.1:{port}")))
}

/// Listens on every address to which `address` (host:port) resolves.
fn bind(address: &str, backlog: u32) -> Result<Vec<TcpListener>, RunError> {
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
        .map(|address| listener::bind(address, backlog).map_err(refused))
        .collect()
}

/// Pause between two reads of registry changes. Each read visits all sessions.
const REGISTRY_PAUSE: Duration = Duration::from_millis(20);

/// Sends a command to each session whose node the registry withdraws or marks as draining.
async fn follow_registry(shared: Arc<Shared>) {
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
