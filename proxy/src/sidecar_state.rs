//! State of a sidecar that its workers, its prober and its HTTP pages share: the registry, the node book, the settings in
//! force, the counters.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use standin_daemon::admission::Admission;
use standin_daemon::connection_limit::NearLimit;
use standin_registry::{Endpoint, Watch};
use standin_tls::dialler::Dialler;
use standin_tls::files::TlsError;
use standin_wire::Info;
use tokio::sync::Semaphore;

use crate::balancer::Balancer;
use crate::handover::SidecarRecord;
use crate::losses::{Loss, Losses};
use crate::metrics::Metrics;
use crate::moves::Moves;
use crate::nodes::NodeBook;
use crate::policy::Policy;
use crate::recovery::Recovery;
use crate::rest::Rest;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::session_table::SessionTable;
use crate::settings::Settings;
use crate::tally::Tally;

/// Maximum number of dials at the same time for components that have sent no command. So a component that has sent one does not wait
/// behind thousands of connections that send nothing.
const HALF_OPEN_DIALS_MAX: usize = 64;

/// State of a sidecar that its workers, its prober and its HTTP pages share.
pub(crate) struct SidecarState {
    /// Time at which the first program started, over all that have replaced it.
    pub(crate) started: Instant,
    /// Time at which this program started.
    pub(crate) image_started: Instant,
    pub(crate) registry: Watch,
    pub(crate) book: Arc<NodeBook>,
    pub(crate) recovery: Recovery,
    pub(crate) losses: Losses,
    pub(crate) moves: Moves,
    pub(crate) sessions: SessionTable,
    pub(crate) rest: Rest,
    balancer: Mutex<Balancer>,
    pub(crate) metrics: Metrics,
    /// The settings in force.
    pub(crate) settings: ArcSwap<Settings>,
    /// The policy that is made from the settings.
    pub(crate) policy: ArcSwap<Policy>,
    /// Whether components can connect.
    pub(crate) listening: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) session_ids: AtomicU64,
    pub(crate) near_limit: NearLimit,
    /// Admission of components.
    pub(crate) admission: Admission<Arc<SessionInfo>>,
    /// Permits to dial for components that have sent no command.
    pub(crate) half_open_dials: Semaphore,
    /// The INFO recorded last by [`remember_info`](Self::remember_info); after a start, that of the cache file.
    info: ArcSwap<Info>,
    /// TLS to nodes, once it was needed.
    node_tls: ArcSwapOption<Dialler>,
    /// Bytes in all sessions' buffers.
    buffered: AtomicUsize,
}

impl SidecarState {
    /// Creates the state of a sidecar that listens on `addresses`. It may go on with the state of the `former` program.
    pub(crate) fn new(
        settings: Settings,
        policy: Policy,
        registry: Watch,
        addresses: &[SocketAddr],
        former: Option<SidecarRecord>,
    ) -> Self {
        let settings = Arc::new(settings);
        let remembered = registry.remembered_info();
        let remembered = remembered.and_then(|json| Info::parse(json.as_bytes()).ok());
        let (recovery, losses, moves) = (Recovery::default(), Losses::default(), Moves::default());
        let (metrics, sessions) = (Metrics::new(), SessionTable::default());
        let (mut started, mut session_ids) = (Instant::now(), 0);
        let (mut nodes, mut mark, mut balancer) = (None, None, Balancer::default());
        if let Some(former) = former {
            (started, session_ids) = (former.started, former.session_ids);
            recovery.restore(former.recovery);
            losses.restore(&former.losses);
            moves.restore(former.moves_total, former.moves);
            metrics.restore(&former.metrics);
            sessions.restore(former.ended);
            (nodes, mark, balancer) = (Some(former.nodes), Some(former.mark), former.balancer);
        }
        Self {
            started,
            image_started: Instant::now(),
            registry,
            book: Arc::new(NodeBook::going_on(
                Arc::clone(&settings),
                addresses,
                nodes,
                mark.as_deref(),
            )),
            recovery,
            losses,
            moves,
            sessions,
            rest: Rest::default(),
            balancer: Mutex::new(balancer),
            metrics,
            settings: ArcSwap::new(settings),
            policy: ArcSwap::from_pointee(policy),
            listening: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            session_ids: AtomicU64::new(session_ids),
            info: ArcSwap::from_pointee(remembered.unwrap_or_else(unknown_node)),
            near_limit: NearLimit::default(),
            admission: Admission::default(),
            half_open_dials: Semaphore::new(HALF_OPEN_DIALS_MAX),
            node_tls: ArcSwapOption::empty(),
            buffered: AtomicUsize::new(0),
        }
    }

    /// Locks the balancer.
    pub(crate) fn balancer(&self) -> MutexGuard<'_, Balancer> {
        self.balancer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the recorded INFO, for components that connect while no node is reachable (promise S10).
    pub(crate) fn last_info(&self) -> Arc<Info> {
        self.info.load_full()
    }

