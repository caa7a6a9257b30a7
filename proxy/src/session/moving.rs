//! A planned move: the next node learns the component's subscriptions while the present one still delivers.
//!
//! Promise S13: nothing is lost, nothing comes twice, and the order stays.
//!
//! *Between brokers that know MOVE*, the promise holds exactly. [`standin_wire::moves`] has the steps. The present node gets `leave`. Its
//! messages pass until it answers `left`. Until then, the next node is not read after its `ready`. The
//! component's frames are held meanwhile, for at most [`HELD_MAX`]. Then publishes and PINGs pass to the present node again. When `left`
//! comes after that, `leave` is sent once more, and a second `left` is awaited.
//!
//! *Between other nodes*, both deliver for a while; see [`copies`](super::copies). Sessions for which neither is possible only wait for the
//! present node's answers; see [`failover`](super::failover).
//!
//! While the next node learns the subscriptions, frames pass to the present node until the component's next SUB, UNSUB or CONNECT. That one
//! would change what the next node learns, so it and all later frames wait.
//!
//! *Max.* Between brokers that know MOVE, the next node learns what is left of each max, but the present node still delivers. So after the
//! switch, each UNSUB is sent again with what is left then. Meanwhile the next node may deliver more messages than that; these are dropped.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use standin_registry::Node;
use standin_wire::client::Verb;
use standin_wire::{Info, Move, MoveId, encode};

use super::connection::{Connection, ConnectionStage, Hold, LeaveStep, Leaving};
use super::copies::Copies;
use super::{Session, Wires};
use crate::journal::{Members, Sids, Slot};
use crate::ledger::Expected;

/// Number of failed attempts after which the session only waits for the present node's last answers; see [`failover`](super::failover).
/// While a node of the cluster is frozen, the first attempt fails after half a second (`cluster.flush_timeout_ms`), and the next ones at
/// once. After 2 to 3 s the others give that node up, and an attempt succeeds.
const FAILURES_MAX: u8 = 12;
/// Wait before each attempt after the second one.
const ATTEMPTS_APART: Duration = Duration::from_millis(500);

/// Limit on the wait for the last answers of a node that the session is about to leave.
pub(super) const LEAVE_ANSWERS: Duration = Duration::from_secs(5);

/// Limit on the time for which frames are held because a node of the cluster, which may be frozen, has not made the cut.
const HELD_MAX: Duration = Duration::from_secs(1);

/// A move between two brokers that know MOVE.
#[derive(Debug, Serialize, Deserialize)]
struct Cut {
    id: MoveId,
    /// Run of the next node.
    to: String,
}

/// What the next node gets so that it learns the subscriptions.
#[derive(Debug)]
pub(crate) struct ArrivalLines {
    /// CONNECT, `arrive` (with MOVE), the subscriptions (without MOVE: those in no queue group), and a PING.
    pub(crate) first: Vec<u8>,
    /// Without MOVE: the subscriptions in queue groups and a PING, sent [`SETTLING`](super::SETTLING) after the PONG to `first`.
    pub(crate) then: Option<Vec<u8>>,
}

/// The way in which each message reaches the component once.
#[derive(Debug, Serialize, Deserialize)]
enum Way {
    Cut(Cut),
    /// One of the nodes does not know MOVE.
    Copies(Copies),
}

impl Connection {
    /// Tells the node that the session leaves, at the next frame boundary.
    fn tell(&mut self, Cut { id, to }: &Cut) {
        let (mut line, id, to) = (Vec::new(), *id, to.clone());
        Move::Leave { id, to }.encode(&mut line);
        self.own.extend_from_slice(&line);
        if let Some(moves) = &mut self.moves {
            moves.leave = match moves.leave {
                LeaveStep::Overdue => LeaveStep::ToldAgain,
                _ => LeaveStep::Told,
            };
        }
    }
}

/// Progress of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Without MOVE: the messages of the present node are noted, before the next node learns the subscriptions.
    Noting,
    /// The next node learns the subscriptions.
    Learning,
    /// The next node knows all subscriptions. The present node has got `leave` or, without MOVE, its last PING.
    Ready,
    /// The session is on the next node. Copies may still come.
    Over,
}

/// A move of the session to a node that learns its subscriptions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Moving {
    way: Way,
    phase: Phase,
    /// The subscriptions with a max among those that the next node learns.
    limited: Sids,
}

