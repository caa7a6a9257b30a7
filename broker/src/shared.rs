//! The state that all workers of a node share.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use standin_daemon::admission::{Admission, Refusal};
use standin_daemon::connection_limit::NearLimit;
use standin_tls::files::TlsError;
use standin_wire::Info;
use standin_wire::limits::INFO_LINE_BYTES_MAX;
use tokio::sync::Notify;

use crate::VERSION;
use crate::account::Accounts;
use crate::clients::Clients;
use crate::close_reason::CloseReason;
use crate::cluster_figures::ClusterFigures;
use crate::flush::Flush;
use crate::half_open_client::HalfOpenClient;
use crate::identity;
use crate::interest::Interest;
use crate::lookups::Lookups;
use crate::moves::Moves;
use crate::password_check::PasswordChecker;
use crate::policy::{ClientTls, Policy};
use crate::route::Route;
use crate::route::hello::ACCOUNTS;
use crate::settings::Settings;

/// The field `go` of INFO and /varz, where `nats-server` has its version of Go.
pub(crate) const BUILT_WITH: &str = "rust";
/// The field `git_commit` of INFO and /varz: the version of this program. [`VERSION`] is the version of `nats-server` that it follows.
pub(crate) const GIT_COMMIT: &str = concat!("standin-", env!("CARGO_PKG_VERSION"));

/// The fields of INFO that can change while a client is connected. A client gets a new INFO when they differ from those it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) payload_bytes_max: usize,
    pub(crate) auth_required: bool,
    tls: AdvertisedTls,
    pub(crate) lame_duck: bool,
    /// [`Shared::peers`], for `connect_urls` and `cluster`.
    peers: u64,
}

/// The fields of INFO about TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct AdvertisedTls {
    required: bool,
    available: bool,
    verify: bool,
}

impl AdvertisedTls {
    fn of(tls: Option<&ClientTls>) -> Self {
        let Some(tls) = tls else { return Self::default() };
        Self {
            required: !tls.is_optional,
            available: tls.is_optional,
            verify: tls.verify,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// The settings in force. A setting that needs a restart keeps the value that it had at the start.
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) loaded_at: ArcSwap<SystemTime>,
    /// The last reload of the settings failed.
    pub(crate) reload_failed: AtomicBool,
    pub(crate) cluster_figures: ArcSwap<ClusterFigures>,
    pub(crate) policy: ArcSwap<Policy>,
    /// Counts changes of `policy` and [`Advertised`]. The task of a client checks both when the count has changed.
    revision: AtomicU64,
    lame_duck: AtomicBool,
    /// Addresses at which clients reach the other nodes.
    connect_urls: ArcSwap<Vec<String>>,
    /// Whether `connect_urls` of INFO has ever named other nodes. From then on, it names this node even when there are no others, so that
    /// clients remove the others from their lists.
    had_peers: AtomicBool,
    /// The cluster name of the settings, or of the cluster that the node has joined.
    cluster_name: ArcSwap<String>,
    /// This node's addresses, if it is in a cluster: the one for other nodes, and the one for clients, as in `connect_urls`.
    advertised: OnceLock<(SocketAddr, String)>,
    /// Counts changes of `connect_urls` and `cluster_name`.
    peers: AtomicU64,
    pub(crate) workers: usize,
    pub(crate) interest: Interest,
    pub(crate) flush: Flush,
    pub(crate) moves: Moves,
    pub(crate) lookups: Lookups,
    pub(crate) clients: Clients,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) passwords: PasswordChecker,
    /// Admission of clients.
    pub(crate) admission: Admission<HalfOpenClient>,
    /// Number of connections on the port for other nodes that were evicted during their handshake.
    pub(crate) evicted_handshakes: AtomicU64,
    /// Number of frames that permissions did not allow.
    pub(crate) violations: AtomicU64,
    /// Number of times that a publisher was stalled by a slow subscriber.
    pub(crate) stalls: AtomicU64,
    pub(crate) server_id: String,
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) stopping: AtomicBool,
    /// The node has joined the mesh and accepts clients.
    pub(crate) serving: AtomicBool,
    /// Number of client connections that are accepted and not closed yet.
    live: AtomicU64,
    near_limit: NearLimit,
    all_closed: Notify,
}

