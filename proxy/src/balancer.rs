//! Moves sessions to a node that has come, or come back, until it has its share of them (promise S13).
//!
//! When a node has been usable for long enough, each session on another node moves to it with the probability of the node's share, by
//! weight, at a random time within `choice.rebalance_secs`. So after a rolling restart the load is even again. Only planned moves are
//! made, in which nothing is lost: between brokers that know MOVE.
//!
//! *Rules against needless moves.* A node that is unusable from time to time must be usable for longer each time. While fewer than half of
//! the known nodes are usable, nothing is planned and planned moves are cancelled, because the sidecar's own network is then the likely
//! cause. A session moves once in `choice.rebalance_min_secs` at most, and only to a node of the zone of its present one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use standin_registry::Endpoint;
use tracing::info;

use crate::nodes::BalancedNode;
use crate::state_fields::{optional_time, time};

/// A node must be usable for `rebalance_secs` divided by this number before sessions move to it.
const STABLE_PART: u32 = 6;
/// A node that becomes unusable again within this time of its last break is flapping.
const BREAKS_KEPT: Duration = Duration::from_secs(600);
/// For each such break, the required usable time doubles, at most this many times.
const BREAKS_MAX: u32 = 6;

/// Settings of the balancer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Time over which the moves to a node are spread. Zero: no session is moved.
    pub(crate) spread: Duration,
    /// Shortest time between two moves of a session for balance.
    pub(crate) pause: Duration,
}

/// A session and its node.
#[derive(Debug, Clone)]
pub(crate) struct BalancedSession {
    pub(crate) id: u64,
    pub(crate) node: Endpoint,
}

/// What is known of one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct History {
    #[serde(with = "optional_time")]
    usable_since: Option<Instant>,
    /// The moves of its share are planned or made, or it was there from the start.
    is_balanced: bool,
    breaks: u32,
    #[serde(with = "optional_time")]
    last_break: Option<Instant>,
}

/// A time in a collection.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct At(#[serde(with = "time")] Instant);

/// A planned move of a session to a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PlannedMove {
    at: At,
    session: u64,
    to: Endpoint,
}

/// The decisions, without sessions, sockets or clocks. They go on in the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Balancer {
    #[serde(skip, default = "new_rng")]
    rng: StdRng,
    has_looked: bool,
    nodes: HashMap<Endpoint, History>,
    plan: Vec<PlannedMove>,
    /// Last move of each session for balance, while it may not move again.
    moved: HashMap<u64, At>,
}

fn new_rng() -> StdRng {
    StdRng::seed_from_u64(rand::random())
}

impl Default for Balancer {
    fn default() -> Self {
        Self::new(new_rng())
    }
}

impl Balancer {
    fn new(rng: StdRng) -> Self {
        Self {
            rng,
            has_looked: false,
            nodes: HashMap::new(),
            plan: Vec::new(),
            moved: HashMap::new(),
        }
    }

    /// Returns the decisions for the next program.
    pub(crate) fn record(&self) -> Self {
        Self {
            rng: new_rng(),
            has_looked: self.has_looked,
            nodes: self.nodes.clone(),
            plan: self.plan.clone(),
            moved: self.moved.clone(),
        }
    }

    /// Returns the moves that are due: sessions and their new nodes.
    pub(crate) fn look(
        &mut self,
        rules: Rules,
        nodes: &[BalancedNode],
        sessions: &[BalancedSession],
        now: Instant,
    ) -> Vec<(u64, Endpoint)> {
        self.update_history(nodes, now);
        let usable: HashMap<&Endpoint, &BalancedNode> = nodes
            .iter()
            .filter(|node| node.is_usable)
            .map(|node| (&node.node, node))
            .collect();
        if rules.spread.is_zero() || usable.len() * 2 < nodes.len() {
            self.plan.clear();
            return Vec::new();
        }
        for node in usable.values() {
            if self.is_due(&node.node, rules, now) {
                self.plan_moves_to(node, &usable, rules, sessions, now);
            }
        }
        self.moved.retain(|_, at| now < at.0 + rules.pause);
        let at: HashMap<u64, &Endpoint> = sessions
            .iter()
            .map(|session| (session.id, &session.node))
            .collect();
        let mut due = Vec::new();
        self.plan.retain(|planned| {
            let PlannedMove {
                at: At(when),
                session,
                to,
            } = planned;
            let is_possible = usable.contains_key(to) && at.get(session).is_some_and(|node| *node != to);
            if is_possible && now >= *when {
                due.push((*session, to.clone()));
            }
            is_possible && now < *when
        });
        due.retain(|(session, _)| !self.moved.contains_key(session));
        self.moved
            .extend(due.iter().map(|(session, _)| (*session, At(now))));
        due
    }

