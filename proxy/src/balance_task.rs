//! The task of the balancer: shows it the nodes and the sessions, and tells sessions to move.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balancer::{BalancedSession, Rules};
use crate::session_command::SessionCommand;
use crate::sidecar_state::SidecarState;

/// Interval between two looks at the nodes and the sessions.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Balances the sessions until the task is ended.
pub(crate) async fn run(shared: Arc<SidecarState>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let choice = shared.settings.load().choice.clone();
        let rules = Rules {
            spread: choice.rebalance_secs.duration(),
            pause: choice.rebalance_min_secs.duration(),
        };
        let now = Instant::now();
        let all = shared.sessions.all();
        let on_node = all.iter().filter_map(|session| {
            let node = session.status().node.as_ref()?.client.clone();
            Some(BalancedSession { id: session.id, node })
        });
        let sessions: Vec<BalancedSession> = on_node.collect();
        let nodes = shared.book.balanced_nodes(now);
        let moves = shared.balancer().look(rules, &nodes, &sessions, now);
        for (id, to) in moves {
            if let Some(session) = shared.sessions.get(id) {
                session.status().balance_to = Some(to);
                session.send(SessionCommand::Balance);
            }
        }
    }
}
