//! What one source last said, kept for when it says nothing. Pure state, no I/O.
//!
//! A list seldom becomes empty at once: znodes are deleted one by one, sessions expire one after another. Who was on it shortly
//! before is as likely to be alive as who was the last.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::node::Node;

/// Who left the list before its end at most this long ago belongs to what it was.
const DEPARTED_KEPT: Duration = Duration::from_secs(60);

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The last answer that was not empty; after an empty one, who had left shortly before too.
    nodes: Vec<Arc<Node>>,
    /// Who left while others stayed, and when.
    departed: Vec<(Instant, Arc<Node>)>,
    is_empty_now: bool,
    /// The settings are others since the last answer: who is not in the next one did not leave, it belongs elsewhere.
    is_former: bool,
}

impl Memory {
    /// What is left of an earlier life.
    pub(crate) fn of(nodes: Vec<Arc<Node>>) -> Self {
        Self {
            nodes,
            is_empty_now: true,
            is_former: true,
            ..Self::default()
        }
    }

    /// Takes an answer; at most `nodes_max` nodes are kept.
    pub(crate) fn take(&mut self, answer: &[Arc<Node>], nodes_max: usize, now: Instant) {
        let is_young = |since: Instant| now.duration_since(since) < DEPARTED_KEPT;
        if answer.is_empty() {
            if !self.is_empty_now {
                let departed = std::mem::take(&mut self.departed).into_iter().rev();
                let late = departed.filter(|(since, _)| is_young(*since));
                self.nodes.extend(late.map(|(_, node)| node));
                self.nodes.truncate(nodes_max);
            }
            self.is_empty_now = true;
            return;
        }
        let known: HashSet<&Endpoint> = answer.iter().map(|node| &node.client).collect();
        let earlier = std::mem::replace(&mut self.nodes, answer.to_vec());
        if std::mem::take(&mut self.is_former) {
            self.departed.clear();
        } else {
            self.departed.extend(earlier.into_iter().map(|node| (now, node)));
        }
        self.departed
            .retain(|(since, node)| is_young(*since) && !known.contains(&node.client));
        let over = self.departed.len().saturating_sub(nodes_max);
        self.departed.drain(..over);
        self.is_empty_now = false;
    }

    /// Other settings hold from now on.
    pub(crate) fn is_of_former_settings(&mut self) {
        self.is_former = true;
    }

    /// Who is likely to be alive while the source says nothing.
    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Source;

    const MAX: usize = 4;

    fn nodes(hosts: &str) -> Vec<Arc<Node>> {
        hosts
            .split_whitespace()
            .map(|host| Arc::new(Node::at(Endpoint::new(host, 1), Source::ZooKeeper)))
            .collect()
    }

    /// A memory that took each answer so many seconds after the beginning, and what it then has.
    fn after(answers: &[(u64, &str)]) -> (Memory, String) {
        let begin = Instant::now();
        let mut memory = Memory::default();
        for (second, hosts) in answers {
            memory.take(&nodes(hosts), MAX, begin + Duration::from_secs(*second));
        }
        let hosts = hosts(&memory);
        (memory, hosts)
    }

    fn hosts(memory: &Memory) -> String {
        let hosts: Vec<&str> = memory.nodes().iter().map(|node| &*node.client.host).collect();
        hosts.join(" ")
    }

    #[test]
    fn who_left_while_others_stay_is_gone() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c")]).1, "a c");
    }

    #[test]
    fn a_list_emptied_one_by_one_is_remembered_whole() {
        assert_eq!(
            after(&[(0, "a b c"), (1, "a c"), (2, "c"), (3, ""), (500, "")]).1,
            "c a b"
        );
    }

    #[test]
    fn who_left_long_before_the_end_is_not_remembered() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c"), (59, "c"), (70, "")]).1, "c a");
    }

    #[test]
    fn who_has_come_back_is_there_once() {
        assert_eq!(after(&[(0, "a b"), (1, "a"), (2, "b a"), (3, "")]).1, "b a");
        assert_eq!(
            after(&[(0, "a b"), (1, ""), (2, "b"), (3, ""), (4, "a"), (5, "")]).1,
            "a b"
        );
    }

    #[test]
    fn an_empty_list_remembers_no_more_than_its_limit() {
        let (memory, last) = after(&[(0, "a b c d"), (1, "e f g h"), (2, "i"), (3, "")]);
        assert_eq!(last, "i h g f");
        assert!(memory.departed.is_empty());
        assert_eq!(
            after(&[(0, "a b c d"), (1, "e f g h"), (2, "i")])
                .0
                .departed
                .len(),
            MAX
        );
    }

    #[test]
    fn with_other_settings_nobody_has_left() {
        let begin = Instant::now();
        let (mut memory, _) = after(&[(0, "a b"), (1, "a")]);
        memory.is_of_former_settings();
        memory.take(&nodes("x"), MAX, begin);
        memory.take(&[], MAX, begin);
        assert_eq!(hosts(&memory), "x");

        let mut kept = Memory::of(nodes("a b"));
        kept.take(&[], MAX, begin);
        assert_eq!(hosts(&kept), "a b");
        kept.take(&nodes("x"), MAX, begin);
        kept.take(&[], MAX, begin);
        assert_eq!(hosts(&kept), "x");
    }
}