impl Moving {
    /// Returns whether the next node knows all subscriptions, and the session is not on it yet.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Returns the messages that both nodes may deliver.
    pub(super) fn copies(&self) -> Option<&Copies> {
        match &self.way {
            Way::Copies(copies) => Some(copies),
            Way::Cut(_) => None,
        }
    }
}

impl Session {
    /// Returns whether the session can make a planned move to the node that has sent `info`: one in which that node learns the subscriptions
    /// first.
    pub(crate) fn can_move(&self, info: &Info) -> bool {
        let is_flowing = |node: &Connection| {
            let is_flowing = node.stage == ConnectionStage::Flowing && node.hold == Hold::No;
            node.leaving == Leaving::Dialling && is_flowing
        };
        let Some(client) = self.client.as_deref().filter(|client| !client.signed) else {
            return false;
        };
        let has_copies = || client.echo && self.journal.len() > 0;
        self.ending.is_none()
            && self.connection.as_ref().is_some_and(is_flowing)
            && self.failed_moves < FAILURES_MAX
            && (self.has_moves(info) || has_copies())
    }

    /// Returns whether the present node and a node that has sent `info` know MOVE.
    pub(crate) fn has_moves(&self, info: &Info) -> bool {
        info.moves && self.connection.as_ref().is_some_and(|node| node.moves.is_some())
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
        self.failed_moves = 0;
        true
    }

    /// Returns whether the session leaves its node to balance the load.
    pub(crate) fn is_leaving_for_balance(&self) -> bool {
        let moves = self.connection.as_ref().and_then(|node| node.moves.as_ref());
        moves.is_some_and(|moves| moves.is_for_balance)
    }

    /// Stays on the node, because the other one cannot be used. A session that must leave dials again.
    pub(crate) fn stay(&mut self, now: Instant, wires: &mut impl Wires) {
        // Copies of the last move may still come.
        self.moving.take_if(|moving| moving.phase != Phase::Over);
        if let Some(node) = &mut self.connection {
            node.give_up_move();
            self.push_up(now, wires);
        }
    }

    /// Begins to leave the node although no other one is connected. The node gets a last PING, and nothing after it. Returns `false` if the
    /// session has not joined, or leaves already. [`stay`](Self::stay) undoes this.
    pub(crate) fn drain(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        let is_joined = self.client.is_some();
        let Some(node) = self.connection.as_mut().filter(|_| is_joined) else {
            return false;
        };
        if let Leaving::Arriving | Leaving::Draining { .. } = node.leaving {
            return false;
        }
        node.leaving = Leaving::Draining {
            until: now + LEAVE_ANSWERS,
        };
        node.own_ping();
        self.push_up(now, wires);
        true
    }

    /// Returns the wait before the next node is dialled for a planned move.
    pub(crate) fn wait_before_move(&self) -> Duration {
        if (2..FAILURES_MAX).contains(&self.failed_moves) {
            ATTEMPTS_APART
        } else {
            Duration::ZERO
        }
    }

    /// Forgets a move whose next node is lost. The present node ends the session there, or is lost.
    pub(crate) fn forget_move(&mut self) {
        self.moving.take_if(|moving| moving.phase != Phase::Over);
    }

    /// Begins to note the messages of the present node, for a move without MOVE. Returns `false` while copies of the last move may still
    /// come.
    pub(crate) fn begin_notes(&mut self) -> bool {
        if self.moving.is_some() {
            return false;
        }
        self.moving = Some(Box::new(Moving {
            way: Way::Copies(Copies::new()),
            phase: Phase::Noting,
            limited: Vec::new(),
        }));
        true
    }

    /// Begins the move. From here on no SUB, UNSUB or CONNECT passes, except in [`Phase::Noting`].
    pub(crate) fn begin_arrival(&mut self) {
        if let Some(node) = &mut self.connection {
            node.leaving = Leaving::Arriving;
        }
    }

