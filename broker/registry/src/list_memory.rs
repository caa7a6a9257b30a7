//! The last nodes of one list, for the time when the list is empty or unknown. This file is pure state, without I/O.
//!
//! A list rarely becomes empty in one step: znodes are deleted one by one, and sessions expire one after another. The nodes that
//! left a short time before are as likely to be alive as the last node. So all of them are remembered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::endpoint::Endpoint;
use crate::list::RememberedNode;
use crate::node::Node;

/// State of the list.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum ListState {
    /// Not read since the start of the process.
    #[default]
    NotRead,
    NonEmpty,
    EmptySince(SystemTime),
}

/// The remembered nodes of one list.
#[derive(Debug, Default)]
pub(crate) struct ListMemory {
    /// The nodes on the list, followed by those that left it, the last one first.
    nodes: Vec<RememberedNode>,
    state: ListState,
}

impl ListMemory {
    /// Creates the memory from the nodes that an earlier process remembered.
    pub(crate) fn of(mut nodes: Vec<RememberedNode>, now: SystemTime) -> Self {
        for known in &mut nodes {
            // The clock of the earlier process may have been ahead.
            known.left = known.left.map(|left| left.min(now));
        }
        Self {
            nodes,
            state: ListState::NotRead,
        }
    }

    /// Takes an answer of the source. Keeps at most `nodes_max` nodes that have left.
    pub(crate) fn take(&mut self, answer: &[Arc<Node>], nodes_max: usize, now: SystemTime) {
        if answer.is_empty() {
            if !matches!(self.state, ListState::EmptySince(_)) {
                self.state = ListState::EmptySince(now);
                self.nodes.retain(|known| known.is_listed_or_left_recently(now));
            }
            return;
        }
        let left_now = match self.state {
            ListState::EmptySince(since) => since,
            ListState::NotRead | ListState::NonEmpty => now,
        };
        self.state = ListState::NonEmpty;
        let listed: HashSet<&Endpoint> = answer.iter().map(|node| &node.client).collect();
        let there = answer.iter().map(|node| RememberedNode {
            node: Arc::clone(node),
            left: None,
        });
        let earlier = std::mem::replace(&mut self.nodes, there.collect());
        let departed = earlier
            .into_iter()
            .filter(|known| !listed.contains(&known.node.client))
            .map(|known| RememberedNode {
                left: Some(known.left.unwrap_or(left_now).min(now)),
                ..known
            })
            .filter(|known| known.is_listed_or_left_recently(now));
        self.nodes.extend(departed.take(nodes_max));
    }

    /// Returns whether the list is empty or has not been read.
    pub(crate) fn is_empty_or_unknown(&self) -> bool {
        self.state != ListState::NonEmpty
    }

