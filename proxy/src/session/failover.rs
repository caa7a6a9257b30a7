//! Changes of the node: how a session joins, loses and leaves a node, replays its subscriptions, sends again what was
//! left unanswered, and only then lets the component's bytes pass.
//!
//! Promise S12: the order of publishes and of a subscription's messages is kept over a move. The replay
//! is sent first, then the publishes in doubt, then the held bytes.
//!
//! A planned move is in [`moving`](super::moving), if the next node can learn the subscriptions before. Otherwise it waits for the old
//! node's answers, up to a timeout. If all have come, no publish is in doubt.

use std::collections::HashSet;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use standin_registry::{Endpoint, Node};
use standin_wire::client::{self, Frame, Verb};
use standin_wire::limits::{FrameLimits, PAYLOAD_BYTES_MAX};
use standin_wire::{Info, encode};

use super::connection::{Connection, ConnectionStage, Hold, Leaving};
use super::info::AdvertisedInfo;
use super::{EndReason, LEAVE_ANSWERS, SETTLING, Session, SessionEvent, Wires};
use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::error_text::ErrorText;
use crate::journal::Sids;
use crate::ledger::Expected;
use crate::state_fields::time;
use crate::tally::unlimited_scanner;

/// If a component has not sent CONNECT and the node closes its connection after this time, the missing CONNECT is the
/// cause.
const MAY_CLOSE_AFTER: Duration = Duration::from_millis(500);
/// Credentials that no node has accepted count as refused when this many nodes in a row have closed the connection after
/// receiving them.
const CLOSED_UNACCEPTED_MAX: u32 = 3;
/// Time for which a node is not tried again after it refused credentials that another node has accepted.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);
/// Timeout for a node that learns the subscriptions of a planned move, without the time for each subscription.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for each replayed subscription, added to the handshake timeout. `nats-server` takes 5 µs.
const PER_SUBSCRIPTION: Duration = Duration::from_micros(20);

/// Origin of the loss of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossOrigin {
    /// A failure of the node. The node is then avoided for its cool-down.
    Node,
    /// Something other than a failure of the node.
    Other,
    /// The node closed the connection after credentials that no node has accepted yet. Its behaviour towards other
    /// sessions shows whether it refused the credentials or died.
    Unclear,
}

/// A move from one node to another, planned or after a failure. It is finished when the new node has taken the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failover {
    pub(crate) from: Arc<Node>,
    pub(crate) cause: Cause,
    /// Time at which the loss was noticed.
    #[serde(with = "time")]
    pub(crate) noticed: Instant,
    /// Time from the last byte of the lost node to the new node's PONG.
    pub(crate) silent: Duration,
    /// Time from the noticed loss to the new node's PONG.
    pub(crate) took: Duration,
    pub(crate) in_doubt: InDoubtCount,
    /// Number of replayed subscriptions.
    pub(crate) subscriptions: usize,
}

/// A node that refused credentials accepted by another node.
#[derive(Serialize, Deserialize)]
pub(super) struct NodeRefusal {
    pub(super) node: Endpoint,
    #[serde(with = "time")]
    pub(super) at: Instant,
    /// Text of its `-ERR`.
    pub(super) text: String,
}

impl Session {
    /// Starts the session on `node`, which has sent `info` over a new connection. With `hold`, publishes are held
    /// until [`release`](Self::release).
    pub(crate) fn node_up(
        &mut self,
        node: Arc<Node>,
        info: &Info,
        hold: bool,
        now: Instant,
        wires: &mut impl Wires,
    ) {
        debug_assert!(self.connection.is_none(), "the session must have no node");
        if let Some(moving) = self.moving.take().filter(|moving| moving.is_ready()) {
            self.node = Some(node);
            self.only_awaits_answers = false;
            self.go_on(moving, info, now);
            self.apply_info(info);
            self.send_info(info, now, wires);
            self.push_up(now, wires);
            return;
        }
        self.failed_moves = 0;
        let until = now + self.join_timeout();
        let joining = self.client.as_ref().map(|_| ConnectionStage::Joining { until });
        let stage = joining.unwrap_or(ConnectionStage::Flowing);
        let hold = if hold { Hold::Away } else { Hold::No };
        let mut connection = Connection::new(info, stage, hold, now);
        connection.shortens_login = self.is_handshaking;
        self.connection = Some(connection);
        self.only_awaits_answers = false;
        self.node = Some(node);
        self.apply_info(info);
        self.send_info(info, now, wires);
        self.replay();
        self.push_up(now, wires);
    }

