//! Probes nodes that no session proves, at a slow and jittered pace. So "up" on `/readyz`, on `/nodez` and in the metrics
//! means that the node was proved, not only that a source names it. Also detects an outage when no session dials a node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use standin_registry::{Endpoint, Node};
use tracing::{debug, info};

use crate::dial;
use crate::sidecar_state::SidecarState;

/// Interval between the prober's checks for due nodes and for an outage. The interval between probes of one node is
/// `health.idle_probe_interval_ms`, or the cool-down after a failure.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The same interval shortly after an outage of all nodes, while each node that is still down is probed as soon as it may be
/// retried.
const EAGER_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of probes in flight.
const PROBES_MAX: usize = 8;

/// Probes due nodes and watches for an outage until the task is ended.
pub(crate) async fn run(shared: Arc<SidecarState>) {
    // Both run at the same time, because a probe may take as long as a handshake.
    tokio::join!(probe_due(&shared), watch_for_outage(&shared));
}

/// Begins an outage when no node is proved and sessions have looked for one for long enough.
async fn watch_for_outage(shared: &SidecarState) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let now = Instant::now();
        if let Some(since) = shared.book.none_proved_since(now) {
            let has_failed = |node: &Endpoint| shared.book.has_failed(node);
            shared.recovery.none_proved(since, has_failed, now);
        }
    }
}

/// Probes nodes when they are due.
async fn probe_due(shared: &SidecarState) {
    let mut due: VecDeque<Arc<Node>> = VecDeque::new();
    let mut probes = FuturesUnordered::new();
    let mut check_at = tokio::time::Instant::now();
    loop {
        tokio::select! {
            Some(()) = probes.next() => {}
            // When a failed node has recovered, the other nodes are checked at once.
            () = shared.book.recovered() => check_at = tokio::time::Instant::now(),
            () = tokio::time::sleep_until(check_at) => {
                let now = Instant::now();
                due.extend(shared.book.due_probes(now));
                let eager = shared.book.probes_eagerly(now);
                check_at = (now + if eager { EAGER_CHECK_INTERVAL } else { CHECK_INTERVAL }).into();
            }
        }
        while probes.len() < PROBES_MAX
            && let Some(node) = due.pop_front()
        {
            probes.push(probe(shared, node));
        }
    }
}

/// Probes one node and records the result.
async fn probe(shared: &SidecarState, node: Arc<Node>) {
    // There is no permit if the node is being dialled already, or may not be retried yet.
    let Some(permit) = shared.book.permit(&node).await else {
        return;
    };
    match dial::probe(&node, shared).await {
        Ok(info) => {
            let now = Instant::now();
            shared.remember_info(&info);
            shared.reachable(now);
            if shared.book.proved(&node, now) {
                info!(node = %node.client, "node has recovered");
            }
        }
        Err(error) => {
            dial::record_failure(shared, &node, &error, &permit);
            debug!(node = %node.client, kind = error.kind(), "probe failed: {error}");
            check_for_failure_of_all(shared);
        }
    }
}

/// Begins an outage if every known node has failed since a node was last proved.
fn check_for_failure_of_all(shared: &SidecarState) {
    let snapshot = shared.registry.snapshot();
    let nodes = snapshot
        .iter()
        .filter(|node| !shared.book.is_excluded(&node.client));
    let nodes: Vec<_> = nodes.map(Arc::clone).collect();
    if !nodes.is_empty()
        && let Some(since) = shared.book.none_reachable_since(&nodes, Instant::now())
    {
        let has_failed = |node: &Endpoint| shared.book.has_failed(node);
        shared.recovery.all_probes_failed(since, has_failed);
    }
}
