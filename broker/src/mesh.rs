//! The mesh: one route to each other node. Over it, nodes announce the interest of their clients and forward messages, one hop only.
//!
//! | file | holds |
//! |---|---|
//! | this one | [`Mesh`], the steps of a node: join, announce, drain, leave |
//! | [`keeper`] | the keeper of the routes, and its task, which listens, dials and follows the registry |
//! | [`membership`] | which nodes exist, which addresses to dial, which of two routes survives; a value without sockets |
//! | [`sockets`] | the sockets of routes |
//! | [`rate_limited_log`] | the limit on the log lines of connections that do not become routes |
//! | [`session`] | the session of one route |
//!
//! *Start.* A node listens for other nodes, reads the registry, and links with all registered nodes. When each has sent its complete
//! interest, and no other node holds this node's id in the registry, the node listens for clients and registers. Then it links with
//! the nodes that registered in the meantime, and serves. If two nodes start at once, the one that registers second sees the
//! registration of the first, and serves no client before the two are linked. Without a registry, the listening sockets have this
//! role: if a node's dial fails because the other node does not listen yet, the other node will dial it later.

mod keeper;
mod membership;
mod rate_limited_log;
#[cfg(test)]
mod schedules;
pub(crate) mod session;
mod sockets;

use std::future::pending;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use standin_daemon::tls::TlsMode;
use standin_registry::{
    Announcement, Config, Endpoint, Node, NodeState, RegistrationState as Registration, Watch, watch,
};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{Mutex, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::keeper::{ClusterStatus, Order, task};
use self::membership::{Membership, Rules};
use crate::route::hello::{FEATURES, Hello, PROTOCOL, PROTOCOL_MIN};
use crate::settings::{Settings, SettingsError, address_towards, split_url};
use crate::shared::Shared;
use crate::worker::Newcomer;

/// Time limit for the state `draining` to become visible in the registry.
const DRAINING_SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// Maximum number of orders in the keeper's queue.
const ORDERS_MAX: usize = 16;
/// Number of steps into which [`within`] divides its time limit.
const LIMIT_STEPS: u32 = 20;

/// Error that prevents a node from joining the cluster.
#[derive(Debug, Error)]
pub enum MeshError {
    /// The registry rejects the settings.
    #[error("{0}")]
    Registry(#[from] standin_registry::RegistryError),
    /// A file named in the settings cannot be read, or is invalid.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The socket for other nodes failed.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// Another node with the same id is alive.
    #[error(
        "another node with the id {0} is alive in the cluster; give each node its own name (--name), or start this node after the other has ended"
    )]
    DuplicateId(String),
    /// The route with a registered node was refused by one of the two sides, and there is no other route.
    #[error("no route with the registered node at {at}, and none with any other node: {why}")]
    Refused {
        /// Address of the registered node.
        at: String,
        /// Reason, and what to change.
        why: String,
    },
}

/// This node's membership in the cluster.
#[derive(Debug)]
pub(crate) struct Mesh {
    started: Instant,
    sync_timeout: Duration,
    /// Maximum time to wait until another node with this node's id has ended, or is found dead.
    duplicate_timeout: Duration,
    orders: Sender<Order>,
    status: channel::Receiver<ClusterStatus>,
    keeper: JoinHandle<()>,
    watch: Option<Watch>,
    record: Node,
    announcement: Mutex<Option<Announcement>>,
}