    /// Records the loss of the connection to the node: end of stream, reset, or a failed write.
    pub(crate) fn node_lost(&mut self, cause: Cause, now: Instant, wires: &mut impl Wires) {
        let Some(node) = &self.connection else { return };
        let mut end = node.refused;
        if end.is_none() && self.loss_origin(node, cause, now) == LossOrigin::Unclear {
            self.closed_unaccepted += 1;
            // The component sees a plain close, as from a server that refuses it.
            end = (self.closed_unaccepted >= CLOSED_UNACCEPTED_MAX).then_some(EndReason::Unauthorized);
        }
        self.lose(cause, now);
        match end {
            Some(end) => self.end_now(end),
            None => self.after_loss(now, wires),
        }
    }

    /// Returns the timeout for a node that learns the subscriptions of a planned move. Meanwhile no SUB passes to the present node.
    pub(crate) fn arrival_timeout(&self) -> Duration {
        let subscriptions = u32::try_from(self.journal.len()).unwrap_or(u32::MAX);
        let copies = self.moving.as_ref().and_then(|moving| moving.copies());
        let settling = copies.map_or(Duration::ZERO, |_| SETTLING);
        ARRIVAL_TIMEOUT + settling + PER_SUBSCRIPTION.saturating_mul(subscriptions)
    }

    /// Returns the timeout for the answer to the replay, which grows with the number of subscriptions.
    pub(super) fn join_timeout(&self) -> Duration {
        let subscriptions = u32::try_from(self.journal.len()).unwrap_or(u32::MAX);
        self.policy.handshake_timeout + PER_SUBSCRIPTION.saturating_mul(subscriptions)
    }

    /// Records that none of the `known` nodes was reachable. `all_tried` says whether each of them has failed since the
    /// session lost its node; the loss itself does not count. If nodes are known, a component without INFO, or with an
    /// outdated one, is sent `last_known`. With an `outage` limit of 0 the session ends when all have failed, or when
    /// none is known after `info_wait`.
    pub(crate) fn no_node(
        &mut self,
        known: usize,
        all_tried: bool,
        last_known: &Info,
        now: Instant,
        wires: &mut impl Wires,
    ) {
        if self.connection.is_some() || self.ending.is_some() {
            return;
        }
        let waited = now >= self.searching_since + self.policy.info_wait;
        self.refused_by.retain(|refusal| now < refusal.at + REFUSAL_LASTS);
        if self.policy.outage.is_zero() && (known > 0 && all_tried || known == 0 && waited) {
            self.end_now(EndReason::Outage);
        } else if known > 0 {
            self.send_info(last_known, now, wires);
        }
    }

    /// Ends the session because every known node has refused credentials that one of them had accepted before. The component
    /// gets the `-ERR` of the last node that refused. No event reports this `-ERR`, because the end of the session is counted.
    pub(crate) fn refused_everywhere(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.connection.is_none()
            && self.ending.is_none()
            && let Some(NodeRefusal { text, .. }) = self.refused_by.pop()
        {
            let mut line = Vec::new();
            ErrorText::OfNode(text.into()).encode(&mut line);
            self.end_now(EndReason::Unauthorized);
            self.deliver(&[&line], now, wires);
        }
    }

    /// Lets held publishes pass from now on.
    pub(crate) fn release(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection {
            node.hold = Hold::No;
            self.push_up(now, wires);
        }
    }