    fn update_history(&mut self, nodes: &[BalancedNode], now: Instant) {
        let is_start = !self.has_looked;
        self.has_looked |= !nodes.is_empty();
        self.nodes.retain(|known, history| {
            let is_remembered = history.last_break.is_some_and(|at| now < at + BREAKS_KEPT);
            is_remembered || nodes.iter().any(|node| node.node == *known)
        });
        for node in nodes {
            let history = self.nodes.entry(node.node.clone()).or_insert(History {
                usable_since: None,
                is_balanced: is_start,
                breaks: 0,
                last_break: None,
            });
            // A node that goes away gets its share when it returns, even if it was never usable before.
            history.is_balanced &= !node.is_away;
            if node.is_usable && history.usable_since.is_none() {
                history.usable_since = Some(now);
            } else if node.is_away && history.usable_since.take().is_some() {
                let is_repeated = history.last_break.is_some_and(|at| now < at + BREAKS_KEPT);
                history.breaks = if is_repeated {
                    (history.breaks + 1).min(BREAKS_MAX)
                } else {
                    0
                };
                history.last_break = Some(now);
            }
        }
    }

    /// Returns whether sessions are to be moved to this node now.
    fn is_due(&self, node: &Endpoint, rules: Rules, now: Instant) -> bool {
        let stable = |history: &History| rules.spread / STABLE_PART * (1 << history.breaks);
        self.nodes.get(node).is_some_and(|history| {
            !history.is_balanced
                && history
                    .usable_since
                    .is_some_and(|since| now >= since + stable(history))
        })
    }

