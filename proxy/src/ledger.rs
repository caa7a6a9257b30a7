//! The ledger: the answers that the present node owes, in order. With it the session knows for each PONG and `+OK`
//! whether the component or the sidecar asked for it, and what a PONG acks.
//!
//! Promise S5: the component gets one PONG for each of its PINGs, in order. When a PONG arrives, a node has processed
//! everything that the component sent before the PING.
//!
//! Promise S6: in verbose mode the component gets one `+OK` for each command, none missing and none extra, also over moves.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use standin_wire::encode;

use crate::doubt::Mark;
use crate::error_text::ErrorText;
use crate::state_fields::is_default;

/// An expected answer of the node, or an answer that the sidecar sends at this place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Expected {
    /// This number of `+OK`s for the component.
    Oks(u32),
    /// This number of `+OK`s for replayed commands. They are dropped, because the component gets others for the same
    /// commands.
    DroppedOks(u32),
    /// This number of `+OK`s that no node will send any more. The sidecar sends them.
    OwnOks(u32),
    /// An `-ERR` that the sidecar sends.
    OwnError(ErrorText<'static>),
    /// A PONG for the component.
    ComponentPong(Mark),
    /// A PONG for the sidecar.
    OwnPong(Mark),
}

/// The answers that one node owes.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    #[serde(default, skip_serializing_if = "is_default")]
    expected: VecDeque<Expected>,
    /// Number of PONGs in `expected`.
    #[serde(default, skip_serializing_if = "is_default")]
    pings: u32,
    /// Number of `-ERR`s in `expected`.
    #[serde(default, skip_serializing_if = "is_default")]
    own_errors: u32,
}

impl Ledger {
    /// Returns the number of entries. `+OK`s of one kind in a row are one entry.
    pub(crate) fn len(&self) -> usize {
        self.expected.len()
    }

    /// Returns whether a PING is unanswered.
    pub(crate) fn awaits_pong(&self) -> bool {
        self.pings > 0
    }

    /// Returns whether nothing is owed.
    pub(crate) fn is_settled(&self) -> bool {
        self.expected.is_empty()
    }

    /// Returns the number of `-ERR`s that the sidecar has yet to send.
    pub(crate) fn own_errors(&self) -> u32 {
        self.own_errors
    }

    /// Adds an expected answer.
    pub(crate) fn expect(&mut self, next: Expected) {
        match (self.expected.back_mut(), &next) {
            (_, Expected::Oks(0) | Expected::DroppedOks(0) | Expected::OwnOks(0)) => return,
            (Some(Expected::Oks(have)), Expected::Oks(more))
            | (Some(Expected::DroppedOks(have)), Expected::DroppedOks(more))
            | (Some(Expected::OwnOks(have)), Expected::OwnOks(more)) => {
                *have += *more;
                return;
            }
            (_, Expected::ComponentPong(_) | Expected::OwnPong(_)) => self.pings += 1,
            (_, Expected::OwnError(_)) => self.own_errors += 1,
            _ => {}
        }
        self.expected.push_back(next);
    }

    /// Records a `+OK` of the node. Returns whether the component gets it.
    pub(crate) fn ok(&mut self) -> bool {
        let (left, passes) = match self.expected.front_mut() {
            Some(Expected::Oks(left)) => (left, true),
            Some(Expected::DroppedOks(left)) => (left, false),
            _ => return true,
        };
        *left -= 1;
        if *left == 0 {
            self.expected.pop_front();
        }
        passes
    }

    /// Records a PONG of the node. Returns its entry, or `None` if no PING is unanswered. `+OK`s expected before it are
    /// removed: the node answered those commands with `-ERR`.
    pub(crate) fn pong(&mut self) -> Option<Expected> {
        let is_pong = |answer: &Expected| matches!(answer, Expected::ComponentPong(_) | Expected::OwnPong(_));
        let at = self.expected.iter().position(is_pong)?;
        self.pings -= 1;
        // The sidecar's own answers stay.
        let is_own = |answer: &Expected| matches!(answer, Expected::OwnOks(_) | Expected::OwnError(_));
        let own: Vec<Expected> = self.expected.drain(..at).filter(is_own).collect();
        let pong = self.expected.pop_front();
        own.into_iter()
            .rev()
            .for_each(|answer| self.expected.push_front(answer));
        pong
    }

    /// Returns whether the component still waits for an answer.
    pub(crate) fn owes_component(&self) -> bool {
        let own = |expected: &Expected| matches!(expected, Expected::DroppedOks(_) | Expected::OwnPong(_));
        !self.expected.iter().all(own)
    }

    /// Removes the sidecar's own answers at the head of the ledger, and returns them encoded.
    pub(crate) fn own_answers(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        loop {
            match self.expected.front() {
                Some(Expected::OwnOks(due)) => answers.extend(encode::OK.repeat(*due as usize)),
                Some(Expected::OwnError(text)) => {
                    text.encode(&mut answers);
                    self.own_errors -= 1;
                }
                _ => return answers,
            }
            self.expected.pop_front();
        }
    }

    /// Returns the answers that the component has not got from the lost node, in order. The next node sends the PONGs, and
    /// the sidecar the other answers.
    pub(crate) fn into_owed(self) -> impl Iterator<Item = Expected> {
        self.expected.into_iter().filter_map(|expected| match expected {
            Expected::Oks(count) => Some(Expected::OwnOks(count)),
            Expected::DroppedOks(_) | Expected::OwnPong(_) => None,
            owed => Some(owed),
        })
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

    fn ledger(expected: &[Expected]) -> Ledger {
        let mut ledger = Ledger::default();
        expected.iter().for_each(|answer| ledger.expect(answer.clone()));
        ledger
    }

    #[test]
    fn s5_each_pong_is_assigned_to_its_ping_by_order() {
        let mut ledger = ledger(&[Expected::OwnPong(MARK), Expected::ComponentPong(MARK)]);
        assert_eq!(ledger.pong(), Some(Expected::OwnPong(MARK)));
        assert_eq!(ledger.pong(), Some(Expected::ComponentPong(MARK)));
        assert_eq!(ledger.pong(), None);
    }

    #[test]
    fn s6_oks_of_a_replay_are_dropped_and_the_others_pass() {
        let mut ledger = ledger(&[Expected::DroppedOks(2), Expected::Oks(1)]);
        assert_eq!(
            [ledger.ok(), ledger.ok(), ledger.ok(), ledger.ok()],
            [false, false, true, true]
        );
    }

    #[test]
    fn s6_owed_answers_survive_a_loss_in_order() {
        let (ok, own) = (Expected::Oks(1), Expected::OwnPong(MARK));
        let ledger = ledger(&[ok.clone(), ok.clone(), own, Expected::ComponentPong(MARK), ok]);
        let owed = [
            Expected::OwnOks(2),
            Expected::ComponentPong(MARK),
            Expected::OwnOks(1),
        ];
        assert!(ledger.into_owed().eq(owed));
    }

    #[test]
    fn a_pong_removes_the_oks_of_commands_answered_with_an_error() {
        let mut ledger = ledger(&[Expected::Oks(3), Expected::ComponentPong(MARK)]);
        assert!(ledger.ok());
        assert_eq!(ledger.pong(), Some(Expected::ComponentPong(MARK)));
        assert!(ledger.is_settled());
    }
}