    /// Called when everything before the first held publish, or everything that has arrived, was sent. While publishes
    /// are held: if the node has answered all of it, reports that the session is back; if not, queues a PING unless one
    /// is queued or unanswered. Returns whether a PING was queued.
    pub(super) fn check_back(&mut self) -> bool {
        if let Some(node) = &mut self.connection
            && node.hold == Hold::Away
            && node.verified
        {
            if node.confirmed_changes != self.journal.changes() {
                return node.ping_unless_awaited();
            }
            node.hold = Hold::Back;
            self.events.push(SessionEvent::Back);
        }
        false
    }

    /// Returns the origin of the loss if the node is lost now for `cause`.
    fn loss_origin(&self, node: &Connection, cause: Cause, now: Instant) -> LossOrigin {
        let unaccepted = self.client.as_ref().is_some_and(|client| !client.accepted);
        match cause {
            _ if node.refused.is_some() || self.ending.is_some() => LossOrigin::Other,
            Cause::LameDuck | Cause::Balance | Cause::NodeError("authorization") => LossOrigin::Other,
            // Servers close a client that sends nothing for too long.
            Cause::EndOfStream if self.client.is_none() && node.has_lasted(MAY_CLOSE_AFTER, now) => {
                LossOrigin::Other
            }
            Cause::Reset | Cause::EndOfStream | Cause::WriteError if unaccepted && node.auth_required => {
                LossOrigin::Unclear
            }
            _ => LossOrigin::Node,
        }
    }

    /// Starts to leave the node because it will shut down or should no longer be used. Another node is dialled while
    /// this one still serves.
    pub(crate) fn leave(&mut self) {
        if let Some(node) = &mut self.connection
            && let Some(moves) = node.moves.as_mut().filter(|moves| moves.is_for_balance)
        {
            // The move to another node has begun already. From now on, the session must leave.
            moves.is_for_balance = false;
            self.events.push(SessionEvent::Leaving);
        } else if let Some(node) = &mut self.connection
            && node.leaving == Leaving::No
        {
            if let Some(moves) = node.moves.as_mut().filter(|moves| moves.is_unsettled) {
                moves.is_wanted_away = true;
                return;
            }
            node.leaving = Leaving::Dialling;
            self.failed_moves = 0;
            self.events.push(SessionEvent::Leaving);
        }
    }

    /// Records that a connection to another node is ready. The present node gets only a last PING; the session waits for
    /// its answers.
    pub(crate) fn next_ready(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection
            && node.leaving == Leaving::Dialling
        {
            node.leaving = Leaving::Draining {
                until: now + LEAVE_ANSWERS,
            };
            if self.client.is_some() {
                node.own_ping();
                self.push_up(now, wires);
            }
        }
    }

    /// Leaves the node for the one that is ready.
    pub(crate) fn switch(&mut self, now: Instant) {
        let moves = self.connection.as_ref().and_then(|node| node.moves.as_ref());
        let is_for_balance = moves.is_some_and(|moves| moves.is_for_balance);
        let cause = if is_for_balance {
            Cause::Balance
        } else {
            Cause::LameDuck
        };
        self.lose(cause, now);
    }

    /// Drops the connection to the node. What the node still owed is kept for the next node.
    pub(super) fn lose(&mut self, cause: Cause, now: Instant) {
        let Some(lost) = self.connection.take() else {
            return;
        };
        // A move whose next node does not know all subscriptions is given up.
        self.moving = self.moving.take().filter(|moving| moving.is_ready());
        let origin = self.loss_origin(&lost, cause, now);
        let last_error = match self.events.last() {
            Some(SessionEvent::NodeError { text, .. }) => Some(text.clone()),
            _ => None,
        };
        let (in_doubt, subjects) = self.doubt.node_lost();
        let served = lost.has_served(now);
        if served || self.client.is_none() {
            self.searching_since = now;
        }
        self.remember_loss(&lost, cause, in_doubt, now);
        self.events.push(SessionEvent::Lost {
            cause,
            last_error,
            origin,
            in_doubt,
            subjects,
            served,
        });
        let later = std::mem::take(&mut self.owed);
        self.owed = lost.ledger.into_owed().chain(later).collect();
        self.check_for_publishes();
    }

