//! What all workers of a node share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use standin_daemon::files::NearLimit;
use standin_wire::Info;
use standin_wire::limits::INFO_LINE_BYTES_MAX;
use tokio::sync::Notify;

use crate::VERSION;
use crate::clients::Clients;
use crate::flush::Flush;
use crate::identity;
use crate::interest::Interest;
use crate::lookups::Lookups;
use crate::policy::Policy;
use crate::settings::Settings;

/// `go` of INFO and /varz, where `nats-server` gives its version of Go: the language this server is built with.
pub(crate) const BUILT_WITH: &str = "rust";
/// `git_commit` of INFO and /varz: this program's own version, as [`VERSION`] is that of the server it stands in for.
pub(crate) const GIT_COMMIT: &str = concat!("standin-", env!("CARGO_PKG_VERSION"));

/// What INFO tells that can change while a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub(crate) payload_bytes_max: usize,
    pub(crate) auth_required: bool,
    pub(crate) lame_duck: bool,
    /// Changes with the nodes that clients are told of.
    peers: u64,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Shared {
    /// As last loaded; what is in force without a restart.
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) loaded_at: ArcSwap<SystemTime>,
    pub(crate) policy: ArcSwap<Policy>,
    /// Counts changes of `policy` and of `lame_duck`: clients' tasks look at both when it has changed.
    news: AtomicU64,
    lame_duck: AtomicBool,
    /// Where clients can connect to other nodes, and to this one.
    connect_urls: ArcSwap<Vec<String>>,
    own_url: OnceLock<String>,
    /// Clients were told of other nodes: from then on they are told of this one also when there is no other.
    had_peers: AtomicBool,
    /// Name of the cluster: that of the settings, or of the cluster that the node has joined.
    cluster_name: ArcSwap<String>,
    /// Where other nodes connect.
    mesh_address: OnceLock<SocketAddr>,
    /// Counts changes of `connect_urls`.
    peers: AtomicU64,
    pub(crate) workers: usize,
    pub(crate) interest: Interest,
    pub(crate) flush: Flush,
    pub(crate) lookups: Lookups,
    pub(crate) clients: Clients,
    /// Producers that were held because a subscriber could not keep up.
    pub(crate) stalls: AtomicU64,
    pub(crate) server_id: String,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) stopping: AtomicBool,
    /// Clients are taken.
    pub(crate) serving: AtomicBool,
    /// Clients in all stages, from the accepted connection to the closed one.
    live: AtomicU64,
    near_limit: NearLimit,
    none_left: Notify,
}

