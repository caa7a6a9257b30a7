//! A planned move between two brokers that know MOVE.
//!
//! Promise S13: nothing is lost, nothing comes twice, and the order stays. [`standin_wire::moves`] has the steps. Other moves wait for the old node's answers only: see [`failover`](super::failover).
//!
//! While the next node learns the subscriptions, all frames pass to the present node, except SUB, UNSUB and CONNECT, which would
//! change what the next node learns. Then the present node gets `leave`, and nothing after it. Its messages pass until it answers
//! `left`. Only then the next node is read.
//!
//! *Max.* The next node learns what is left of each max, but the present node still delivers. So after the switch, each UNSUB
//! is sent again with what is left then. Meanwhile the next node may deliver more messages than that; these are dropped.

use std::time::{Duration, Instant};

use standin_registry::Node;
use standin_wire::client::Verb;
use standin_wire::{Info, Move, MoveId, encode};

use super::connection::{Connection, ConnectionStage, Hold, Leaving};
use super::{Session, Wires};
use crate::ledger::Expected;

/// Number of failed attempts after which the session leaves its node without MOVE.
const FAILURES_MAX: u8 = 3;

/// A move of the session to a node that learns its subscriptions.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) id: MoveId,
    /// Run of the next node.
    to: String,
    /// The subscriptions with a max that the next node has learned.
    limited: Vec<Box<[u8]>>,
    /// The next node knows all subscriptions, and the present node was told that the session leaves.
    pub(super) is_ready: bool,
}

impl Session {
    /// Returns whether the session can move to a node that has sent `info` with the steps of MOVE.
    pub(crate) fn can_move(&self, info: &Info) -> bool {
        let has_moves = |node: &Connection| {
            let is_flowing = node.stage == ConnectionStage::Flowing && node.hold == Hold::No;
            node.moves.is_some() && node.leaving == Leaving::Dialling && is_flowing
        };
        let is_signed = |client: &super::Client| client.signed;
        let client = self.client.as_deref();
        client.is_some_and(|client| !is_signed(client))
            && self.ending.is_none()
            && self.connection.as_ref().is_some_and(has_moves)
            && info.moves
            && self.failed_moves < FAILURES_MAX
    }

    /// Starts to leave the node to balance the load, if the session can move with MOVE now. Returns whether it does.
    pub(crate) fn leave_for_balance(&mut self) -> bool {
        let is_signed = self.client.as_ref().is_none_or(|client| client.signed);
        let Some(node) = self.connection.as_mut().filter(|_| !is_signed) else {
            return false;
        };
        let is_quiet =
            node.leaving == Leaving::No && node.stage == ConnectionStage::Flowing && node.hold == Hold::No;
        let Some(moves) = node
            .moves
            .as_mut()
            .filter(|moves| !moves.is_unsettled && is_quiet)
        else {
            return false;
        };
        moves.is_for_balance = true;
        node.leaving = Leaving::Dialling;
        true
    }

    /// Returns whether the session leaves its node to balance the load.
    pub(crate) fn is_leaving_for_balance(&self) -> bool {
        let moves = self.connection.as_ref().and_then(|node| node.moves.as_ref());
        moves.is_some_and(|moves| moves.is_for_balance)
    }

    /// Stays on the node, because the other one cannot be used. A session that must leave dials again.
    pub(crate) fn stay(&mut self, now: Instant, wires: &mut impl Wires) {
        self.moving = None;
        if let Some(node) = &mut self.connection {
            node.give_up_move();
            self.push_up(now, wires);
        }
    }

    /// Begins the move. From here on no SUB, UNSUB or CONNECT passes.
    pub(crate) fn begin_arrival(&mut self) {
        if let Some(node) = &mut self.connection {
            node.leaving = Leaving::Arriving;
        }
    }

