//! The sidecar as the HTTP pages see it: sessions, nodes, sources of nodes, and the gauges set before a scrape.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use standin_registry::{Node, NodeState};

use crate::card::Card;
use crate::http::{NodeRow, SessionRow, Sessions, Status};
use crate::shared::Shared;

/// See the file's head.
pub(crate) struct SidecarStatus(pub(crate) Arc<Shared>);

impl Status for SidecarStatus {
    fn listening(&self) -> bool {
        self.0.listening.load(Relaxed)
    }

    fn shutting_down(&self) -> bool {
        self.0.stopping.load(Relaxed)
    }

    fn nodes(&self) -> Vec<NodeRow> {
        let mut rows: Vec<NodeRow> = self
            .0
            .registry
            .snapshot()
            .iter()
            .map(|node| self.node_row(node))
            .collect();
        rows.sort_by(|a, b| a.client.cmp(&b.client));
        rows
    }

    fn sessions(&self, offset: usize, limit: usize) -> Sessions<'_> {
        let rows = self
            .0
            .cards
            .page(offset, limit)
            .iter()
            .map(|card| session_row(card))
            .collect();
        let total = self.0.cards.len();
        Box::pin(std::future::ready((total, rows)))
    }

    fn before_scrape(&self) {
        let (metrics, health) = (&self.0.metrics, self.0.registry.health());
        metrics.buffered_bytes.set(self.0.buffered() as f64);
        let nodes = self.nodes();
        metrics.set_nodes(nodes.iter().map(|node| (node.state, node.source)));
        metrics.set_registry(&health);
    }

    fn page_items_max(&self) -> usize {
        self.0.limits.load().page_items_max
    }
}

impl SidecarStatus {
    fn node_row(&self, node: &Node) -> NodeRow {
        let standing = self.0.book.standing(&node.client, Instant::now());
        let state = match node.state {
            _ if !standing.cooling.is_zero() => "cooling",
            NodeState::Draining => "draining",
            NodeState::Up => "up",
        };
        NodeRow {
            id: node.id.to_string(),
            client: node.client.to_string(),
            source: node.source.as_str(),
            state,
            zone: node.zone.to_string(),
            weight: node.weight,
            cooling_ms: standing.cooling.as_millis() as u64,
            failures: standing.failures,
            sessions: standing.sessions,
            last_error: Some(standing.last_error).filter(|error| !error.is_empty()),
        }
    }
}

fn session_row(card: &Card) -> SessionRow {
    let seldom = card.seldom().clone();
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    SessionRow {
        id: card.id,
        component: card.component.to_string(),
        node: seldom.node.map(|node| node.client.to_string()),
        state: seldom.state,
        connected_secs: card.connected.elapsed().as_secs(),
        subscriptions: count(&card.subscriptions) as usize,
        buffered_bytes: count(&card.buffered_bytes) as usize,
        in_doubt: count(&card.in_doubt),
        failovers: seldom.moves,
        messages_to_node: count(&card.messages_to_node),
        messages_to_component: count(&card.messages_to_component),
        bytes_to_node: count(&card.bytes_to_node),
        bytes_to_component: count(&card.bytes_to_component),
        client_name: seldom.client.name,
        client_lang: seldom.client.lang,
        client_version: seldom.client.version,
    }
}
