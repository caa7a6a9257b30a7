//! A node comes, goes, or is about to go: what is replayed, what is sent again, and when the component's bytes pass.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_registry::Node;
use standin_wire::limits::{FrameLimits, PAYLOAD_BYTES_MAX};
use standin_wire::{Info, encode};

use super::face::Told;
use super::{Blame, End, Hold, Leaving, Lost, Move, Note, Session, Stage, Wires};
use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::error_text::ErrorText;
use crate::ledger::{Expected, Owed};

/// A node that answered and then kept the session for so long has served it, even if there was nothing to do.
const SERVES_AFTER: Duration = Duration::from_secs(1);
/// After so long a node that closes the connection of a component without CONNECT does so for want of it.
const MAY_CLOSE_AFTER: Duration = Duration::from_millis(500);
/// Nodes in a row that close the connection behind the same credentials, accepted by none: they refuse them.
const CLOSED_UNACCEPTED_MAX: u32 = 3;
/// How long a node that refused credentials which another had accepted is not tried again with them.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);

impl Session {
    /// A connection to `node` stands, and its INFO has come. With `hold`, publishes are stopped until
    /// [`release`](Self::release).
    pub(crate) fn node_up(
        &mut self,
        node: Arc<Node>,
        info: &Info,
        hold: bool,
        now: Instant,
        wires: &mut impl Wires,
    ) {
        debug_assert_eq!(self.stage, Stage::Searching, "the last node must be gone");
        self.hold = if hold { Hold::Away } else { Hold::No };
        self.confirmed_changes = 0;
        self.asks_auth = info.auth_required;
        self.up.only_asks = false;
        self.node = Some(node);
        self.node_heard = now;
        self.pinged = now;
        self.verified = false;
        self.served = false;
        self.node_since = now;
        self.refused = None;
        self.take_limits(info);
        self.greet(info, now, wires);
        if !info.connect_urls.is_empty() {
            self.notes.push(Note::ConnectUrls(info.connect_urls.clone()));
        }
        if self.client.is_some() {
            self.stage = Stage::Joining {
                until: now + self.policy.handshake_timeout,
            };
            self.replay();
        } else {
            self.stage = Stage::Flowing;
        }
        if info.ldm {
            self.leave();
        }
        self.push_up(now, wires);
    }

    /// The connection to the node is gone: end of stream, reset, or it could not be written to.
    pub(crate) fn node_lost(&mut self, cause: Cause, now: Instant, wires: &mut impl Wires) {
        if self.stage == Stage::Searching {
            return;
        }
        let mut end = self.refused.take();
        if end.is_none() && self.blame(cause, now) == Blame::Unclear {
            self.closed_unaccepted += 1;
            // What a component sees of a server that does not want it: a close.
            end = (self.closed_unaccepted >= CLOSED_UNACCEPTED_MAX).then_some(End::Unauthorized);
        }
        self.lose(cause, now);
        if let Some(end) = end {
            self.end_now(end, None, now, wires);
            return;
        }
        self.after_loss(now, wires);
    }

    /// None of the `known` nodes could be reached this time: a new component is given `last_known`, if it has no INFO yet.
    /// With an `outage` limit of 0 the session ends.
    pub(crate) fn no_node(&mut self, known: usize, last_known: &Info, now: Instant, wires: &mut impl Wires) {
        if self.stage != Stage::Searching || self.ending.is_some() {
            return;
        }
        let waited = now >= self.searching_since + self.policy.info_wait;
        self.refused_by.retain(|(_, at, _)| now < *at + REFUSAL_LASTS);
        if self.policy.outage.is_zero() && (known > 0 || waited) {
            self.end_now(End::Outage, None, now, wires);
        } else if known > 0 {
            self.greet(last_known, now, wires);
        }
    }

    /// Every known node has refused the component's credentials, which one had accepted before: it is told so in the
    /// words of the last one.
    pub(crate) fn refused_everywhere(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.stage == Stage::Searching
            && self.ending.is_none()
            && let Some((_, _, text)) = self.refused_by.pop()
        {
            self.end_now(End::Unauthorized, Some(ErrorText::OfNode(&text)), now, wires);
        }
    }

    /// Held publishes pass from now on.
    pub(crate) fn release(&mut self, now: Instant, wires: &mut impl Wires) {
        self.hold = Hold::No;
        self.push_up(now, wires);
    }

    /// Publishes are stopped and the stream has come to the first of them, or to its end. Returns whether a PING must go
    /// out before the node can have answered all before it.
    pub(super) fn asks_for_answers(&mut self) -> bool {
        if self.hold != Hold::Away || !self.verified {
            return false;
        }
        if self.confirmed_changes == self.journal.changes() {
            self.hold = Hold::Back;
            self.notes.push(Note::Back);
            return false;
        }
        let asks = !self.ledger.awaits_pong() && self.up.own_pings == 0;
        if asks {
            self.own_ping();
        }
        asks
    }