impl Mesh {
    /// Starts the keeper, which accepts other nodes on `listener` and dials them. `address` is the address of `listener`. Must be
    /// called within a tokio runtime.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        (listener, address): (TcpListener, SocketAddr),
        http: Option<SocketAddr>,
        workers: Vec<Sender<Newcomer>>,
    ) -> Result<Self, MeshError> {
        let settings = shared.settings.load_full();
        let config = settings.zookeeper()?.map(|zookeeper| Config {
            zookeeper: Some(zookeeper),
            gossip: false,
            ..Config::default()
        });
        let watch = config.map(watch).transpose()?;
        let record = record(shared, &settings, address, http);
        let own = hello(shared, &settings, &record);
        shared.set_advertised(address, own.client.clone());
        // Programs that start nats-server read the address in this line.
        info!(id = %own.id, cluster = own.cluster, "Listening for route connections on {address}");
        let cluster = &settings.cluster;
        let rules = Rules {
            own,
            nodes_max: cluster.nodes_max,
            redial_max: cluster.redial_ms_max.duration(),
            has_registry: watch.is_some(),
            accounts: Arc::clone(&shared.accounts),
        };
        let configured = settings.routes().into_iter();
        let configured = configured.map(|route| route.endpoint.to_string());
        let membership = Membership::new(rules, configured, rand::random(), Instant::now());
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (reported, status) = channel::channel(ClusterStatus::default());
        let (shared, watch_copy) = (Arc::clone(shared), watch.clone());
        let keeper = task::run(
            shared, membership, listener, workers, watch_copy, ordered, reported,
        );
        let lame_duck =
            settings.process.lame_duck_grace_secs.duration() + settings.process.lame_duck_secs.duration();
        let duplicate_timeout = lame_duck
            .max(cluster.ping_timeout_ms.duration() * 2)
            .max(cluster.sync_timeout_ms.duration());
        Ok(Self {
            started: Instant::now(),
            sync_timeout: cluster.sync_timeout_ms.duration(),
            duplicate_timeout,
            orders,
            status,
            keeper: tokio::spawn(keeper),
            watch,
            record,
            announcement: Mutex::new(None),
        })
    }

    /// Waits until all known nodes have exchanged their complete interest with this node, at most for `sync_timeout`. Does not wait
    /// for the addresses in `without`. Returns the addresses of the nodes that are not synced: this node serves
    /// without them.
    ///
    /// If another node has this node's id but may give it up, waits longer (`duplicate_timeout`): the other may be ending, or may
    /// soon be found dead.
    ///
    /// # Errors
    /// [`MeshError::DuplicateId`]. [`MeshError::Refused`]: without any route, the node's clients would be cut off from all others.
    pub(crate) async fn join(&self, without: &[String]) -> Result<Vec<String>, MeshError> {
        let mut status = self.status.clone();
        let is_joined = |now: &ClusterStatus| {
            let is_unopposed = now.namesake_precedes.is_none() && now.refusal.is_none();
            now.has_read && now.awaited.iter().all(|at| without.contains(at)) && is_unopposed
        };
        if within(self.sync_timeout, status.wait_for(is_joined))
            .await
            .is_some()
        {
            return Ok(without.to_vec());
        }
        if self.status.borrow().namesake_precedes == Some(false) {
            let joined = within(self.duplicate_timeout, status.wait_for(is_joined));
            if joined.await.is_some() {
                return Ok(without.to_vec());
            }
        }
        self.serve_without()
    }

    /// Decides what to do after the timeout of [`Self::join`]: returns the addresses to serve without, or the error.
    fn serve_without(&self) -> Result<Vec<String>, MeshError> {
        let (now, limit) = (self.status.borrow(), self.sync_timeout);
        if now.namesake_precedes.is_some() {
            return Err(MeshError::DuplicateId(self.record.id.to_string()));
        }
        if let Some((at, why)) = now.refusal.clone() {
            return Err(MeshError::Refused { at, why });
        }
        if !now.has_read {
            warn!("ZooKeeper could not be read within {limit:?}; serving without it");
        }
        if !now.awaited.is_empty() {
            let awaited = now.awaited.join(" ");
            warn!("not synced within {limit:?} with {awaited}; serving without");
        }
        Ok(now.awaited.clone())
    }

    /// Waits until this node can be registered: ZooKeeper answers, and no other node holds this node's id. If that takes too long,
    /// the node is registered later.
    pub(crate) async fn reserve(&self) -> Result<(), MeshError> {
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        let mut announcement = self.announcement.lock().await;
        let announcement = announcement.insert(Announcement::reserve(watch, self.record.clone())?);
        let mut status = announcement.follow();
        // If `join` could not read the registry in time, this does not wait for it a second time.
        let limit = if self.status.borrow().has_read {
            self.sync_timeout
        } else {
            Duration::ZERO
        };
        let is_ready = |now: &Registration| *now == Registration::Ready;
        if within(limit, status.wait_for(is_ready)).await.is_some() {
            return Ok(());
        }
        self.outlast_namesake(status.wait_for(is_ready)).await;
        self.unregistered(announcement.state())
    }

    /// Waits for `registered` if another node has this node's id and may give it up, because that node is ending, or because this node
    /// precedes it. The record of the other node is deleted when that node ends.
    async fn outlast_namesake(&self, registered: impl Future) {
        let now = self.status.borrow().clone();
        if now.has_living_namesake && now.namesake_precedes != Some(true) {
            within(self.duplicate_timeout, registered).await;
        }
    }

    /// Handles a registration that did not succeed in time. Returns an error if a connection has proved that another node with this
    /// node's id is alive. A record in the registry is no such proof.
    fn unregistered(&self, status: Registration) -> Result<(), MeshError> {
        let is_free_or_ours = matches!(status, Registration::Ready | Registration::Announced);
        if self.status.borrow().has_living_namesake && !is_free_or_ours {
            return Err(MeshError::DuplicateId(self.record.id.to_string()));
        }
        if let Registration::Seeking { reason } | Registration::Taken { reason, .. } = status {
            warn!("not registered yet, retrying: {reason}");
        }
        Ok(())
    }

    /// Registers this node, and returns when it is linked with all nodes that registered before it, except those in `without`. Its
    /// sockets must already listen, because clients may connect as soon as they see the registration.
    pub(crate) async fn announce(&self, without: &[String]) -> Result<(), MeshError> {
        let announcement = self.announcement.lock().await;
        let Some(announcement) = &*announcement else {
            return Ok(());
        };
        let mut status = announcement.follow();
        let is_ready = announcement.state() == Registration::Ready;
        announcement.release();
        if !is_ready {
            return Ok(());
        }
        let is_registered = |now: &Registration| *now == Registration::Announced;
        // The state after the waits decides, not their results.
        if within(self.sync_timeout, status.wait_for(is_registered))
            .await
            .is_none()
        {
            // Two nodes with one id may both have found it free, and this one was too late with its record.
            self.outlast_namesake(status.wait_for(is_registered)).await;
        }
        let status = announcement.state();
        if status != Registration::Announced {
            return self.unregistered(status);
        }
        let (done, is_done) = oneshot::channel();
        // The snapshot contains all nodes that registered before this one. If the keeper has panicked, `leave` logs it.
        let _ = self.orders.send(Order::ReadRegistry(done)).await;
        let _ = is_done.await;
        self.join(without).await.map(drop)
    }

    /// Waits until this node must give up its id to another node.
    pub(crate) async fn displaced(&self) {
        let mut status = self.status.clone();
        if status.wait_for(|now| now.is_displaced).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Tells the other nodes that this one accepts clients from now on.
    pub(crate) async fn serve(&self) {
        let routes = self.status.borrow().routes;
        info!(links = routes, "joined the mesh in {:?}", self.started.elapsed());
        // If the keeper has panicked, `leave` logs it.
        let _ = self.orders.send(Order::Serve).await;
    }

    /// Tells the other nodes that this one accepts no more clients, and sets the state `draining` in its registry record, so that
    /// sidecars leave and no new ones come. Returns when the state is visible in the registry, or after [`DRAINING_SHOWN_WITHIN`].
    pub(crate) async fn drain(&self) {
        // If the keeper has panicked, `leave` logs it.
        let _ = self.orders.send(Order::Drain).await;
        let announcement = self.announcement.lock().await;
        let Some(announcement) = &*announcement else {
            return;
        };
        let state = NodeState::Draining;
        let record = Node {
            state,
            ..self.record.clone()
        };
        if let Err(error) = announcement.set(record) {
            warn!("cannot set the state draining in ZooKeeper: {error}");
            return;
        }
        if announcement.state() != Registration::Announced {
            return;
        }
        let mut watch = announcement.watch().clone();
        let is_shown = async {
            let shown = |node: &Arc<Node>| node.run == self.record.run && node.state == state;
            while !watch.snapshot().registered.iter().any(shown) {
                watch.changed().await;
            }
        };
        if timeout(DRAINING_SHOWN_WITHIN, is_shown).await.is_err() {
            warn!("state draining not visible in ZooKeeper within {DRAINING_SHOWN_WITHIN:?}");
        }
    }

    /// Deletes this node's record from the registry. Returns when it is deleted, or when ZooKeeper does not answer.
    pub(crate) async fn unregister(&self) {
        let _ = self.orders.send(Order::Drain).await;
        if let Some(announcement) = self.announcement.lock().await.take() {
            announcement.withdraw().await;
        }
    }

    /// Closes the links with GOODBYE, and returns when they have ended.
    pub(crate) async fn leave(&mut self) {
        let _ = self.orders.send(Order::Leave).await;
        if let Err(error) = (&mut self.keeper).await {
            warn!("keeper of the routes panicked: {error}");
        }
    }
}