    /// Returns the lines for the next node, which has sent `info`. `None` while the present node has a part of a frame, or
    /// copies of the last move may still come.
    pub(crate) fn arrival_lines(&mut self, next: &Node, info: &Info) -> Option<ArrivalLines> {
        let node = self.connection.as_ref()?;
        let is_at_boundary = node.head_written == 0 && node.replacement.is_none();
        let is_last_over = self
            .moving
            .as_ref()
            .is_none_or(|moving| moving.phase == Phase::Noting);
        if node.leaving != Leaving::Arriving || !is_at_boundary || !is_last_over {
            return None;
        }
        let client = self.client.as_ref()?;
        let mut first = self.connect_line_for(client.json.as_bytes(), Some(next), &info.nonce);
        let (mut then, limited) = (None, self.journal.limited());
        let noting = self.moving.take_if(|moving| moving.phase == Phase::Noting);
        let way = if let Some(noting) = noting {
            let mut lines = Vec::new();
            self.journal.copy(Members::No, &mut first);
            self.journal.copy(Members::Only, &mut lines);
            lines.extend_from_slice(encode::PING);
            then = Some(lines);
            noting.way
        } else {
            let moves = node.moves.as_ref()?;
            let (id, from) = (MoveId(rand::random()), moves.run.to_string());
            Move::Arrive { id, from }.encode(&mut first);
            self.journal.learn(&mut first);
            let to = info.server_id.clone();
            Way::Cut(Cut { id, to })
        };
        first.extend_from_slice(encode::PING);
        let phase = Phase::Learning;
        self.moving = Some(Box::new(Moving { way, phase, limited }));
        Some(ArrivalLines { first, then })
    }

    /// Records that the next node knows all subscriptions. With MOVE, the present node is told that the session leaves. Without MOVE, it gets the
    /// UNSUBs of members of queue groups and a last PING. The component's frames are held from here on.
    pub(crate) fn arrived(&mut self, now: Instant, wires: &mut impl Wires) {
        let is_verbose = self.verbose();
        let Some(node) = &mut self.connection else { return };
        let Some(moving) = self.moving.as_mut().filter(|_| node.leaving == Leaving::Arriving) else {
            return;
        };
        // In verbose mode, the `+OK`s of UNSUBs come before the PONGs of all PINGs that wait for the socket.
        let is_in_order = !is_verbose || node.own_pings == 0 && node.own_commands == 0;
        if moving.copies().is_some() && !is_in_order {
            return self.arrival_failed(now, wires);
        }
        moving.phase = Phase::Ready;
        if let Way::Cut(cut) = &moving.way {
            node.tell(cut);
            node.leaving = Leaving::Draining {
                until: now + HELD_MAX,
            };
        } else {
            let mut lines = Vec::new();
            node.own_commands = self.journal.withdraw_shared(&mut lines);
            node.own.extend_from_slice(&lines);
            node.own_ping();
            node.leaving = Leaving::Draining {
                until: now + LEAVE_ANSWERS,
            };
        }
        self.push_up(now, wires);
    }

    /// Lets publishes and PINGs pass to the present node again, which was told that the session leaves, and has not answered. Returns whether
    /// it does.
    pub(super) fn wait_no_longer(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        let Some(node) = &mut self.connection else {
            return false;
        };
        let Some(moves) = node.moves.as_mut().filter(|moves| moves.leave == LeaveStep::Told) else {
            return false;
        };
        moves.leave = LeaveStep::Overdue;
        node.leaving = Leaving::Draining {
            until: now + LEAVE_ANSWERS,
        };
        self.push_up(now, wires);
        true
    }

    /// Records that the next node has not learned the subscriptions. A session that must leave dials another node. One that moves for
    /// balance stays.
    pub(crate) fn arrival_failed(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection
            && node.leaving == Leaving::Arriving
        {
            self.failed_moves = self.failed_moves.saturating_add(1);
            self.stay(now, wires);
        }
    }

    /// Returns whether the connection to the next node is still needed: a move is in progress, or the present node was lost after the next one
    /// had learned all subscriptions.
    pub(crate) fn expects_next(&self) -> bool {
        let moves = |node: &Connection| node.leaving != Leaving::Dialling && node.leaving != Leaving::No;
        match &self.connection {
            Some(node) => moves(node),
            None => self.moving.as_ref().is_some_and(|moving| moving.is_ready()),
        }
    }

    /// Returns whether a frame with this verb, of which the present node has no part, must wait until the next node has the session.
    pub(super) fn waits_for_move(&self, verb: Verb) -> bool {
        let arrives =
            |node: &Connection| node.leaving == Leaving::Arriving || node.leave_step() == LeaveStep::Overdue;
        let is_noting = |moving: &Moving| moving.phase == Phase::Noting;
        matches!(verb, Verb::Sub | Verb::Unsub | Verb::Connect)
            && self.connection.as_ref().is_some_and(arrives)
            && !self.moving.as_deref().is_some_and(is_noting)
    }