    /// Iterates over the nodes that are likely to be alive: those on the list, and, if it has become empty, also those that had
    /// left it a short time before.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let all = matches!(self.state, ListState::EmptySince(_));
        self.nodes
            .iter()
            .filter(move |known| all || known.left.is_none())
            .map(|known| &known.node)
    }

    /// Returns all remembered nodes, for a later process. If the list has become empty, they are returned as nodes on the list, so
    /// that they are remembered however late that process starts.
    pub(crate) fn remembered(&self) -> Vec<RememberedNode> {
        let mut nodes = self.nodes.clone();
        if matches!(self.state, ListState::EmptySince(_)) {
            nodes.iter_mut().for_each(|known| known.left = None);
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::Source;

    const MAX: usize = 4;

    fn nodes(hosts: &str) -> Vec<Arc<Node>> {
        hosts
            .split_whitespace()
            .map(|host| Arc::new(Node::at(Endpoint::new(host, 1), Source::ZooKeeper)))
            .collect()
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    fn answer(memory: &mut ListMemory, answers: &[(u64, &str)]) -> String {
        for (second, hosts) in answers {
            memory.take(&nodes(hosts), MAX, at(*second));
        }
        hosts(memory)
    }

    fn hosts(memory: &ListMemory) -> String {
        let hosts: Vec<&str> = memory.nodes().map(|node| &*node.client.host).collect();
        hosts.join(" ")
    }

    /// Returns the nodes that are likely to be alive after these answers. Each answer has its time in seconds.
    fn after(answers: &[(u64, &str)]) -> String {
        answer(&mut ListMemory::default(), answers)
    }

    #[test]
    fn a_node_that_left_while_others_remained_is_not_used() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c")]), "a c");
    }

    #[test]
    fn all_nodes_of_a_list_that_was_emptied_one_by_one_are_remembered() {
        assert_eq!(
            after(&[(0, "a b c"), (1, "a c"), (2, "c"), (3, ""), (500, "")]),
            "c a b"
        );
    }

    #[test]
    fn a_node_that_left_long_before_the_list_became_empty_is_forgotten() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c"), (59, "c"), (70, "")]), "c a");
    }

    #[test]
    fn nodes_of_an_emptied_list_count_as_left_when_it_became_empty() {
        assert_eq!(after(&[(0, "a b c"), (1, ""), (80, "c"), (86, "")]), "c");
        assert_eq!(after(&[(0, "a b c"), (1, ""), (31, "c"), (36, "")]), "c a b");
    }

    #[test]
    fn a_flapping_list_does_not_keep_departed_nodes_longer() {
        let flaps = [
            (0, "a b c"),
            (1, "c"),
            (40, ""),
            (41, "c"),
            (90, ""),
            (91, "c"),
            (130, ""),
        ];
        assert_eq!(after(&flaps[..3]), "c a b");
        assert_eq!(after(&flaps[..5]), "c");
        assert_eq!(after(&flaps), "c");
    }

    #[test]
    fn a_node_that_returns_is_remembered_once() {
        assert_eq!(after(&[(0, "a b"), (1, "a"), (2, "b a"), (3, "")]), "b a");
        assert_eq!(
            after(&[(0, "a b"), (1, ""), (2, "b"), (3, ""), (4, "a"), (5, "")]),
            "a b"
        );
    }

    #[test]
    fn the_number_of_nodes_that_left_is_bounded() {
        assert_eq!(
            after(&[(0, "a b c d"), (1, "e f g h"), (2, "i"), (3, "")]),
            "i e f g h"
        );
    }

    #[test]
    fn a_later_process_continues_with_the_remembered_nodes() {
        let mut first = ListMemory::default();
        answer(&mut first, &[(0, "a b c"), (50, "a b"), (100, "b")]);
        let mut next = ListMemory::of(first.remembered(), at(109));
        assert_eq!(
            answer(&mut next, &[]),
            "b",
            "a node that had left is not used while the list is unknown"
        );
        assert_eq!(answer(&mut next, &[(111, "b"), (112, "")]), "b a");
        let mut silent = ListMemory::of(first.remembered(), at(109));
        assert_eq!(answer(&mut silent, &[(112, "")]), "b a");
        let mut late = ListMemory::of(first.remembered(), at(1_000));
        assert_eq!(answer(&mut late, &[(1_001, "x"), (1_002, "")]), "x b");
    }

    #[test]
    fn a_later_process_remembers_all_nodes_of_a_list_that_became_empty_long_before() {
        let mut first = ListMemory::default();
        answer(&mut first, &[(0, "a b c"), (1, "b c"), (2, "c"), (3, "")]);
        let mut next = ListMemory::of(first.remembered(), at(5_000));
        assert_eq!(answer(&mut next, &[]), "c b a");
        assert_eq!(answer(&mut next, &[(5_001, "")]), "c b a");
        assert_eq!(hosts(&ListMemory::of(next.remembered(), at(9_000))), "c b a");
    }

    #[test]
    fn a_departure_in_the_future_counts_as_now() {
        let ahead = nodes("a").into_iter().map(|node| RememberedNode {
            node,
            left: Some(at(1_000_000)),
        });
        let mut memory = ListMemory::of(ahead.collect(), at(0));
        assert_eq!(answer(&mut memory, &[(1, "b"), (61, "")]), "b");
    }

    #[test]
    fn no_node_is_forgotten_when_the_clock_is_set_back() {
        assert_eq!(after(&[(500, "a b"), (400, "b"), (100, "")]), "b a");
    }
}