    fn plan_moves_to(
        &mut self,
        to: &BalancedNode,
        usable: &HashMap<&Endpoint, &BalancedNode>,
        rules: Rules,
        sessions: &[BalancedSession],
        now: Instant,
    ) {
        if let Some(history) = self.nodes.get_mut(&to.node) {
            history.is_balanced = true;
        }
        let in_zone = usable.values().filter(|node| node.zone == to.zone);
        let total: u64 = in_zone.map(|node| u64::from(node.weight.max(1))).sum();
        let share = f64::from(to.weight.max(1)) / total as f64;
        let planned = self.plan.len();
        for session in sessions.iter().filter(|session| session.node != to.node) {
            let is_in_zone = usable.get(&session.node).is_some_and(|node| node.zone == to.zone);
            if is_in_zone && self.rng.random_bool(share) {
                self.plan.push(PlannedMove {
                    at: At(now + rules.spread.mul_f64(self.rng.random())),
                    session: session.id,
                    to: to.node.clone(),
                });
            }
        }
        let sessions = self.plan.len() - planned;
        if sessions > 0 {
            info!(node = %to.node, sessions, over_secs = rules.spread.as_secs(), "balancing sessions");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: Rules = Rules {
        spread: Duration::from_secs(60),
        pause: Duration::from_secs(300),
    };

    /// Nodes, sessions, and the balancer, in virtual time.
    struct Bench {
        balancer: Balancer,
        nodes: Vec<BalancedNode>,
        sessions: Vec<BalancedSession>,
        now: Instant,
    }

    impl Bench {
        /// Three nodes of the weights 1, and 300 sessions on the first two.
        fn new() -> Self {
            let node = |number: u16| BalancedNode {
                node: Endpoint::new("n", number),
                zone: String::new(),
                weight: 1,
                is_usable: true,
                is_away: false,
            };
            let session = |id: u64| BalancedSession {
                id,
                node: Endpoint::new("n", 1 + (id % 2) as u16),
            };
            let mut bench = Self {
                balancer: Balancer::new(StdRng::seed_from_u64(7)),
                nodes: (1..4).map(node).collect(),
                sessions: (0..300).map(session).collect(),
                now: Instant::now(),
            };
            assert_eq!(bench.pass(RULES, 1), 0);
            bench
        }

        /// Lets seconds pass and makes the moves. Returns their number.
        fn pass(&mut self, rules: Rules, seconds: u32) -> usize {
            let mut moves = 0;
            for _ in 0..seconds {
                self.now += SECOND;
                for (id, to) in self.balancer.look(rules, &self.nodes, &self.sessions, self.now) {
                    self.sessions[id as usize].node = to;
                    moves += 1;
                }
            }
            moves
        }

        fn on(&self, number: u16) -> usize {
            let node = Endpoint::new("n", number);
            self.sessions
                .iter()
                .filter(|session| session.node == node)
                .count()
        }

        fn restart(&mut self, seconds: u32) {
            self.set_away(2, true);
            self.pass(RULES, seconds);
            self.set_away(2, false);
        }

        fn set_away(&mut self, node: usize, is_away: bool) {
            let node = &mut self.nodes[node];
            (node.is_away, node.is_usable) = (is_away, !is_away);
        }
    }

    #[test]
    fn s13_a_node_that_comes_back_gets_its_share_within_rebalance_secs_and_no_more() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.pass(RULES, 600),
            0,
            "nodes known from the start are not balanced"
        );
        bench.restart(5);
        assert_eq!(bench.pass(RULES, 9), 0, "the node is not usable for long enough");
        bench.pass(RULES, 31);
        assert!(
            (20..80).contains(&bench.on(3)),
            "moves are spread: {}",
            bench.on(3)
        );
        bench.pass(RULES, 40);
        assert!(
            (75..125).contains(&bench.on(3)),
            "a third of 300: {}",
            bench.on(3)
        );
        assert_eq!(bench.pass(RULES, 600), 0);
    }

    #[test]
    fn s13_a_node_that_goes_away_before_it_was_proved_comes_back_too() {
        let mut bench = Bench::new();
        bench.balancer.nodes.clear();
        bench.balancer.has_looked = false;
        bench.nodes[2].is_usable = false;
        assert_eq!(bench.pass(RULES, 1), 0, "not tried yet");
        bench.restart(2);
        assert!(bench.pass(RULES, 100) > 0);
    }

    #[test]
    fn s13_a_flapping_node_is_left_alone_and_no_session_moves_twice_within_rebalance_min_secs() {
        let mut bench = Bench::new();
        for _ in 0..20 {
            bench.restart(2);
            bench.pass(RULES, 8);
        }
        assert_eq!(bench.on(3), 0);
        let mut bench = Bench::new();
        bench.restart(2);
        bench.pass(RULES, 71);
        let moved = bench.on(3);
        bench
            .sessions
            .iter_mut()
            .for_each(|session| session.node = Endpoint::new("n", 1));
        bench.restart(2);
        bench.pass(RULES, 100);
        let again = bench.on(3);
        assert!(moved > 0 && again > 0 && again < moved, "{again} after {moved}");
    }

    #[test]
    fn s13_nothing_is_balanced_while_most_nodes_are_unusable_or_to_another_zone_or_with_rebalance_secs_0() {
        let mut bench = Bench::new();
        bench.set_away(0, true);
        bench.set_away(1, true);
        bench.restart(2);
        assert_eq!(bench.pass(RULES, 600), 0, "one node of three");
        let mut bench = Bench::new();
        bench.nodes[2].zone = "b".to_owned();
        bench.restart(2);
        assert_eq!(bench.pass(RULES, 600), 0, "another zone");
        let mut bench = Bench::new();
        bench.restart(2);
        let off = Rules {
            spread: Duration::ZERO,
            ..RULES
        };
        assert_eq!(bench.pass(off, 600), 0, "off");
    }
}