    /// Handles a step from the present node.
    pub(super) fn take_step(&mut self, json: &[u8], now: Instant) {
        let Ok(step) = Move::parse(json) else { return };
        let Some(node) = &mut self.connection else { return };
        let Some(moves) = &mut node.moves else { return };
        match step {
            Move::Left if moves.leave == LeaveStep::Overdue => {
                let Some(Way::Cut(cut)) = self.moving.as_mut().map(|moving| &mut moving.way) else {
                    return;
                };
                cut.id = MoveId(rand::random());
                node.tell(cut);
                node.leaving = Leaving::Draining {
                    until: now + LEAVE_ANSWERS,
                };
            }
            Move::Refused { .. } if moves.leave == LeaveStep::ToldAgain => moves.leave = LeaveStep::Left,
            Move::Left if moves.leave != LeaveStep::No => {
                moves.leave = LeaveStep::Left;
                // The node has processed everything before `leave`.
                let mark = self.mark();
                self.doubt.confirm(mark);
                self.journal.confirm(mark.changes);
            }
            Move::Refused { why } if matches!(moves.leave, LeaveStep::Told | LeaveStep::Overdue) => {
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
    pub(super) fn go_on(&mut self, mut moving: Box<Moving>, info: &Info, now: Instant) {
        let (ended, limited) = self.apply_held_unsubs();
        moving.limited.extend(limited);
        let mut connection = Connection::new(info, ConnectionStage::Resending, Hold::No, now);
        let mut lines = Vec::new();
        let commands = if let Way::Copies(copies) = &mut moving.way {
            copies.drop_from(now);
            moving.phase = Phase::Over;
            let commands = self.journal.moved_by_copies(&moving.limited, &mut lines);
            self.moving = Some(moving);
            commands + self.journal.end_here(&ended, &mut lines)
        } else {
            if let Some(moves) = &mut connection.moves {
                moves.is_unsettled = true;
            }
            // The UNSUBs come before `go`, at which the node counts its members of queue groups. Messages for a member that the component has
            // ended would be lost.
            let commands = self.journal.moved(&moving.limited, &mut lines);
            let commands = commands + self.journal.end_here(&ended, &mut lines);
            Move::Go.encode(&mut lines);
            commands
        };
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

    /// Returns the messages that both nodes may deliver during the present move.
    fn copies(&mut self) -> Option<&mut Copies> {
        match &mut self.moving.as_mut()?.way {
            Way::Copies(copies) => Some(copies),
            Way::Cut(_) => None,
        }
    }

    /// Returns whether the component has got this message of the node already. Notes it, if the next node may deliver it too.
    #[cold]
    pub(super) fn is_copy(&mut self, frame: &[u8], slot: Slot) -> bool {
        let is_shared = self.journal.is_shared(slot);
        let copies = self.copies().filter(|_| !is_shared);
        copies.is_some_and(|copies| copies.is_copy(frame))
    }

    /// Sends UNSUBs for subscriptions that have reached a max which the node does not know, and gives up a move with too many copies.
    pub(super) fn after_messages(&mut self, now: Instant, wires: &mut impl Wires) {
        // If a PING waits, the UNSUBs follow its answer.
        if let Some(node) = self.connection.as_mut().filter(|node| node.own.is_empty()) {
            let mut lines = Vec::new();
            node.own_commands = self.journal.end_overdue(&mut lines);
            node.own.extend_from_slice(&lines);
        }
        let arrives = |node: &Connection| node.leaving == Leaving::Arriving;
        if self.copies().is_some_and(|copies| copies.is_full())
            && self.connection.as_ref().is_some_and(arrives)
        {
            self.failed_moves = FAILURES_MAX;
            self.stay(now, wires);
        }
    }

    /// Forgets the notes of the last move once the node has answered a PING that was sent when it received no more copies. Sends that PING if
    /// none was sent.
    pub(super) fn forget_copies(&mut self, now: Instant) {
        let until = self.copies().and_then(|copies| copies.until());
        let Some(until) = until.filter(|until| now >= *until) else {
            return;
        };
        if let Some(copies) = self.copies() {
            copies.is_over = true;
        }
        if let Some(node) = &mut self.connection {
            if node.awaits_pong() {
                return;
            }
            if node.pinged >= until {
                self.moving = None;
            } else {
                node.own_ping();
            }
        }
    }
}
