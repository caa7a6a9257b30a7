//! Probes nodes that no session proves, at a slow and jittered pace. So "up" means proved, not only named, on
//! `/readyz`, on `/nodez`, in the metrics, and when a session chooses a node.
//! Also reports an outage that no failed dial has shown yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use standin_registry::{Endpoint, Node};
use tracing::{debug, info};

use crate::shared::Shared;
use crate::upstream;

/// Interval between the prober's checks for due nodes and for an outage. The interval between probes of one node is
/// `health.idle_probe_interval_ms`, or the cool-down after a failure.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Probes in flight at the same time.
const PROBES_MAX: usize = 8;

/// Probes due nodes and looks for an outage until the task is ended.
pub(crate) async fn run(shared: Arc<Shared>) {
    // Not one after the other: a probe may take as long as a handshake.
    tokio::join!(probe_due(&shared), look_for_outage(&shared));
}

async fn look_for_outage(shared: &Shared) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Instant::now();
        if let Some(since) = shared.book.none_proved_since(now) {
            let has_failed = |node: &Endpoint| shared.book.has_failed(node);
            shared.recovery.none_proved(since, has_failed, now);
        }
    }
}

async fn probe_due(shared: &Shared) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let mut due = shared.book.due_probes(Instant::now()).into_iter();
        let mut probes = FuturesUnordered::new();
        probes.extend(due.by_ref().take(PROBES_MAX).map(|node| probe(shared, node)));
        let mut failed = false;
        while let Some(proved) = probes.next().await {
            failed |= !proved;
            probes.extend(due.next().map(|node| probe(shared, node)));
        }
        let now = Instant::now();
        let nodes: Vec<_> = shared.registry.snapshot().iter().map(Arc::clone).collect();
        if failed
            && !nodes.is_empty()
            && let Some(since) = shared.book.none_reachable_since(&nodes, now)
        {
            let has_failed = |node: &Endpoint| shared.book.has_failed(node);
            shared.recovery.all_probes_failed(since, has_failed);
        }
    }
}

/// Probes one node. Returns whether the node is proved.
async fn probe(shared: &Shared, node: Arc<Node>) -> bool {
    // Without a permit the node is being tried already, or may not be retried yet.
    let Some(permit) = shared.book.permit(&node).await else {
        return false;
    };
    let result = upstream::probe(&node, &shared.book, **shared.dialling.load()).await;
    let now = Instant::now();
    match result {
        Ok(info) => {
            shared.remember_info(&info);
            shared.reachable(now);
            if shared.book.proved(&node, now) {
                info!(node = %node.client, "node has recovered");
            }
            true
        }
        Err(error) => {
            let first = shared
                .book
                .failed(&node, &error.to_string(), permit.is_trial(), now);
            shared.tell_failed_dial(&node, &error, first);
            debug!(node = %node.client, kind = error.kind(), "probe failed: {error}");
            false
        }
    }
}
