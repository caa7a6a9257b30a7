//! Component → node, second half: complete frames are written to the node as [`plan`](super::plan) decides. They take
//! effect when they are written.
//!
//! Promise S2: a node only gets complete frames. A frame stays in `held` until a node has all of it, so a frame that a dying
//! node had in part is sent completely to the next node.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Buf;
use standin_wire::client::{self, Frame, Verb};
use standin_wire::{Span, encode};

use super::connection::{Connection, ConnectionStage, Hold};
use super::plan::{Effect, Plan};
use super::{CONNECT_WORK, EndReason, SINGLE_FRAME_WORK, Session, SessionEvent, Wires};
use crate::error_text::ErrorText;
use crate::ledger::Expected;
use crate::settings::InDoubt;
use crate::tally::publishes;

/// Maximum wait for the node's answers to the frames before an invalid frame.
const ERROR_ANSWERS: Duration = Duration::from_secs(1);

impl Session {
    /// Moves held bytes to the head of `buf`; the shell reads more bytes after them. So a frame cut by a read is
    /// complete again without a copy of the bytes after it. Returns the number of moved bytes. Moves none if too many
    /// are held, or if they cannot be sent now.
    pub(crate) fn lend_held(&mut self, buf: &mut [u8]) -> usize {
        let can_send = |node: &Connection| {
            node.stage == ConnectionStage::Flowing
                && !node.blocked
                && node.hold == Hold::No
                && !node.is_draining()
        };
        let len = self.component.held.len();
        if len > buf.len() / 2 || !self.connection.as_ref().is_some_and(can_send) {
            return 0;
        }
        buf[..len].copy_from_slice(&self.component.held);
        self.component.held.clear();
        len
    }

    /// Takes back lent bytes when no bytes were read after them.
    pub(crate) fn give_back(&mut self, lent: &[u8]) {
        self.component.held.extend_from_slice(lent);
    }

    /// Processes `bytes` from the component. They begin with the bytes from [`lend_held`](Self::lend_held), if any.
    pub(crate) fn component_bytes(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) {
        self.component.heard = now;
        self.component.pings = 0;
        if self.component.held.is_empty() {
            let passed = self.transmit(bytes, now, wires);
            self.component.held.extend_from_slice(&bytes[passed..]);
        } else {
            self.component.held.extend_from_slice(bytes);
            self.push_up(now, wires);
        }
    }

    /// Records that the component will send nothing more.
    pub(crate) fn component_eof(&mut self, now: Instant, wires: &mut impl Wires) {
        self.component.eof = true;
        self.push_up(now, wires);
        self.check_for_publishes();
        if self.doubt.log_bytes() > 0
            && let Some(node) = &mut self.connection
            && node.ping_unless_awaited()
        {
            // Publishes under `resend` are kept until a node has acked them, even without the component.
            self.push_up(now, wires);
        }
    }

    /// Checks whether a session without a node, whose component sends nothing more, still has publishes for others.
    pub(super) fn check_for_publishes(&mut self) {
        let nothing_for_others = || self.doubt.log_bytes() == 0 && publishes(&self.component.held).is_empty();
        self.only_awaits_answers = self.component.eof && self.connection.is_none() && nothing_for_others();
    }

    /// Continues writing when the node's socket takes bytes again.
    pub(crate) fn node_writable(&mut self, now: Instant, wires: &mut impl Wires) {
        let before = self.traffic.bytes_to_node;
        self.push_up(now, wires);
        // A node that takes bytes after its socket was full reads them. It is slow, not dead.
        let join_timeout = self.join_timeout();
        if self.traffic.bytes_to_node > before
            && let Some(node) = &mut self.connection
        {
            node.heard = now;
            if let ConnectionStage::Joining { until } = &mut node.stage {
                *until = now + join_timeout;
            }
        }
    }

    /// Writes as many held bytes as possible.
    pub(super) fn push_up(&mut self, now: Instant, wires: &mut impl Wires) {
        let mut held = std::mem::take(&mut self.component.held);
        let passed = self.transmit(&held, now, wires);
        held.advance(passed);
        if !held.is_empty() {
            self.component.held = held;
        }
    }

    /// Queues a PING of the sidecar's own for the next frame boundary.
    pub(super) fn own_ping(&mut self) {
        if let Some(node) = &mut self.connection {
            node.own_ping();
        }
    }

    /// Returns whether the node has every complete frame of the component. An incomplete last frame is never sent, so it
    /// does not count.
    pub(super) fn has_passed_on(&self) -> bool {
        let has_only_a_part = |node: &Connection| node.incomplete && node.head_written == 0;
        self.component.held.is_empty() || self.connection.as_ref().is_some_and(has_only_a_part)
    }