/// Returns the output of `awaited`, or `None` after `limit`. The time is counted in steps, so that a pause of the process (such as
/// SIGSTOP) counts as one step at most.
async fn within<T>(limit: Duration, awaited: impl Future<Output = T>) -> Option<T> {
    let over = async {
        for _ in 0..LIMIT_STEPS {
            sleep(limit / LIMIT_STEPS).await;
        }
    };
    tokio::select! {
        biased;
        output = awaited => Some(output),
        () = over => None,
    }
}

/// Returns the address in a setting `advertise`: a host, which gets this port, or a host and a port. `None` if the setting is empty.
fn advertised(text: &str, port: u16) -> Option<Endpoint> {
    if text.is_empty() {
        return None;
    }
    // The colons of an IPv6 address without brackets are no port.
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some(Endpoint::new(text, port));
    }
    let with_port = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = with_port.unwrap_or((text, port));
    Some(Endpoint::new(
        host.trim_start_matches('[').trim_end_matches(']'),
        port,
    ))
}

fn record(shared: &Shared, settings: &Settings, mesh: SocketAddr, http: Option<SocketAddr>) -> Node {
    let routes = settings.cluster.routes.iter();
    let routes = routes.map(|route| split_url(route.reveal()).1);
    let hosts = settings.nodes.zookeeper.split([',', '/']).chain(routes);
    let hosts: Vec<SocketAddr> = hosts.filter_map(|host| host.parse().ok()).collect();
    // A loopback address does not show how other hosts reach this one, so it is used only if there is no other.
    let elsewhere = hosts.iter().find(|host| !host.ip().is_loopback());
    let towards = elsewhere.or(hosts.first()).copied();
    let reachable = |address: SocketAddr| {
        let ip = match address.ip() {
            ip if ip.is_unspecified() => address_towards(towards),
            ip => ip,
        };
        Endpoint::new(ip.to_string(), address.port())
    };
    let client =
        advertised(&settings.advertise, shared.address.port()).unwrap_or_else(|| reachable(shared.address));
    // Other hosts do not reach pages at a loopback address. So such an address is announced only if the one for clients is a loopback
    // address too: then all programs run on this host.
    let is_local = client.ip().is_some_and(|ip| ip.is_loopback());
    let is_found = settings.advertise.is_empty() && shared.address.ip().is_unspecified();
    if is_local && is_found && towards.is_none_or(|host| !host.ip().is_loopback()) {
        warn!(
            "no route to other hosts, so other programs are told the address {client}, which only this host reaches; set advertise and \
             cluster.advertise"
        );
    }
    let http = http.filter(|http| is_local || !http.ip().is_loopback());
    Node {
        run: shared.server_id.as_str().into(),
        mesh: Some(advertised(&settings.cluster.advertise, mesh.port()).unwrap_or_else(|| reachable(mesh))),
        http: http.map(reachable),
        tls: settings.tls.client.section.mode == TlsMode::Required,
        zone: settings.cluster.zone.as_str().into(),
        weight: settings.cluster.weight,
        version: env!("CARGO_PKG_VERSION").into(),
        ..Node::new(shared.server_name(settings), client)
    }
}

fn hello(shared: &Shared, settings: &Settings, record: &Node) -> Hello {
    // A clock before 1970 gives 0: the node then precedes all others.
    let began = shared.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        cluster: settings.cluster.name.clone(),
        id: record.id.to_string(),
        run: record.run.to_string(),
        began: began.as_millis() as u64,
        client: record.client.to_string(),
        mesh: record.mesh.as_ref().map(ToString::to_string).unwrap_or_default(),
        version: record.version.to_string(),
        user: settings.cluster.user.clone(),
        password: settings.cluster.password.clone(),
        no_advertise: settings.cluster.no_advertise,
        workers: u32::try_from(shared.workers).unwrap_or(u32::MAX),
        ..Hello::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_may_have_a_port_and_may_be_of_ipv6() {
        for (text, expected) in [
            ("a.example", "a.example:4222"),
            ("a.example:1", "a.example:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("fd00::5:1", "[fd00::5:1]:4222"),
            ("[fd00::5]", "[fd00::5]:4222"),
            ("[fd00::5]:1", "[fd00::5]:1"),
        ] {
            let found = advertised(text, 4222).expect("an address");
            assert_eq!(found.to_string(), expected, "{text}");
        }
        assert_eq!(advertised("", 4222), None);
    }
}
