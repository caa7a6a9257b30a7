//! What all sessions of a sidecar share: the registry, the book of nodes, the settings in force, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use standin_daemon::files::{Connections, NearLimit};
use standin_registry::{Node, Watch};
use standin_wire::Info;
use tracing::warn;

use crate::card::Cards;
use crate::losses::{Loss, Losses};
use crate::metrics::Metrics;
use crate::nodes::{NodeBook, Searcher};
use crate::policy::Policy;
use crate::recovery::Recovery;
use crate::tally::Tally;
use crate::upstream::{DialError, Dialling};

/// Limits of the sidecar as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Components connected at the same time: as many as are allowed and the limit on open files holds.
    pub(crate) connections_max: usize,
    /// What is allowed.
    pub(crate) connections: Connections,
    /// Bytes in all sessions' buffers; above, components with something in a buffer are not read.
    pub(crate) buffers_total_bytes_max: usize,
    /// How long sessions have to end in order when the sidecar stops.
    pub(crate) shutdown: Duration,
    /// Rows of one HTTP page.
    pub(crate) page_items_max: usize,
    /// `/readyz` is 200 only while a node is proved.
    pub(crate) ready_needs_node: bool,
}

/// See the file's head.
pub(crate) struct Shared {
    pub(crate) registry: Watch,
    pub(crate) book: Arc<NodeBook>,
    pub(crate) recovery: Recovery,
    pub(crate) losses: Losses,
    pub(crate) cards: Cards,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: ArcSwap<Policy>,
    pub(crate) dialling: ArcSwap<Dialling>,
    pub(crate) limits: ArcSwap<Limits>,
    pub(crate) listening: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) session_ids: AtomicU64,
    pub(crate) near_limit: NearLimit,
    info: ArcSwap<Info>,
    buffered: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        registry: Watch,
        book: NodeBook,
        policy: Policy,
        dialling: Dialling,
        limits: Limits,
    ) -> Self {
        let remembered = registry.remembered_info();
        let remembered = remembered.and_then(|json| Info::parse(json.as_bytes()).ok());
        Self {
            registry,
            book: Arc::new(book),
            recovery: Recovery::default(),
            losses: Losses::default(),
            cards: Cards::default(),
            metrics: Arc::new(Metrics::new()),
            policy: ArcSwap::from_pointee(policy),
            dialling: ArcSwap::from_pointee(dialling),
            limits: ArcSwap::from_pointee(limits),
            listening: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            session_ids: AtomicU64::new(0),
            info: ArcSwap::from_pointee(remembered.unwrap_or_else(unknown_node)),
            near_limit: NearLimit::default(),
            buffered: AtomicUsize::new(0),
        }
    }

    /// The last INFO of any node, for components that connect while none can be reached (promise S10).
    pub(crate) fn last_info(&self) -> Arc<Info> {
        self.info.load_full()
    }

    /// A node sent `info`. Only what is true of any of its connections is kept, and nothing when it offers what is known
    /// already: else, when thousands of sessions move to two nodes, each would tell the registry of another one's INFO.
    pub(crate) fn remember_info(&self, info: &Info) {
        let known = self.info.load();
        if offers(info) == offers(&known) {
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

    /// How many bytes the sessions' buffers together are below their limit.
    pub(crate) fn buffer_room(&self) -> usize {
        let bytes_max = self.limits.load().buffers_total_bytes_max;
        bytes_max.saturating_sub(self.buffered.load(Relaxed))
    }

    /// A session's buffers hold `now` bytes instead of `before`.
    pub(crate) fn count_buffered(&self, before: usize, now: usize) {
        if now >= before {
            self.buffered.fetch_add(now - before, Relaxed);
        } else {
            self.buffered.fetch_sub(before - now, Relaxed);
        }
    }

    /// Bytes in all sessions' buffers.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Relaxed)
    }

    /// How long a session has to pass on what it holds when the sidecar stops; the rest of the time is for closing.
    pub(crate) fn shutdown_patience(&self) -> Duration {
        self.limits.load().shutdown.mul_f64(0.8)
    }

    /// A session lost these messages, and with them so many bytes of its component.
    pub(crate) fn lost(&self, loss: Loss, subjects: &Tally, bytes: usize) {
        self.metrics.lost.add(loss.as_str(), subjects.total());
        self.losses.add(loss, subjects, bytes);
    }

    /// A dial or a probe of `node` failed, for the first time in a row or not.
    pub(crate) fn tell_failed_dial(&self, node: &Node, error: &DialError, first: bool) {
        self.metrics.node_dials.increment(error.kind());
        if first {
            warn!(node = %node.client, kind = error.kind(), "node cannot be used: {error}");
        }
    }

    /// After an outage, while some known nodes are still down, sessions that were without a node wait for a random time,
    /// else all would be on the first node that returns. Returns whether nodes with fewer sessions are to come first.
    pub(crate) async fn spread_after_outage(&self, was_away: bool) -> bool {
        let now = Instant::now();
        let Some(until) = self.recovery.spread_until(now).filter(|_| self.book.any_failed()) else {
            return false;
        };
        if was_away {
            tokio::time::sleep((until - now).mul_f64(rand::random())).await;
        }
        true
    }

    /// How long a session that lost its node waits before it dials, so that many at once do not dial together.
    pub(crate) fn spread_of(&self, searcher: &Searcher) -> Duration {
        let dialling = self.dialling.load();
        searcher.spread(dialling.spread_per_session, dialling.spread_max)
    }

    /// Waits for news of the registry or the recovery of a node, `max` at most.
    pub(crate) async fn nodes_changed_or(&self, max: Duration) {
        let mut registry = self.registry.clone();
        let known = registry.snapshot().generation;
        let news = async {
            while registry.snapshot().generation == known {
                registry.changed().await;
            }
        };
        // Time is up or there is news: all are reasons to look again.
        tokio::select! {
            () = news => {}
            () = self.book.recovered() => {}
            () = tokio::time::sleep(max) => {}
        }
    }
}

/// What a component can notice of a node, beside its name and address.
fn offers(info: &Info) -> impl PartialEq + use<'_> {
    let asks = (info.auth_required, info.tls_required, info.tls_verify);
    (
        info.version.as_str(),
        info.proto,
        info.headers,
        asks,
        info.max_payload,
        info.jetstream,
    )
}

/// What a component is told when no node has ever been seen: the limits every `nats-server` has by default.
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
