//! The order in which a session tries the nodes: by rank, then doubtful nodes last ([`NodeEntry::is_doubtful`]), then by the end
//! of the cool-down, then at random by weight.
//!
//! | rank | nodes |
//! |---|---|
//! | 0 to 3 | live, cached, fixed, named by other nodes |
//! | 4 | withdrawn (no source names them any more), but a session or a probe proved them |
//! | 5 | failed when they were last tried |
//! | 6 | draining, or drained by an operator |
//! | 7 | cooling down |
//! | 8 | withdrawn, and failed when they were last tried |
//! | 9 | the node that the session has just lost |

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use standin_registry::{Endpoint, Node, NodeState, Snapshot, Source};

use super::node_entry::NodeEntry;
use super::{NodeBook, lock};

/// Rank of proved nodes that no source names any more.
const WITHDRAWN_RANK: u8 = 4;

/// Sort key of a node: its rank, whether it is doubtful, the end of its cool-down, and a random number.
type Order = (u8, bool, Option<Instant>, f64);

impl NodeBook {
    /// Returns the known nodes in the order in which they are to be tried. `avoid` comes last. With `evenly`, within
    /// a rank, nodes with fewer sessions for their weight come first.
    pub(crate) fn candidates(
        &self,
        snapshot: &Snapshot,
        avoid: Option<&Endpoint>,
        evenly: bool,
        now: Instant,
    ) -> Vec<Arc<Node>> {
        let mut ranked: Vec<(Order, Arc<Node>)> = Vec::new();
        let entries = lock(&self.entries);
        let settings = self.settings.load();
        let mut rng = rand::rng();
        let named: HashSet<&Endpoint> = snapshot.iter().map(|node| &node.client).collect();
        let withdrawn = entries
            .values()
            .filter(|entry| entry.proved_at.is_some() && !named.contains(&entry.node.client))
            .map(|entry| (WITHDRAWN_RANK, &entry.node));
        for (rank, node) in ranked_lists(snapshot).chain(withdrawn) {
            if self.is_excluded(&node.client) {
                continue;
            }
            let entry = entries.get(&node.client);
            let cooling = entry
                .and_then(|entry| entry.cooling_until)
                .filter(|until| *until > now);
            let has_failed = entry.is_some_and(NodeEntry::has_failed);
            let rank = match cooling {
                _ if avoid == Some(&node.client) => 9,
                _ if has_failed && rank == WITHDRAWN_RANK => 8,
                Some(_) => 7,
                None if node.state == NodeState::Draining => 6,
                None if entry.is_some_and(|entry| entry.is_drained) => 6,
                None if has_failed => 5,
                None => rank,
            };
            // Retries are few, and a node that was reachable before is more likely to be reachable again.
            let is_doubtful = entry.is_some_and(|entry| entry.is_doubtful(&settings, now));
            let weight = f64::from(node.weight.max(1));
            // An exponential draw with the weight as its rate: a node comes first with a probability proportional to its weight.
            let draw = -rng.random::<f64>().max(f64::MIN_POSITIVE).ln() / weight;
            let load = entry.map_or(0, |entry| entry.sessions) as f64 / weight;
            let draw = if evenly {
                load + draw.min(1.0 / weight) / 2.0
            } else {
                draw
            };
            ranked.push(((rank, is_doubtful, cooling, draw), Arc::clone(node)));
        }
        ranked.sort_by(|(a, _), (b, _)| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)).then(a.3.total_cmp(&b.3)));
        ranked.into_iter().map(|(_, node)| node).collect()
    }
}

/// Returns the nodes of the snapshot with their ranks.
fn ranked_lists(snapshot: &Snapshot) -> impl Iterator<Item = (u8, &Arc<Node>)> {
    let live = snapshot.live.iter().map(|node| (0, node));
    let cached = snapshot.cached.iter().map(|node| (1, node));
    let fixed = snapshot
        .fixed
        .iter()
        .map(|node| (2 + u8::from(node.source == Source::Gossip), node));
    live.chain(cached).chain(fixed)
}