    /// Whose doing it is when the node is lost for `cause` now.
    fn blame(&self, cause: Cause, now: Instant) -> Blame {
        let unaccepted = self.client.as_ref().is_some_and(|client| !client.accepted);
        match cause {
            _ if self.refused.is_some() || self.ending.is_some() => Blame::Nobody,
            Cause::LameDuck | Cause::NodeError("authorization") => Blame::Nobody,
            // Servers close a client that says nothing for too long.
            Cause::EndOfStream if self.client.is_none() && now >= self.node_since + MAY_CLOSE_AFTER => {
                Blame::Nobody
            }
            Cause::Reset | Cause::EndOfStream | Cause::WriteError if unaccepted && self.asks_auth => {
                Blame::Unclear
            }
            _ => Blame::Node,
        }
    }

    /// The node is about to go, or should no longer be used: another one is dialled while this one still serves.
    pub(crate) fn leave(&mut self) {
        if self.stage != Stage::Searching && self.leaving == Leaving::No {
            self.leaving = Leaving::Dialling;
            self.notes.push(Note::Leaving);
        }
    }

    /// A connection to another node stands ready: the present one gets nothing more, and its last answers are awaited.
    pub(crate) fn next_ready(&mut self, patience: Duration, now: Instant, wires: &mut impl Wires) {
        if self.leaving == Leaving::Dialling {
            self.leaving = Leaving::Draining {
                until: now + patience,
            };
            if self.client.is_some() {
                self.own_ping();
                self.push_up(now, wires);
            }
        }
    }

    /// Whether the node to be left has answered all it was sent, so that nothing is in doubt.
    pub(super) fn is_drained(&self) -> bool {
        matches!(self.leaving, Leaving::Draining { .. })
            && self.up.head_written == 0
            && self.up.own.is_empty()
            && self.ledger.is_settled()
            && self.stage == Stage::Flowing
    }

    /// Leaves the node for the one that stands ready.
    pub(crate) fn switch(&mut self, now: Instant) {
        self.lose(Cause::LameDuck, now);
    }

    /// Everything that hung on the node's connection is forgotten or kept for the next one.
    pub(super) fn lose(&mut self, cause: Cause, now: Instant) {
        if self.stage == Stage::Searching {
            return;
        }
        let blame = self.blame(cause, now);
        let said = match self.notes.last() {
            Some(Note::NodeError { text, .. }) => Some(text.clone()),
            _ => None,
        };
        let (in_doubt, subjects) = self.doubt.node_lost();
        self.remember_loss(cause, in_doubt, now);
        self.notes.push(Note::Lost {
            cause,
            said,
            blame,
            in_doubt,
            subjects,
            served: self.served,
        });
        self.verified = false;
        self.hold = Hold::No;
        let mut owed = self.ledger.take_owed();
        owed.append(&mut self.owed);
        self.owed = owed;
        self.resend_expected = 0;
        self.stage = Stage::Searching;
        self.leaving = Leaving::No;
        self.up.head_written = 0;
        self.up.replacement = None;
        self.up.own.clear();
        self.up.own_pings = 0;
        self.up.resent_partly = false;
        self.up.blocked = false;
        self.up.incomplete = false;
        self.down.partial.clear();
        self.down.last_slot = None;
        self.down.scanner.forget();
        self.look_for_publishes();
    }

    fn remember_loss(&mut self, cause: Cause, in_doubt: InDoubtCount, now: Instant) {
        // A node that takes the session and drops it at once ends no outage, nor does one that never answers.
        self.served |= self.verified && now >= self.node_since + SERVES_AFTER;
        if self.served || self.client.is_none() {
            self.searching_since = now;
        }
        match (&mut self.lost, &self.node) {
            (Some(lost), _) => lost.in_doubt += in_doubt,
            (None, Some(node)) if self.verified => {
                self.lost = Some(Box::new(Lost {
                    at: now,
                    heard: self.node_heard,
                    from: Arc::clone(node),
                    cause,
                    in_doubt,
                }));
            }
            _ => {}
        }
    }

    /// What a loss means for a session that cannot, or need not, go on.
    pub(super) fn after_loss(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.ending.is_some() {
            self.tick_ending(now, wires);
        } else if self.client.as_ref().is_some_and(|client| client.signed) {
            self.end_now(End::Signed, None, now, wires);
        }
    }

    pub(super) fn take_limits(&mut self, info: &Info) {
        let limits = FrameLimits {
            line_bytes_max: self.policy.control_line_bytes_max,
            // Negative: the node has no limit. The sidecar has one, because it holds a message until it is whole.
            payload_bytes_max: usize::try_from(info.max_payload)
                .map_or(PAYLOAD_BYTES_MAX, |max| max.min(PAYLOAD_BYTES_MAX)),
        };
        if self.up.scanner.limits() != limits {
            self.up.scanner.set_limits(limits);
        }
    }