    /// Keeps the loss for the report of the finished move. Several losses before a node takes the session are one move.
    fn remember_loss(&mut self, node: &Connection, cause: Cause, in_doubt: InDoubtCount, now: Instant) {
        match (&mut self.failover, &self.node) {
            (Some(failover), _) => failover.in_doubt += in_doubt,
            (None, Some(from)) if node.verified => {
                let failover = Failover {
                    from: Arc::clone(from),
                    cause,
                    noticed: now,
                    silent: now.saturating_duration_since(node.heard),
                    took: Duration::ZERO,
                    in_doubt,
                    subscriptions: 0,
                };
                self.failover = Some(Box::new(failover));
            }
            _ => {}
        }
    }

    /// Continues an orderly end after a loss. Ends a session that cannot continue on another node.
    pub(super) fn after_loss(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.ending.is_some() {
            self.tick_ending(now, wires);
        } else if self.client.as_ref().is_some_and(|client| client.signed) {
            self.end_now(EndReason::Signed);
        }
    }

    /// Applies the node's payload limit to the component's frames, reports other nodes, and leaves a node that will shut
    /// down.
    pub(super) fn apply_info(&mut self, info: &Info) {
        let limits = FrameLimits {
            line_bytes_max: self.policy.control_line_bytes_max,
            // Negative: the node has no limit. The sidecar has a limit, because it holds a message until it is
            // complete.
            payload_bytes_max: usize::try_from(info.max_payload)
                .map_or(PAYLOAD_BYTES_MAX, |max| max.min(PAYLOAD_BYTES_MAX)),
        };
        if self.component.scanner.limits() != limits {
            self.component.scanner.set_limits(limits);
        }
        let urls = &info.connect_urls;
        if !urls.is_empty() {
            self.events.push(SessionEvent::ConnectUrls(urls.clone()));
        }
        if info.ldm {
            self.leave();
        }
    }

    /// Sends the component its first INFO, or a later one if a field that the component uses has changed.
    pub(super) fn send_info(&mut self, info: &Info, now: Instant, wires: &mut impl Wires) {
        let line = if self.advertised.is_none() {
            self.advertised = Some(AdvertisedInfo::of(info));
            self.own_info(info).into_bytes()
        } else {
            self.info_for_component(info)
        };
        self.deliver(&[&line], now, wires);
    }

    /// Applies the UNSUBs among the held frames to the journal, before a node gets the journal. Otherwise, the node would deliver messages
    /// beyond a max until the UNSUB comes. An UNSUB after a SUB with its sid is left out. When the UNSUBs are sent, they change
    /// nothing more. Returns the sids of the UNSUBs without a max, and of the others.
    pub(super) fn apply_held_unsubs(&mut self) -> (Sids, Sids) {
        let (mut ended, mut limited) = (Vec::new(), Vec::new());
        if self.journal.len() == 0 {
            return (ended, limited);
        }
        let (held, mut at) = (&self.component.held, 0);
        let mut begun: HashSet<&[u8]> = HashSet::new();
        let mut scanner = unlimited_scanner();
        while let Ok(Some(span)) = scanner.next(&held[at..]) {
            let bytes = &held[at..at + span.len];
            at += span.len;
            if !matches!(span.verb, Verb::Sub | Verb::Unsub) {
                continue;
            }
            match client::frame(bytes, &span) {
                Ok(Frame::Sub(sub)) => drop(begun.insert(sub.sid)),
                Ok(Frame::Unsub(unsub)) if !begun.contains(unsub.sid) => {
                    self.journal.unsubscribe(&unsub);
                    let sids = if unsub.max.is_none() {
                        &mut ended
                    } else {
                        &mut limited
                    };
                    sids.push(unsub.sid.into());
                }
                _ => {}
            }
        }
        (ended, limited)
    }

