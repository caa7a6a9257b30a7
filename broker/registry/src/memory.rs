//! What one list said last, kept for when it says nothing. Pure state, no I/O.
//!
//! A list seldom becomes empty at once: znodes are deleted one by one, sessions expire one after another. Who was on it shortly
//! before is as likely to be alive as who was the last.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::endpoint::Endpoint;
use crate::node::{Node, Source};

/// Who left the list before its end at most this long ago belongs to what it was.
const DEPARTED_KEPT: Duration = Duration::from_secs(60);

/// Which list it is: a source may have several, and other settings mean another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListName {
    pub(crate) source: Source,
    /// ZooKeeper's hosts and path, or the DNS name; empty in a file that does not tell.
    pub(crate) name: String,
}

/// A node that is on the list, or was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) node: Arc<Node>,
    /// When it left while others stayed.
    pub(crate) left: Option<SystemTime>,
}

impl Remembered {
    fn is_there_or_left_shortly_before(&self, now: SystemTime) -> bool {
        // By a clock that was set back it left just now.
        let age = |left| now.duration_since(left).unwrap_or_default();
        self.left.is_none_or(|left| age(left) < DEPARTED_KEPT)
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those on the list, then those who left, the last first.
    nodes: Vec<Remembered>,
    /// Since when it says nothing.
    silent_since: Option<SystemTime>,
}

impl Memory {
    /// What is left of an earlier life.
    pub(crate) fn of(mut nodes: Vec<Remembered>, now: SystemTime) -> Self {
        nodes.retain(|known| known.is_there_or_left_shortly_before(now));
        Self {
            nodes,
            silent_since: Some(now),
        }
    }

    /// Takes an answer; of those who have left at most `nodes_max` are kept.
    pub(crate) fn take(&mut self, answer: &[Arc<Node>], nodes_max: usize, now: SystemTime) {
        if answer.is_empty() {
            if self.silent_since.is_none() {
                self.silent_since = Some(now);
                self.nodes
                    .retain(|known| known.is_there_or_left_shortly_before(now));
            }
            return;
        }
        let left_now = self.silent_since.take().unwrap_or(now);
        let listed: HashSet<&Endpoint> = answer.iter().map(|node| &node.client).collect();
        let there = answer.iter().map(|node| Remembered {
            node: Arc::clone(node),
            left: None,
        });
        let earlier = std::mem::replace(&mut self.nodes, there.collect());
        let departed = earlier
            .into_iter()
            .filter(|known| !listed.contains(&known.node.client))
            .map(|known| Remembered {
                left: known.left.or(Some(left_now)),
                ..known
            })
            .filter(|known| known.is_there_or_left_shortly_before(now));
        self.nodes.extend(departed.take(nodes_max));
    }

    /// Whether it says nothing now.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// Who is likely to be alive: who is on the list, and when it says nothing, who had left it shortly before too.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let all = self.is_silent();
        self.nodes
            .iter()
            .filter(move |known| all || known.left.is_none())
            .map(|known| &known.node)
    }

    /// All of it, for a later life.
    pub(crate) fn all(&self) -> &[Remembered] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn tell(memory: &mut Memory, answers: &[(u64, &str)]) -> String {
        for (second, hosts) in answers {
            memory.take(&nodes(hosts), MAX, at(*second));
        }
        let hosts: Vec<&str> = memory.nodes().map(|node| &*node.client.host).collect();
        hosts.join(" ")
    }

    /// Who is remembered after these answers, each so many seconds after the beginning.
    fn after(answers: &[(u64, &str)]) -> String {
        tell(&mut Memory::default(), answers)
    }

    #[test]
    fn who_left_while_others_stay_is_gone() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c")]), "a c");
    }

    #[test]
    fn a_list_emptied_one_by_one_is_remembered_whole() {
        assert_eq!(
            after(&[(0, "a b c"), (1, "a c"), (2, "c"), (3, ""), (500, "")]),
            "c a b"
        );
    }

    #[test]
    fn who_left_long_before_the_end_is_not_remembered() {
        assert_eq!(after(&[(0, "a b c"), (1, "a c"), (59, "c"), (70, "")]), "c a");
    }

    #[test]
    fn who_was_last_there_before_a_silence_left_when_it_began() {
        assert_eq!(after(&[(0, "a b c"), (1, ""), (80, "c"), (86, "")]), "c");
        assert_eq!(after(&[(0, "a b c"), (1, ""), (31, "c"), (36, "")]), "c a b");
    }

    #[test]
    fn a_list_that_flaps_keeps_nobody_longer() {
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
    fn who_has_come_back_is_there_once() {
        assert_eq!(after(&[(0, "a b"), (1, "a"), (2, "b a"), (3, "")]), "b a");
        assert_eq!(
            after(&[(0, "a b"), (1, ""), (2, "b"), (3, ""), (4, "a"), (5, "")]),
            "a b"
        );
    }

    #[test]
    fn those_who_left_are_bounded() {
        assert_eq!(
            after(&[(0, "a b c d"), (1, "e f g h"), (2, "i"), (3, "")]),
            "i e f g h"
        );
    }

    #[test]
    fn a_later_life_goes_on_where_the_last_one_ended() {
        let mut first = Memory::default();
        tell(&mut first, &[(0, "a b c"), (50, "a b"), (100, "b")]);
        let kept = first.all().to_vec();
        let mut next = Memory::of(kept.clone(), at(109));
        assert_eq!(tell(&mut next, &[]), "b a c");
        assert_eq!(tell(&mut next, &[(111, "b"), (112, "")]), "b a");
        let mut late = Memory::of(kept, at(1_000));
        assert_eq!(tell(&mut late, &[(1_001, "x"), (1_002, "")]), "x b");
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nobody() {
        assert_eq!(after(&[(500, "a b"), (400, "b"), (100, "")]), "b a");
    }
}