    /// Records the INFO of a node, without `ldm` and the fields that describe one connection. Does nothing if the features
    /// in `info` are those of the recorded INFO. Without this check, thousands of sessions that move at once would each write
    /// an INFO to the registry.
    pub(crate) fn remember_info(&self, info: &Info) {
        let known = self.info.load();
        if features(info) == features(&known) {
            return;
        }
        let lasting = Info {
            client_id: 0,
            client_ip: String::new(),
            nonce: String::new(),
            ldm: false,
            sidecars: String::new(),
            ..info.clone()
        };
        if let Ok(json) = serde_json::to_string(&lasting) {
            self.registry.remember_info(json);
        }
        self.info.store(Arc::new(lasting));
    }

    /// Returns the bytes left below the limit on all sessions' buffers.
    pub(crate) fn buffer_room(&self, policy: &Policy) -> usize {
        let bytes_max = policy.buffers_total_bytes_max;
        bytes_max.saturating_sub(self.buffered.load(Relaxed))
    }

    /// Records that a session's buffers hold `now` bytes instead of `before`.
    pub(crate) fn count_buffered(&self, before: usize, now: usize) {
        if now >= before {
            self.buffered.fetch_add(now - before, Relaxed);
        } else {
            self.buffered.fetch_sub(before - now, Relaxed);
        }
    }

    /// Returns the bytes in all sessions' buffers.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Relaxed)
    }

    /// Returns TLS to nodes. It is made only when a node first needs it, because it may load all authorities of the system, and most
    /// sidecars need no TLS.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be used.
    pub(crate) fn node_tls(&self) -> Result<Arc<Dialler>, TlsError> {
        if let Some(dialler) = self.node_tls.load_full() {
            return Ok(dialler);
        }
        let dialler = Arc::new(self.settings.load().tls.node.section.dialler()?);
        self.node_tls.store(Some(Arc::clone(&dialler)));
        Ok(dialler)
    }

    /// Makes the next dial read the files of TLS again.
    pub(crate) fn forget_tls(&self) {
        self.node_tls.store(None);
    }

    /// Returns the timeout for a session to send its held bytes when the sidecar stops. The rest of the shutdown time
    /// is for closing.
    pub(crate) fn shutdown_timeout(&self) -> Duration {
        self.settings.load().process.shutdown_secs.duration().mul_f64(0.8)
    }

    /// Counts messages that a session lost, by subject. `abandoned_bytes` is the size of all frames lost with them.
    pub(crate) fn lost(&self, loss: Loss, subjects: &Tally, abandoned_bytes: usize) {
        self.metrics.lost.add(loss.as_str(), subjects.total());
        self.losses.add(loss, subjects, abandoned_bytes);
    }

    /// Records that a node answered a session or a probe. If this ends an outage, the other nodes are tried at once.
    pub(crate) fn reachable(&self, now: Instant) {
        if self.recovery.reachable(now) {
            self.book.end_cooldowns(now);
        }
    }

    /// Makes all sessions on `node` send a PING to it. Called when one session has lost the node. The PING shows the others
    /// at once whether the node is alive.
    pub(crate) fn probe_sessions_on(&self, node: &Endpoint) {
        for session in self.sessions.all() {
            let on = session
                .status()
                .node
                .as_ref()
                .is_some_and(|on| on.client == *node);
            if on {
                session.send(SessionCommand::Probe);
            }
        }
    }

    /// Spreads sessions over the nodes after an outage while some known nodes are still down. A session that had no node
    /// waits for a random time; otherwise all sessions would be on the first node that returns. Returns whether nodes
    /// with fewer sessions should be tried first.
    pub(crate) async fn spread_after_outage(&self, had_no_node: bool) -> bool {
        let now = Instant::now();
        let Some(until) = self.recovery.spread_until(now).filter(|_| self.book.any_failed()) else {
            return false;
        };
        if had_no_node {
            tokio::time::sleep((until - now).mul_f64(rand::random())).await;
        }
        true
    }

    /// Waits for a change of the registry or the recovery of a node, at most `max`.
    pub(crate) async fn nodes_changed_or(&self, max: Duration) {
        let mut registry = self.registry.clone();
        let known = registry.snapshot().generation;
        let changed = async {
            while registry.snapshot().generation == known {
                registry.changed().await;
            }
        };
        // After any of these events the nodes are tried again.
        tokio::select! {
            () = changed => {}
            () = self.book.recovered() => {}
            () = tokio::time::sleep(max) => {}
        }
    }
}

/// Returns the features in a node's INFO: the fields that matter to a component, without the name and the address.
fn features(info: &Info) -> impl PartialEq + use<'_> {
    let required = (info.auth_required, info.tls_required, info.tls_verify);
    (
        info.version.as_str(),
        info.proto,
        info.headers,
        required,
        info.max_payload,
        info.jetstream,
    )
}

/// Returns the INFO for components while no node has ever been seen, with the default limits of `nats-server`.
fn unknown_node() -> Info {
    Info {
        server_id: "STANDIN".to_owned(),
        server_name: "standin-proxy".to_owned(),
        version: "2.0.0".to_owned(),
        proto: 1,
        git_commit: concat!("standin-", env!("CARGO_PKG_VERSION")).to_owned(),
        go: "rust".to_owned(),
        headers: true,
        ..Info::default()
    }
}