impl Shared {
    /// Creates the state of a node that listens on `address`.
    ///
    /// # Errors
    /// [`TlsError`] if a file of TLS cannot be used.
    pub(crate) fn new(settings: Settings, address: SocketAddr) -> Result<Self, TlsError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let started_at = SystemTime::now();
        let accounts = Arc::new(Accounts::default());
        accounts.configure(settings.account_limits());
        let workers = match settings.process.workers {
            0 => cores(),
            workers => workers,
        };
        let server_id = identity::server_id();
        Ok(Self {
            workers,
            moves: Moves::new(&server_id, workers),
            policy: ArcSwap::from_pointee(Policy::new(&settings)?),
            loaded_at: ArcSwap::from_pointee(started_at),
            reload_failed: AtomicBool::new(false),
            cluster_figures: ArcSwap::default(),
            revision: AtomicU64::new(0),
            lame_duck: AtomicBool::new(false),
            connect_urls: ArcSwap::default(),
            had_peers: AtomicBool::new(false),
            cluster_name: ArcSwap::from_pointee(settings.cluster_name().to_owned()),
            advertised: OnceLock::new(),
            peers: AtomicU64::new(0),
            interest: Interest::sharing(settings.cluster.shared_interest()),
            flush: Flush::default(),
            lookups: Lookups::default(),
            clients: Clients::default(),
            accounts,
            passwords: PasswordChecker::default(),
            admission: Admission::default(),
            evicted_handshakes: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            server_id,
            address,
            started: Instant::now(),
            started_at,
            stopping: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            live: AtomicU64::new(0),
            near_limit: NearLimit::default(),
            all_closed: Notify::new(),
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Returns the number of the worker that serves the client or route with this number.
    pub(crate) const fn worker_of(&self, number: u64) -> usize {
        (number % self.workers as u64) as usize
    }

    /// Returns the name of the cluster; empty if it has none or the node is alone.
    pub(crate) fn cluster_name(&self) -> Arc<String> {
        self.cluster_name.load_full()
    }

    /// Sets the name of the cluster. Returns whether it has changed.
    pub(crate) fn set_cluster_name(&self, name: &str) -> bool {
        let is_new = **self.cluster_name.load() != name;
        if is_new {
            self.cluster_name.store(Arc::new(name.to_owned()));
            self.peers_changed();
        }
        is_new
    }

    /// Sends clients a new INFO, because `connect_urls` or the cluster name has changed.
    fn peers_changed(&self) {
        self.peers.fetch_add(1, Relaxed);
        self.notify_clients();
    }

    /// Applies new settings, also to connected clients.
    ///
    /// # Errors
    /// [`TlsError`] if a file of TLS cannot be used. Nothing is changed then.
    pub(crate) fn reload(&self, settings: Settings) -> Result<(), TlsError> {
        let policy = Policy::new(&settings)?;
        self.accounts.configure(settings.account_limits());
        self.close_unaware_routes();
        self.policy.store(Arc::new(policy));
        self.settings.store(Arc::new(settings));
        self.loaded_at.store(Arc::new(SystemTime::now()));
        self.notify_clients();
        Ok(())
    }

    /// Closes the routes to nodes whose program does not know accounts, once there are any.
    fn close_unaware_routes(&self) {
        let routes = self.interest.routes.load();
        let is_aware = |route: &Arc<Route>| route.peer.has(ACCOUNTS);
        if !self.accounts.is_empty() {
            let unaware = routes.iter().filter(|route| !is_aware(route));
            unaware.for_each(|route| route.outbox.close(CloseReason::Refused));
        }
    }

    /// Starts lame duck mode: clients get INFO with `ldm`.
    pub(crate) fn set_lame_duck(&self) {
        self.lame_duck.store(true, Relaxed);
        self.flush.set_draining();
        self.notify_clients();
    }

    /// Wakes the task of each client, to check [`revision`](Self::revision).
    fn notify_clients(&self) {
        self.revision.fetch_add(1, Relaxed);
        self.clients.wake_all();
    }

    pub(crate) fn set_advertised(&self, mesh: SocketAddr, client: String) {
        // Called once, at the start.
        let _ = self.advertised.set((mesh, client));
    }

    /// Returns the address for other nodes; `None` if the node is alone.
    pub(crate) fn mesh_address(&self) -> Option<SocketAddr> {
        self.advertised.get().map(|(mesh, _)| *mesh)
    }

    /// Returns `connect_urls` of INFO. This node comes first; in lame duck mode it is left out.
    pub(crate) fn connect_urls(&self, advertised: Advertised) -> Vec<String> {
        let others = self.connect_urls.load();
        if others.is_empty() && !self.had_peers.load(Relaxed) {
            return Vec::new();
        }
        let own = self.advertised.get().filter(|_| !advertised.lame_duck);
        let own = own.map(|(_, client)| client);
        own.into_iter().chain(others.iter()).cloned().collect()
    }

    /// Updates `connect_urls` after a change of the routes. If the URLs have changed, clients get a new INFO.
    pub(crate) fn update_connect_urls(&self) {
        if self.settings.load().cluster.no_advertise {
            return;
        }
        let routes = self.interest.routes.load();
        let serving = routes.iter().filter(|route| {
            route.serving.load(Relaxed) && !route.draining.load(Relaxed) && !route.peer.no_advertise
        });
        let urls = serving.map(|route| route.peer.client.clone());
        let urls: BTreeSet<String> = urls.filter(|url| !url.is_empty()).collect();
        let urls: Vec<String> = urls.into_iter().collect();
        if **self.connect_urls.load() != urls {
            self.connect_urls.store(Arc::new(urls));
            self.had_peers.store(true, Relaxed);
            self.peers_changed();
        }
    }

    /// Returns a number that changes with `policy` and [`Advertised`].
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }

    pub(crate) fn advertised(&self) -> Advertised {
        let policy = self.policy.load();
        Advertised {
            payload_bytes_max: policy.payload_bytes_max,
            auth_required: policy.access.is_required(),
            tls: AdvertisedTls::of(policy.tls.as_ref()),
            lame_duck: self.lame_duck.load(Relaxed),
            peers: self.peers.load(Relaxed),
        }
    }

    /// Returns the INFO line for the client with this number, and whether it has all `connect_urls`. The first INFO has no more of them than
    /// fit into [`INFO_LINE_BYTES_MAX`], because old clients reject a longer line.
    pub(crate) fn info(
        &self,
        advertised: Advertised,
        client_id: u64,
        (peer, local): (SocketAddr, Option<SocketAddr>),
        nonce: &str,
        is_first: bool,
    ) -> (String, bool) {
        let settings = self.settings.load();
        let local = local.unwrap_or(self.address);
        let advertise = settings.advertise.as_str();
        let (host, port) = match advertise.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                (host.to_owned(), port.parse().unwrap_or_default())
            }
            _ if advertise.is_empty() => (self.address.ip().to_string(), local.port()),
            _ => (advertise.to_owned(), local.port()),
        };
        let info = Info {
            server_id: self.server_id.clone(),
            server_name: self.server_name(&settings).to_owned(),
            version: VERSION.to_owned(),
            proto: 1,
            git_commit: GIT_COMMIT.to_owned(),
            go: BUILT_WITH.to_owned(),
            host,
            port,
            headers: true,
            auth_required: advertised.auth_required,
            tls_required: advertised.tls.required,
            tls_available: advertised.tls.available,
            tls_verify: advertised.tls.verify,
            max_payload: advertised.payload_bytes_max as i64,
            ldm: advertised.lame_duck,
            client_id,
            client_ip: peer.ip().to_string(),
            nonce: nonce.to_owned(),
            cluster: self.cluster_name().to_string(),
            connect_urls: self.connect_urls(advertised),
            moves: self.mesh_address().is_some(),
            ..Info::default()
        };
        let mut info = info.with_safe_names();
        let line = info.line();
        if !is_first || line.len() <= INFO_LINE_BYTES_MAX {
            return (line, true);
        }
        let mut line = info.brief_line();
        if line.len() > INFO_LINE_BYTES_MAX {
            info.cluster.clear();
            line = info.brief_line();
        }
        let mut is_whole = true;
        while line.len() > INFO_LINE_BYTES_MAX && info.connect_urls.pop().is_some() {
            line = info.brief_line();
            is_whole = false;
        }
        if line.len() > INFO_LINE_BYTES_MAX {
            return (info.short_line(), false);
        }
        (line, is_whole)
    }

    /// Returns the server name in INFO and on the monitoring pages: that of the settings, or the server id.
    pub(crate) fn server_name<'a>(&'a self, settings: &'a Settings) -> &'a str {
        match settings.server_name.as_str() {
            "" => &self.server_id,
            name => name,
        }
    }

    /// Admits and counts the accepted connection of client `id`. Returns the client that must be evicted for it, if any.
    ///
    /// # Errors
    /// The limit for which the connection must be refused.
    pub(crate) fn admit(&self, id: u64, peer: SocketAddr) -> Result<Option<HalfOpenClient>, Refusal> {
        let limits = self.policy.load().admission;
        let open = self.live.load(Relaxed) as usize;
        let client = HalfOpenClient { peer, task: None };
        let evicted = self.admission.admit(id, peer.ip(), client, open, limits)?;
        self.live.fetch_add(1, Relaxed);
        let connections = self.settings.load().connections();
        let _ = self
            .near_limit
            .look(connections, limits.connections_max, open + 1);
        Ok(evicted)
    }

    /// Returns the name of the limit on client connections that is in force, for the log.
    pub(crate) fn connections_bound(&self) -> &'static str {
        let fits = self.policy.load().admission.connections_max;
        self.settings.load().connections().bound(fits)
    }

    /// Counts the connection of client `id` as closed.
    pub(crate) fn connection_closed(&self, id: u64, peer: SocketAddr) {
        self.admission.closed(id, peer.ip());
        if self.live.fetch_sub(1, Relaxed) == 1 {
            self.all_closed.notify_waiters();
        }
    }

    pub(crate) async fn all_clients_closed(&self) {
        loop {
            let all_closed = self.all_closed.notified();
            tokio::pin!(all_closed);
            all_closed.as_mut().enable();
            if self.live.load(Relaxed) == 0 {
                return;
            }
            all_closed.await;
        }
    }
}
