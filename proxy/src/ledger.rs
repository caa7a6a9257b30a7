//! The ledger: which answers the present node still owes, in order. It tells the component's PONGs from the sidecar's
//! own (promise S5), `+OK`s that the component waits for from those that answer a replay (S6), and what a PONG confirms
//! (S3).

use std::collections::VecDeque;

use standin_wire::{ClientFault, encode};

use crate::doubt::Mark;
use crate::error_text::ErrorText;

/// An answer that is to come, or has to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// So many `+OK`s for the component.
    Oks(u32),
    /// So many `+OK`s for commands that the sidecar repeated: the component has, or will get, its own.
    SwallowedOks(u32),
    /// So many `+OK`s that no node will send any more; the sidecar gives them when their turn has come.
    OwnOks(u32),
    /// An `-ERR` of the sidecar's own, when its turn has come.
    OwnError(ClientFault),
    /// A PONG for the component.
    ComponentPong(Mark),
    /// A PONG for the sidecar.
    OwnPong(Mark),
}

/// What the component is still owed when its node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// So many `+OK`s.
    Oks(u32),
    /// An `-ERR` of the sidecar's own.
    Error(ClientFault),
    /// A PONG for a PING that was sent where the mark says.
    Pong(Mark),
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    expected: VecDeque<Expected>,
    pings: usize,
}

impl Ledger {
    /// Entries: answers of one kind in a row count once.
    pub(crate) fn len(&self) -> usize {
        self.expected.len()
    }

    /// Whether a PING is unanswered.
    pub(crate) fn awaits_pong(&self) -> bool {
        self.pings > 0
    }

    /// Whether nothing is owed.
    pub(crate) fn is_settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// An answer is to come. Neighbours of one kind become one entry.
    pub(crate) fn expect(&mut self, next: Expected) {
        match (self.expected.back_mut(), next) {
            (_, Expected::Oks(0) | Expected::SwallowedOks(0) | Expected::OwnOks(0)) => return,
            (Some(Expected::Oks(have)), Expected::Oks(more))
            | (Some(Expected::SwallowedOks(have)), Expected::SwallowedOks(more))
            | (Some(Expected::OwnOks(have)), Expected::OwnOks(more)) => {
                *have += more;
                return;
            }
            (_, Expected::ComponentPong(_) | Expected::OwnPong(_)) => self.pings += 1,
            _ => {}
        }
        self.expected.push_back(next);
    }

    /// The node sent `+OK`: whether the component gets it.
    pub(crate) fn ok(&mut self) -> bool {
        let (left, passes) = match self.expected.front_mut() {
            Some(Expected::Oks(left)) => (left, true),
            Some(Expected::SwallowedOks(left)) => (left, false),
            _ => return true,
        };
        *left -= 1;
        if *left == 0 {
            self.expected.pop_front();
        }
        passes
    }

    /// The node sent PONG. What it answers, or `None` when no PING is open. `+OK`s that should have come before it will
    /// not come any more: the node answered those commands with `-ERR`.
    pub(crate) fn pong(&mut self) -> Option<Expected> {
        if self.pings == 0 {
            return None;
        }
        // What the sidecar has to answer itself is not lost with what the node will not answer.
        let mut own = Vec::new();
        while let Some(front) = self.expected.pop_front() {
            match front {
                Expected::ComponentPong(_) | Expected::OwnPong(_) => {
                    self.pings -= 1;
                    own.into_iter()
                        .rev()
                        .for_each(|answer| self.expected.push_front(answer));
                    return Some(front);
                }
                Expected::OwnOks(_) | Expected::OwnError(_) => own.push(front),
                Expected::Oks(_) | Expected::SwallowedOks(_) => {}
            }
        }
        None
    }

    /// Whether the component still waits for an answer.
    pub(crate) fn owes_component(&self) -> bool {
        let own = |expected: &Expected| matches!(expected, Expected::SwallowedOks(_) | Expected::OwnPong(_));
        !self.expected.iter().all(own)
    }

    /// What the sidecar itself has to answer now, as bytes.
    pub(crate) fn own_answers(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        loop {
            match self.expected.front() {
                Some(Expected::OwnOks(due)) => answers.extend(encode::OK.repeat(*due as usize)),
                Some(Expected::OwnError(fault)) => ErrorText::Fault(*fault).encode(&mut answers),
                _ => return answers,
            }
            self.expected.pop_front();
        }
    }

    /// The node is gone: what the component is still owed, in order.
    pub(crate) fn take_owed(&mut self) -> VecDeque<Owed> {
        self.pings = 0;
        let owed = self.expected.drain(..).filter_map(|expected| match expected {
            Expected::Oks(count) | Expected::OwnOks(count) => Some(Owed::Oks(count)),
            Expected::OwnError(fault) => Some(Owed::Error(fault)),
            Expected::ComponentPong(mark) => Some(Owed::Pong(mark)),
            Expected::SwallowedOks(_) | Expected::OwnPong(_) => None,
        });
        owed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        dropped: 0,
        log: 0,
        changes: 0,
        connects: 0,
    };

    #[test]
    fn s5_pongs_are_told_apart_by_their_order() {
        let mut ledger = Ledger::default();
        ledger.expect(Expected::OwnPong(MARK));
        ledger.expect(Expected::ComponentPong(MARK));
        assert_eq!(ledger.pong(), Some(Expected::OwnPong(MARK)));
        assert_eq!(ledger.pong(), Some(Expected::ComponentPong(MARK)));
        assert_eq!(ledger.pong(), None);
    }

    #[test]
    fn s6_oks_of_a_replay_are_swallowed_and_the_others_pass() {
        let mut ledger = Ledger::default();
        ledger.expect(Expected::SwallowedOks(2));
        ledger.expect(Expected::Oks(1));
        assert_eq!(
            [ledger.ok(), ledger.ok(), ledger.ok(), ledger.ok()],
            [false, false, true, true]
        );
    }

    #[test]
    fn s6_what_is_owed_survives_in_order() {
        let mut ledger = Ledger::default();
        ledger.expect(Expected::Oks(1));
        ledger.expect(Expected::Oks(1));
        ledger.expect(Expected::OwnPong(MARK));
        ledger.expect(Expected::ComponentPong(MARK));
        ledger.expect(Expected::Oks(1));
        assert_eq!(ledger.take_owed(), [Owed::Oks(2), Owed::Pong(MARK), Owed::Oks(1)]);
        assert!(ledger.is_settled() && !ledger.awaits_pong());
    }

    #[test]
    fn a_pong_settles_what_was_answered_with_an_error() {
        let mut ledger = Ledger::default();
        ledger.expect(Expected::Oks(3));
        ledger.expect(Expected::ComponentPong(MARK));
        assert!(ledger.ok());
        assert_eq!(ledger.pong(), Some(Expected::ComponentPong(MARK)));
        assert!(ledger.is_settled());
    }
}