impl Shared {
    pub(crate) fn new(settings: Settings, address: SocketAddr) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let started_at = SystemTime::now();
        Self {
            workers: match settings.process.workers {
                0 => cores(),
                workers => workers,
            },
            policy: ArcSwap::from_pointee(Policy::new(&settings)),
            loaded_at: ArcSwap::from_pointee(started_at),
            news: AtomicU64::new(0),
            lame_duck: AtomicBool::new(false),
            connect_urls: ArcSwap::default(),
            own_url: OnceLock::new(),
            had_peers: AtomicBool::new(false),
            cluster_name: ArcSwap::from_pointee(settings.cluster_name().to_owned()),
            mesh_address: OnceLock::new(),
            peers: AtomicU64::new(0),
            interest: Interest::new(),
            flush: Flush::default(),
            lookups: Lookups::default(),
            clients: Clients::default(),
            stalls: AtomicU64::new(0),
            server_id: identity::server_id(),
            address,
            started: Instant::now(),
            started_at,
            stopping: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            live: AtomicU64::new(0),
            near_limit: NearLimit::default(),
            none_left: Notify::new(),
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// Returns the number of the worker that serves the client, or the link, with this number.
    pub(crate) const fn home(&self, number: u64) -> usize {
        (number % self.workers as u64) as usize
    }

    /// Name of the cluster that the node is one of; empty when it has none.
    pub(crate) fn cluster_name(&self) -> Arc<String> {
        self.cluster_name.load_full()
    }

    /// The cluster has this name. Returns whether that is new.
    pub(crate) fn set_cluster_name(&self, name: &str) -> bool {
        let is_new = **self.cluster_name.load() != name;
        if is_new {
            self.cluster_name.store(Arc::new(name.to_owned()));
            self.peers.fetch_add(1, Relaxed);
            self.tell();
        }
        is_new
    }

    /// Other settings from now on, for connected clients as well.
    pub(crate) fn reload(&self, settings: Settings) {
        self.policy.store(Arc::new(Policy::new(&settings)));
        self.settings.store(Arc::new(settings));
        self.loaded_at.store(Arc::new(SystemTime::now()));
        self.tell();
    }

    /// Clients are told that the server is about to go.
    pub(crate) fn set_lame_duck(&self) {
        self.lame_duck.store(true, Relaxed);
        self.flush.set_draining();
        self.tell();
    }

    fn tell(&self) {
        self.news.fetch_add(1, Relaxed);
        self.clients.wake_all();
    }

    /// The node is one of several: where other nodes connect, and where they tell clients that this one is.
    pub(crate) fn set_places(&self, mesh: SocketAddr, own_url: String) {
        // Set once, when the node begins.
        let _ = self.mesh_address.set(mesh);
        let _ = self.own_url.set(own_url);
    }

    /// Where other nodes connect; `None` when the node is alone.
    pub(crate) fn mesh_address(&self) -> Option<SocketAddr> {
        self.mesh_address.get().copied()
    }

    /// What `connect_urls` of INFO says: this node first, as long as it takes clients.
    pub(crate) fn connect_urls(&self, advertised: Advertised) -> Vec<String> {
        let others = self.connect_urls.load();
        if others.is_empty() && !self.had_peers.load(Relaxed) {
            return Vec::new();
        }
        let own = self.own_url.get().filter(|_| !advertised.lame_duck);
        own.into_iter().chain(others.iter()).cloned().collect()
    }

    /// Links have come or gone: clients are told where else they can connect.
    pub(crate) fn set_peers(&self) {
        if self.settings.load().cluster.no_advertise {
            return;
        }
        let links = self.interest.links.load();
        let serving = links.iter().filter(|link| {
            link.serving.load(Relaxed) && !link.draining.load(Relaxed) && !link.peer.no_advertise
        });
        let mut urls: Vec<String> = serving
            .map(|link| link.peer.client.clone())
            .filter(|url| !url.is_empty())
            .collect();
        urls.sort();
        urls.dedup();
        if **self.connect_urls.load() != urls {
            self.connect_urls.store(Arc::new(urls));
            self.had_peers.store(true, Relaxed);
            self.peers.fetch_add(1, Relaxed);
            self.tell();
        }
    }

    /// A number that has changed when policy or lame duck have.
    #[inline]
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Relaxed)
    }

    /// What INFO says now.
    pub(crate) fn advertised(&self) -> Advertised {
        let policy = self.policy.load();
        Advertised {
            payload_bytes_max: policy.payload_bytes_max,
            auth_required: policy.access.is_required(),
            lame_duck: self.lame_duck.load(Relaxed),
            peers: self.peers.load(Relaxed),
        }
    }

    /// INFO for the client with this number, and whether all other nodes are in it: the first INFO names no more of them than old
    /// clients can read.
    pub(crate) fn info(
        &self,
        advertised: Advertised,
        client_id: u64,
        peer: SocketAddr,
        local: Option<SocketAddr>,
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
            max_payload: advertised.payload_bytes_max as i64,
            ldm: advertised.lame_duck,
            client_id,
            client_ip: peer.ip().to_string(),
            cluster: self.cluster_name().to_string(),
            connect_urls: self.connect_urls(advertised),
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

    /// The name that clients and pages see.
    pub(crate) fn server_name<'a>(&'a self, settings: &'a Settings) -> &'a str {
        match settings.server_name.as_str() {
            "" => &self.server_id,
            name => name,
        }
    }

    /// A connection was taken. Returns whether there is room for it.
    pub(crate) fn began(&self) -> bool {
        let max = self.policy.load().connections_max as u64;
        let room = |live| (live < max).then_some(live + 1);
        let taken = self.live.fetch_update(Relaxed, Relaxed, room);
        if let Ok(before) = taken {
            let connections = self.settings.load().connections();
            let _ = self
                .near_limit
                .look(connections, max as usize, before as usize + 1);
        }
        taken.is_ok()
    }

    /// What keeps more clients from being taken, for the log.
    pub(crate) fn connections_bound(&self) -> &'static str {
        let fits = self.policy.load().connections_max;
        self.settings.load().connections().bound(fits)
    }

    /// A connection is closed.
    pub(crate) fn ended(&self) {
        if self.live.fetch_sub(1, Relaxed) == 1 {
            self.none_left.notify_waiters();
        }
    }

    /// Returns when no connection is left.
    pub(crate) async fn none_left(&self) {
        loop {
            let none_left = self.none_left.notified();
            tokio::pin!(none_left);
            none_left.as_mut().enable();
            if self.live.load(Relaxed) == 0 {
                return;
            }
            none_left.await;
        }
    }
}