    /// Writes frames of `bytes` to the node until none is left, the socket is full, the turn's budget is exhausted, or
    /// the stage forbids it. Returns the length of the complete frames that took effect.
    fn transmit(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> usize {
        let mut at = 0;
        if let Some(node) = &mut self.connection {
            node.blocked = false;
            node.incomplete = false;
        }
        while self.may_write() && (at == bytes.len() || !self.turn_exhausted()) {
            let Some(done) = self.next_step(&bytes[at..], now, wires) else {
                break;
            };
            at += done;
        }
        at
    }

    /// Returns whether there is a node whose socket takes bytes.
    fn may_write(&self) -> bool {
        self.connection.as_ref().is_some_and(|node| !node.blocked)
    }

    /// Makes one step of [`transmit`](Self::transmit): own frames, frames sent again, or frames at the head of `bytes`.
    /// Returns how many of `bytes` took effect; `None` if nothing more can be done now.
    fn next_step(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> Option<usize> {
        let node = self.connection.as_ref()?;
        if node.head_written == 0 {
            if !node.resent_partly && !self.flush_own(now, wires) {
                return None;
            }
            let node = self.connection.as_ref()?;
            if node.stage == ConnectionStage::Resending {
                let goes_on = self.resend(now, wires) || self.may_write() && self.check_back();
                return goes_on.then_some(0);
            }
            if node.stage != ConnectionStage::Flowing || node.is_draining() {
                return None;
            }
        }
        if self.connection.as_ref()?.replacement.is_some() {
            return self.write_replacement(bytes, now, wires);
        }
        match self.plan(bytes) {
            Ok(Plan::Incomplete) => {
                let pings = self.check_back();
                self.connection.as_mut()?.incomplete = !pings;
                pings.then_some(0)
            }
            Ok(Plan::Held) => self.check_back().then_some(0),
            Ok(Plan::Wait) => self.connection.as_mut()?.ping_unless_awaited().then_some(0),
            Ok(Plan::Skip { len, refusal }) => {
                self.spend(SINGLE_FRAME_WORK);
                if let Some(text) = refusal {
                    self.refuse(text, now, wires);
                }
                Some(len)
            }
            Ok(Plan::Replace(replacement)) => {
                self.spend(if replacement.is_connect() {
                    CONNECT_WORK
                } else {
                    SINGLE_FRAME_WORK
                });
                self.connection.as_mut()?.replacement = Some(replacement);
                self.write_replacement(bytes, now, wires)
            }
            Ok(Plan::Pass {
                len,
                publishes,
                others,
            }) => {
                self.spend(1 + (publishes as u32 + SINGLE_FRAME_WORK * others) / 16);
                Some(self.write_frames(&bytes[..len], publishes > 0, now, wires))
            }
            Err(error) => {
                // No byte after this frame can be trusted. Frames before it are answered first.
                let reason = EndReason::ComponentProtocol(error.kind());
                self.end_after_answers(reason, Some(error.fault()), now + ERROR_ANSWERS);
                Some(0)
            }
        }
    }

    /// Sends `-ERR` in place of the node's answer, in the order of the node's answers.
    fn refuse(&mut self, error: ErrorText<'static>, now: Instant, wires: &mut impl Wires) {
        let kind = match error {
            ErrorText::Violation(_) => "permissions",
            _ => "subscriptions_max",
        };
        let text = error.as_str().to_owned();
        if let Some(node) = &mut self.connection {
            node.ledger.expect(Expected::OwnError(error));
        }
        let answers = self.own_answers();
        self.deliver(&[&answers], now, wires);
        self.events.push(SessionEvent::ComponentError { text, kind });
    }

    /// Writes the sidecar's own frames. Returns whether all were written.
    fn flush_own(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        let (pings, commands) = match &mut self.connection {
            Some(node) if !node.own.is_empty() => {
                let commands = std::mem::take(&mut node.own_commands);
                (std::mem::take(&mut node.own_pings), commands)
            }
            _ => return true,
        };
        let dropped = if self.verbose() { u32::from(commands) } else { 0 };
        let mark = (pings > 0).then(|| self.mark());
        let Some(node) = &mut self.connection else {
            return true;
        };
        node.ledger.expect(Expected::DroppedOks(dropped));
        if let Some(mark) = mark {
            (0..pings).for_each(|_| node.expect_pong(Expected::OwnPong(mark), now));
            self.traffic.own_pings += u64::from(pings);
        }
        while !node.own.is_empty() {
            let written = wires.write_node(&[IoSlice::new(&node.own)]);
            if written == 0 {
                node.blocked = true;
                return false;
            }
            self.traffic.bytes_to_node += written as u64;
            node.own.advance(written);
        }
        node.own = bytes::BytesMut::new();
        true
    }

    /// Writes `frames`, all complete, with the effects found by the plan. Returns the length of the frames that took
    /// effect.
    fn write_frames(
        &mut self,
        frames: &[u8],
        publishes: bool,
        now: Instant,
        wires: &mut impl Wires,
    ) -> usize {
        let Some(node) = &mut self.connection else {
            return 0;
        };
        let rest = &frames[node.head_written..];
        let ping_due = self.doubt.bytes_since_mark() + frames.len() as u64 >= self.policy.confirm_bytes
            && publishes
            && node.own.is_empty();
        let parts = [IoSlice::new(rest), IoSlice::new(encode::PING)];
        let written = wires.write_node(&parts[..1 + usize::from(ping_due)]);
        let of_frames = written.min(rest.len());
        self.traffic.bytes_to_node += written as u64;
        node.blocked = written < rest.len();
        let done = node.head_written + of_frames;
        let effects = std::mem::take(&mut self.effects);
        let whole = effects.apply(&frames[..done], |effect| self.apply(effect, now));
        self.effects = effects;
        let of_ping = written - of_frames;
        let mark = (of_ping > 0).then(|| self.mark());
        let Some(node) = &mut self.connection else {
            return whole;
        };
        node.head_written = done - whole;
        if let Some(mark) = mark {
            // The PING's first bytes were written; its rest goes next.
            node.expect_pong(Expected::OwnPong(mark), now);
            node.own.extend_from_slice(&encode::PING[of_ping..]);
            self.traffic.own_pings += 1;
        }
        whole
    }

    /// Applies the effect of frames that were written to the node.
    fn apply(&mut self, effect: Effect<'_>, now: Instant) {
        match effect {
            Effect::Publishes(publishes) => {
                let (count, bytes) = (u64::from(publishes.count), publishes.bytes as usize);
                self.traffic.messages_to_node += count;
                self.doubt.wrote_dropped(count, &publishes.subjects, bytes, now);
                self.expect_oks(publishes.count);
            }
            Effect::Frame { bytes, span } => self.apply_frame(bytes, span, now),
        }
    }

    fn apply_frame(&mut self, bytes: &[u8], span: &Span<Verb>, now: Instant) {
        let Ok(frame) = client::frame(bytes, span) else {
            return;
        };
        match frame {
            Frame::Publish(publish) => {
                self.traffic.messages_to_node += 1;
                match self.policy.in_doubt_for(publish.subject) {
                    InDoubt::Drop => self.doubt.wrote_one_dropped(span.args(bytes), bytes.len(), now),
                    InDoubt::Resend => self.doubt.wrote_logged(bytes, now),
                }
                self.expect_oks(1);
            }
            Frame::Sub(sub) => {
                self.journal.subscribe(&sub);
                self.expect_oks(1);
            }
            Frame::Unsub(unsub) => {
                self.journal.unsubscribe(&unsub);
                self.forget_last_slot();
                self.expect_oks(1);
            }
            Frame::Ping => {
                let mark = self.mark();
                if let Some(node) = &mut self.connection {
                    node.expect_pong(Expected::ComponentPong(mark), now);
                }
            }
            Frame::Connect(_) | Frame::Pong | Frame::Move(_) => {}
        }
    }

    fn expect_oks(&mut self, count: u32) {
        if self.verbose()
            && let Some(node) = &mut self.connection
        {
            node.ledger.expect(Expected::Oks(count));
        }
    }

    /// Writes the replacement of the frame at the head of `bytes`. Applies the frame when the replacement is written
    /// completely. Returns the length of the frame, or `None` if the socket is full before that.
    fn write_replacement(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> Option<usize> {
        let node = self.connection.as_mut()?;
        let replacement = node.replacement.take()?;
        let with = &replacement.with;
        let written = wires.write_node(&[IoSlice::new(&with[node.head_written..])]);
        self.traffic.bytes_to_node += written as u64;
        node.head_written += written;
        if node.head_written < with.len() {
            node.blocked = true;
            node.replacement = Some(replacement);
            return None;
        }
        node.head_written = 0;
        let frame = &bytes[..replacement.replaced_bytes()];
        match &replacement.span {
            Some(span) if !replacement.is_connect() => self.apply_frame(frame, span, now),
            _ => {
                self.connected(with, frame, now);
                self.send_pending_info(now, wires);
            }
        }
        Some(frame.len())
    }
}