    /// The component's first INFO, or a later one when something changed that it acts on.
    pub(super) fn greet(&mut self, info: &Info, now: Instant, wires: &mut impl Wires) {
        let line = if self.info.is_none() {
            self.info = Some(Told::of(info));
            self.own_info(info).into_bytes()
        } else {
            self.info_for_component(info)
        };
        self.deliver(&[&line], now, wires);
    }

    /// CONNECT, the journal, and a PING whose PONG says that the node took all of it.
    fn replay(&mut self) {
        let Some(client) = &self.client else { return };
        self.connects += 1;
        let mut own = self.connect_line(client.json.as_bytes());
        let commands = 1 + self.journal.replay(&mut own);
        if client.verbose {
            self.ledger.expect(Expected::SwallowedOks(commands));
        }
        self.up.own.extend_from_slice(&own);
        self.own_ping();
    }

    /// The node answered the first PING behind CONNECT.
    pub(super) fn joined(&mut self, now: Instant) {
        self.verified = true;
        self.closed_unaccepted = 0;
        self.refused_by = Vec::new();
        if let Some(client) = &mut self.client {
            client.accepted = true;
        }
        if matches!(self.stage, Stage::Joining { .. }) {
            self.stage = Stage::Resending;
        }
        let moved = self.lost.take().map(|lost| {
            self.moves += 1;
            Move {
                from: lost.from,
                cause: lost.cause,
                silent: now.saturating_duration_since(lost.heard),
                took: now.saturating_duration_since(lost.at),
                in_doubt: lost.in_doubt,
                subscriptions: self.journal.len(),
            }
        });
        self.notes.push(Note::Joined { moved });
    }

    /// Sends again what the last node left unanswered: publishes in doubt and PINGs in their order. Called at frame
    /// boundaries, one step at a time; the last step opens the way for the component's bytes. Returns `false` when
    /// publishes are next, and stopped.
    pub(super) fn resend(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        let until = match self.owed.front() {
            Some(Owed::Oks(_) | Owed::Error(_)) => {
                match self.owed.pop_front() {
                    Some(Owed::Oks(count)) => self.ledger.expect(Expected::OwnOks(count)),
                    Some(Owed::Error(fault)) => self.ledger.expect(Expected::OwnError(fault)),
                    _ => {}
                }
                let answers = self.ledger.own_answers();
                self.deliver(&[&answers], now, wires);
                return true;
            }
            Some(Owed::Pong(mark)) => mark.log,
            None => self.doubt.log_end(),
        };
        if !self.doubt.unsent(until).is_empty() {
            if self.hold == Hold::No {
                self.resend_part(until, now, wires);
            }
            return self.hold == Hold::No;
        }
        if self.owed.is_empty() {
            self.stage = Stage::Flowing;
            return true;
        }
        // All PINGs of this place in the log at once: one by one, a hundred thousand of them would cost as many writes.
        while let Some(Owed::Pong(mark)) = self.owed.front()
            && mark.log <= until
        {
            self.owed.pop_front();
            let mark = self.mark();
            self.ledger.expect(Expected::ComponentPong(mark));
            self.up.own.extend_from_slice(encode::PING);
        }
        true
    }

    /// Sends the log on, up to `until` at most, with a PING behind every part of it: a node that takes long for all of it
    /// is heard of in between, and what it has confirmed need not be sent a third time.
    fn resend_part(&mut self, until: u64, now: Instant, wires: &mut impl Wires) {
        let part_end = if self.up.resent_partly {
            self.resend_expected
        } else {
            self.doubt.part_end(until, self.policy.confirm_bytes)
        };
        self.expect_resent_oks(part_end);
        let written = wires.write_node(&[IoSlice::new(self.doubt.unsent(part_end))]);
        self.traffic.bytes_to_node += written as u64;
        self.doubt.sent_again(written, now);
        self.up.resent_partly = !self.doubt.unsent(part_end).is_empty();
        self.up.blocked = self.up.resent_partly;
        if !self.up.resent_partly && self.doubt.bytes_since_mark() >= self.policy.confirm_bytes {
            self.own_ping();
        }
    }

    /// Publishes that are sent again are answered with `+OK` again; the component has had, or was promised, its own.
    fn expect_resent_oks(&mut self, until: u64) {
        if self.resend_expected < until {
            let from = self.resend_expected;
            self.resend_expected = until;
            let count = self.doubt.frames_between(from, until);
            self.traffic.messages_to_node += count;
            self.notes.push(Note::Resent(count));
            if self.verbose() {
                self.ledger.expect(Expected::SwallowedOks(count as u32));
            }
        }
    }
}
