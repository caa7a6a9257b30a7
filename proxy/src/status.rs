//! Status of the sidecar for the HTTP pages: sessions, nodes, sources of nodes, and the gauges that are set before a
//! scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::http::{NodeRow, Reachability, SessionRow, Sessions, Status};
use crate::nodes::NodeStatus;
use crate::session_info::SessionInfo;
use crate::shared::Shared;

/// The sidecar's [`Status`] for the HTTP pages.
pub(crate) struct SidecarStatus(pub(crate) Arc<Shared>);

impl Status for SidecarStatus {
    fn listening(&self) -> bool {
        self.0.listening.load(Relaxed)
    }

    fn shutting_down(&self) -> bool {
        self.0.stopping.load(Relaxed)
    }

    fn nodes(&self) -> Vec<NodeRow> {
        self.0.book.status(Instant::now()).iter().map(node_row).collect()
    }

    fn reachability(&self) -> Reachability {
        let now = Instant::now();
        let nodes = self.0.book.status(now);
        let failures = nodes.iter().filter_map(|node| node.last_failure.as_ref());
        let last = failures.min_by_key(|(age, _)| *age);
        Reachability {
            known: nodes.len(),
            proved: nodes.iter().filter(|node| node.proved).count(),
            none_for: self
                .0
                .book
                .none_proved_since(now)
                .map(|since| now.saturating_duration_since(since)),
            last_error: last.map(|(_, error)| error.clone()),
        }
    }

    fn ready_needs_node(&self) -> bool {
        self.0.limits.load().ready_needs_node
    }

    fn sessions(&self, offset: usize, limit: usize) -> Sessions<'_> {
        let rows = self
            .0
            .sessions
            .page(offset, limit)
            .iter()
            .map(|session| session_row(session))
            .collect();
        let total = self.0.sessions.len();
        Box::pin(std::future::ready((total, rows)))
    }

    fn before_scrape(&self) {
        let (metrics, health) = (&self.0.metrics, self.0.registry.health());
        metrics.buffered_bytes.set(self.0.buffered() as f64);
        let nodes = self.nodes();
        metrics.set_nodes(nodes.iter().map(|node| (node.state, node.source)));
        let reach = self.reachability();
        metrics.set_proved(reach.proved, reach.none_for.unwrap_or_default());
        let searching = self.0.sessions.all();
        let searching: Vec<Duration> = searching
            .iter()
            .filter_map(|session| Some(session.status().searching_since?.elapsed()))
            .collect();
        metrics.set_without_node(
            searching.len(),
            searching.iter().max().copied().unwrap_or_default(),
        );
        metrics.set_registry(&health);
    }

    fn page_items_max(&self) -> usize {
        self.0.limits.load().page_items_max
    }
}

fn node_row(status: &NodeStatus) -> NodeRow {
    let node = &status.node;
    let (last_error_age, last_error) = status.last_failure.clone().unzip();
    NodeRow {
        id: node.id.to_string(),
        client: node.client.to_string(),
        source: node.source.as_str(),
        state: status.state,
        withdrawn: status.withdrawn,
        zone: node.zone.to_string(),
        weight: node.weight,
        cooling_ms: status.cooling.as_millis() as u64,
        failures: status.failures,
        sessions: status.sessions,
        last_error,
        last_error_secs: last_error_age.map(|age| age.as_secs()),
    }
}

fn session_row(session: &SessionInfo) -> SessionRow {
    let status = session.status().clone();
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    SessionRow {
        id: session.id,
        component: session.component.to_string(),
        node: status.node.map(|node| node.client.to_string()),
        state: status.state,
        connected_secs: session.connected.elapsed().as_secs(),
        searching_secs: status.searching_since.map(|since| since.elapsed().as_secs()),
        subscriptions: count(&session.subscriptions) as usize,
        buffered_bytes: count(&session.buffered_bytes) as usize,
        in_doubt: count(&session.in_doubt),
        failovers: status.moves,
        messages_to_node: count(&session.messages_to_node),
        messages_to_component: count(&session.messages_to_component),
        bytes_to_node: count(&session.bytes_to_node),
        bytes_to_component: count(&session.bytes_to_component),
        client_name: status.client.name,
        client_lang: status.client.lang,
        client_version: status.client.version,
    }
}