    /// Queues CONNECT, the journal, and a PING. The PONG shows that the node has taken all of them.
    fn replay(&mut self) {
        self.apply_held_unsubs();
        let Some(client) = &self.client else { return };
        let mut own = self.connect_line(client.json.as_bytes());
        let commands = 1 + self.journal.replay(&mut own);
        let Some(node) = &mut self.connection else { return };
        self.connects += 1;
        if client.verbose {
            node.ledger.expect(Expected::DroppedOks(commands));
        }
        node.own.extend_from_slice(&own);
        node.own_ping();
    }

    /// Records that the node has answered the first PING after CONNECT.
    pub(super) fn joined(&mut self, now: Instant) {
        if let Some(node) = &mut self.connection {
            node.verified = true;
            if matches!(node.stage, ConnectionStage::Joining { .. }) {
                node.stage = ConnectionStage::Resending;
            }
        }
        self.closed_unaccepted = 0;
        self.refused_by = Vec::new();
        if let Some(client) = &mut self.client {
            client.accepted = true;
        }
        let failover = self.failover.take().map(|mut failover| {
            failover.took = now.saturating_duration_since(failover.noticed);
            failover.silent += failover.took;
            failover.subscriptions = self.journal.len();
            *failover
        });
        self.events.push(SessionEvent::Joined { failover });
    }

    /// Sends again what the last node left unanswered: publishes in doubt and PINGs, in their order. Called at frame
    /// boundaries, one step at a time. After the last step the component's bytes pass. Returns `false` if publishes
    /// are next and are held.
    pub(super) fn resend(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        let Some(node) = &mut self.connection else {
            return false;
        };
        let until = match self.owed.front() {
            Some(Expected::ComponentPong(mark)) => mark.log,
            Some(_) => {
                let own_answer = self.owed.pop_front();
                own_answer
                    .into_iter()
                    .for_each(|answer| node.ledger.expect(answer));
                let answers = node.ledger.own_answers();
                self.deliver(&[&answers], now, wires);
                return true;
            }
            None => self.doubt.log_end(),
        };
        if !self.doubt.unsent(until).is_empty() {
            let passes = node.hold == Hold::No;
            if passes {
                self.resend_part(until, now, wires);
            }
            return passes;
        }
        if self.owed.is_empty() {
            node.stage = ConnectionStage::Flowing;
            return true;
        }
        // All PINGs at this offset of the log are sent at once. One by one, a hundred thousand of them would cost as
        // many writes.
        while let Some(Expected::ComponentPong(mark)) = self.owed.front()
            && mark.log <= until
        {
            self.owed.pop_front();
            let mark = self.mark();
            let Some(node) = &mut self.connection else { break };
            node.ledger.expect(Expected::ComponentPong(mark));
            node.own.extend_from_slice(encode::PING);
        }
        true
    }

    /// Sends the next part of the log, up to `until` at most. A full part is followed by a PING, so the session hears from
    /// a slow node between the parts, and acked parts need not be sent a third time.
    fn resend_part(&mut self, until: u64, now: Instant, wires: &mut impl Wires) {
        let verbose = self.verbose();
        let Some(node) = &mut self.connection else { return };
        let confirm_bytes = self.policy.confirm_bytes;
        let part_end = if node.resent_partly {
            node.resend_expected
        } else {
            self.doubt.part_end(until, confirm_bytes)
        };
        if node.resend_expected < part_end {
            let count = self.doubt.frames_between(node.resend_expected, part_end);
            node.resend_expected = part_end;
            self.traffic.messages_to_node += count;
            self.events.push(SessionEvent::Resent(count));
            if verbose {
                // Dropped: the component has its own `+OK`s for these publishes, or will get them.
                node.ledger.expect(Expected::DroppedOks(count as u32));
            }
        }
        let written = wires.write_node(&[IoSlice::new(self.doubt.unsent(part_end))]);
        self.traffic.bytes_to_node += written as u64;
        self.doubt.sent_again(written, now);
        node.resent_partly = !self.doubt.unsent(part_end).is_empty();
        node.blocked = node.resent_partly;
        if !node.resent_partly && self.doubt.bytes_since_mark() >= confirm_bytes {
            node.own_ping();
        }
    }
}
