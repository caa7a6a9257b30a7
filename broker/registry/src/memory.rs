//! What one list said last, kept for when it says nothing. Pure state, no I/O.
//!
//! A list seldom becomes empty at once: znodes are deleted one by one, sessions expire one after another. Who was on it shortly
//! before is as likely to be alive as who was the last.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::endpoint::Endpoint;
use crate::list::Remembered;
use crate::node::Node;

/// Whether the list says anything.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Voice {
    /// It has not been asked yet in this life.
    #[default]
    Unheard,
    Speaking,
    SilentSince(SystemTime),
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those on the list, then those who left, the last first.
    nodes: Vec<Remembered>,
    voice: Voice,
}

impl Memory {
    /// What is left of an earlier life.
    pub(crate) fn of(mut nodes: Vec<Remembered>, now: SystemTime) -> Self {
        for known in &mut nodes {
            // By a clock that ran ahead.
            known.left = known.left.map(|left| left.min(now));
        }
        Self {
            nodes,
            voice: Voice::Unheard,
        }
    }

    /// Takes an answer; of those who have left at most `nodes_max` are kept.
    pub(crate) fn take(&mut self, answer: &[Arc<Node>], nodes_max: usize, now: SystemTime) {
        if answer.is_empty() {
            if !matches!(self.voice, Voice::SilentSince(_)) {
                self.voice = Voice::SilentSince(now);
                self.nodes
                    .retain(|known| known.is_there_or_left_shortly_before(now));
            }
            return;
        }
        let left_now = match self.voice {
            Voice::SilentSince(since) => since,
            Voice::Unheard | Voice::Speaking => now,
        };
        self.voice = Voice::Speaking;
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
                left: Some(known.left.unwrap_or(left_now).min(now)),
                ..known
            })
            .filter(|known| known.is_there_or_left_shortly_before(now));
        self.nodes.extend(departed.take(nodes_max));
    }

    /// Whether it says nothing now.
    pub(crate) fn is_silent(&self) -> bool {
        self.voice != Voice::Speaking
    }

    /// Who is likely to be alive: who is on the list, and when it has become empty, who had left it shortly before too.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let all = matches!(self.voice, Voice::SilentSince(_));
        self.nodes
            .iter()
            .filter(move |known| all || known.left.is_none())
            .map(|known| &known.node)
    }

    /// All of it, for a later life. Who was on a list that has become empty stays so, however long that life is in coming.
    pub(crate) fn kept(&self) -> Vec<Remembered> {
        let mut kept = self.nodes.clone();
        if matches!(self.voice, Voice::SilentSince(_)) {
            kept.iter_mut().for_each(|known| known.left = None);
        }
        kept
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

    fn tell(memory: &mut Memory, answers: &[(u64, &str)]) -> String {
        for (second, hosts) in answers {
            memory.take(&nodes(hosts), MAX, at(*second));
        }
        hosts(memory)
    }

    fn hosts(memory: &Memory) -> String {
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
        let mut next = Memory::of(first.kept(), at(109));
        assert_eq!(
            tell(&mut next, &[]),
            "b",
            "who had left is gone while nobody says otherwise"
        );
        assert_eq!(tell(&mut next, &[(111, "b"), (112, "")]), "b a");
        let mut silent = Memory::of(first.kept(), at(109));
        assert_eq!(tell(&mut silent, &[(112, "")]), "b a");
        let mut late = Memory::of(first.kept(), at(1_000));
        assert_eq!(tell(&mut late, &[(1_001, "x"), (1_002, "")]), "x b");
    }

    #[test]
    fn a_list_that_was_empty_long_before_the_later_life_is_remembered_whole() {
        let mut first = Memory::default();
        tell(&mut first, &[(0, "a b c"), (1, "b c"), (2, "c"), (3, "")]);
        let mut next = Memory::of(first.kept(), at(5_000));
        assert_eq!(tell(&mut next, &[]), "c b a");
        assert_eq!(tell(&mut next, &[(5_001, "")]), "c b a");
        assert_eq!(hosts(&Memory::of(next.kept(), at(9_000))), "c b a");
    }

    #[test]
    fn who_left_by_a_clock_that_ran_ahead_left_now() {
        let ahead = nodes("a").into_iter().map(|node| Remembered {
            node,
            left: Some(at(1_000_000)),
        });
        let mut memory = Memory::of(ahead.collect(), at(0));
        assert_eq!(tell(&mut memory, &[(1, "b"), (61, "")]), "b");
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nobody() {
        assert_eq!(after(&[(500, "a b"), (400, "b"), (100, "")]), "b a");
    }
}