    /// Returns the lines for the next node, which has sent `info`: CONNECT, the subscriptions, and a PING. `None` while a frame is
    /// written in part.
    pub(crate) fn arrival_lines(&mut self, next: &Node, info: &Info) -> Option<Vec<u8>> {
        let node = self.connection.as_ref()?;
        if node.leaving != Leaving::Arriving || node.head_written > 0 || node.replacement.is_some() {
            return None;
        }
        let (client, from) = (self.client.as_ref()?, node.moves.as_ref()?.run.to_string());
        let mut lines = self.connect_line_for(client.json.as_bytes(), Some(next), &info.nonce);
        let id = MoveId(rand::random());
        Move::Arrive { id, from }.encode(&mut lines);
        let limited = self.journal.learn(&mut lines);
        lines.extend_from_slice(encode::PING);
        self.moving = Some(Box::new(Moving {
            id,
            to: info.server_id.clone(),
            limited,
            is_ready: false,
        }));
        Some(lines)
    }

    /// Records that the next node knows all subscriptions. The present node is told that the session leaves, and gets nothing more.
    pub(crate) fn arrived(&mut self, timeout: Duration, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection
            && node.leaving == Leaving::Arriving
            && let Some(moving) = &mut self.moving
        {
            moving.is_ready = true;
            let leave = Move::Leave {
                id: moving.id,
                to: moving.to.clone(),
            };
            let mut line = Vec::new();
            leave.encode(&mut line);
            node.own.extend_from_slice(&line);
            node.leaving = Leaving::Draining { until: now + timeout };
            if let Some(moves) = &mut node.moves {
                moves.is_told = true;
            }
            self.push_up(now, wires);
        }
    }

    /// Records that the next node has not learned the subscriptions. Another one is dialled.
    pub(crate) fn arrival_failed(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection
            && node.leaving == Leaving::Arriving
        {
            self.failed_moves = self.failed_moves.saturating_add(1);
            self.stay(now, wires);
        }
    }

    /// Returns whether the next node is still needed: for the present move, or because the present node is lost after `leave`.
    pub(crate) fn expects_next(&self) -> bool {
        let moves = |node: &Connection| node.leaving != Leaving::Dialling && node.leaving != Leaving::No;
        match &self.connection {
            Some(node) => moves(node),
            None => self.moving.as_ref().is_some_and(|moving| moving.is_ready),
        }
    }

    /// Returns whether a frame with this verb, of which the present node has no part, must wait until the next node has the session.
    pub(super) fn waits_for_move(&self, verb: Verb) -> bool {
        let arrives = |node: &Connection| node.leaving == Leaving::Arriving;
        matches!(verb, Verb::Sub | Verb::Unsub | Verb::Connect)
            && self.connection.as_ref().is_some_and(arrives)
    }

    /// Handles a step from the present node.
    pub(super) fn take_step(&mut self, json: &[u8]) {
        let Ok(step) = Move::parse(json) else { return };
        let Some(node) = &mut self.connection else { return };
        let Some(moves) = &mut node.moves else { return };
        match step {
            Move::Left if moves.is_told => {
                moves.has_left = true;
                // The node has processed everything before `leave`.
                let mark = self.mark();
                self.doubt.confirm(mark);
                self.journal.confirm(mark.changes);
            }
            Move::Refused { why } if moves.is_told => {
                node.give_up_move();
                self.moving = None;
                self.failed_moves = self.failed_moves.saturating_add(1);
                self.report_node_error(why, "move");
            }
            Move::Settled if node.settled() => self.leave(),
            _ => {}
        }
    }

    /// Continues on the next node, which knows all subscriptions.
    pub(super) fn go_on(&mut self, mut moving: Moving, info: &Info, now: Instant) {
        moving.limited.extend(self.apply_held_unsubs());
        let mut connection = Connection::new(info, ConnectionStage::Resending, Hold::No, now);
        if let Some(moves) = &mut connection.moves {
            moves.is_unsettled = true;
        }
        let mut lines = Vec::new();
        Move::Go.encode(&mut lines);
        let commands = self.journal.moved(&moving.limited, &mut lines);
        connection.own.extend_from_slice(&lines);
        if self.verbose() {
            connection.ledger.expect(Expected::DroppedOks(commands));
        }
        connection.own_ping();
        self.connects += 1;
        connection.confirmed_changes = self.journal.changes();
        self.connection = Some(connection);
        self.failed_moves = 0;
        self.joined(now);
    }
}
