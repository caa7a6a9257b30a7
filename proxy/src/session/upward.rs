//! Component → node, second half: complete frames are written on as [`plan`](super::plan) decides. They take effect
//! when they are written.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Buf;
use standin_wire::client::{self, Frame, Verb};
use standin_wire::{ClientFault, Span, WireError, encode};

use super::plan::Plan;
use super::{ALONE_WORK, CONNECT_WORK, End, Leaving, Note, Replacement, Session, Stage, Wires};
use crate::ledger::Expected;
use crate::settings::InDoubt;
use crate::tally::publishes;

/// Limit on the wait for the node's answers to frames before a broken frame.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl Session {
    /// Moves held bytes to the head of `buf`; the shell reads more bytes after them. So a frame cut by a read is
    /// complete again without a copy of the bytes after it. Returns `None` if there are too many held bytes, or they
    /// cannot be sent now.
    pub(crate) fn lend_held(&mut self, buf: &mut [u8]) -> Option<usize> {
        let len = self.up.held.len();
        if self.stage != Stage::Flowing || self.up.blocked || self.is_holding() || len > buf.len() / 2 {
            return None;
        }
        buf[..len].copy_from_slice(&self.up.held);
        self.up.held.clear();
        Some(len)
    }

    /// Takes back lent bytes when no bytes were read after them.
    pub(crate) fn give_back(&mut self, lent: &[u8]) {
        self.up.held.extend_from_slice(lent);
    }

    /// Processes `bytes` from the component. With `lent`, they begin with the bytes from
    /// [`lend_held`](Self::lend_held).
    pub(crate) fn component_bytes(&mut self, bytes: &[u8], lent: bool, now: Instant, wires: &mut impl Wires) {
        self.component_heard = now;
        self.component_pings = 0;
        if lent && self.up.held.is_empty() {
            let passed = self.transmit(bytes, now, wires);
            self.up.held.extend_from_slice(&bytes[passed..]);
        } else {
            self.up.held.extend_from_slice(bytes);
            self.push_up(now, wires);
        }
    }

    /// Records that the component will send nothing more.
    pub(crate) fn component_eof(&mut self, now: Instant, wires: &mut impl Wires) {
        self.up.eof = true;
        self.push_up(now, wires);
        self.look_for_publishes();
        if self.doubt.log_bytes() > 0 && !self.ledger.awaits_pong() {
            // Publishes under `resend` are kept until a node has acked them, even without the component.
            self.own_ping();
            self.push_up(now, wires);
        }
    }

    /// Checks whether a component that sends nothing more has left publishes for others.
    pub(super) fn look_for_publishes(&mut self) {
        let nothing_for_others = || self.doubt.log_bytes() == 0 && publishes(&self.up.held).is_empty();
        self.up.only_asks = self.up.eof && self.stage == Stage::Searching && nothing_for_others();
    }

    /// Continues writing when the node's socket takes bytes again.
    pub(crate) fn node_writable(&mut self, now: Instant, wires: &mut impl Wires) {
        let before = self.traffic.bytes_to_node;
        self.push_up(now, wires);
        // A node that takes bytes after its socket was full reads them. It is slow, not dead.
        if self.traffic.bytes_to_node > before {
            self.node_heard = now;
            if matches!(self.stage, Stage::Joining { .. }) {
                self.stage = Stage::Joining {
                    until: now + self.join_timeout(),
                };
            }
        }
    }

    /// Writes as many held bytes as possible.
    pub(super) fn push_up(&mut self, now: Instant, wires: &mut impl Wires) {
        let mut held = std::mem::take(&mut self.up.held);
        let passed = self.transmit(&held, now, wires);
        held.advance(passed);
        if !held.is_empty() {
            self.up.held = held;
        }
    }

    /// Queues a PING of the sidecar's own for the next frame boundary.
    pub(super) fn own_ping(&mut self) {
        if self.stage != Stage::Searching {
            self.up.own.extend_from_slice(encode::PING);
            self.up.own_pings += 1;
        }
    }

    /// Returns whether the node has every complete frame of the component. An incomplete last frame goes nowhere.
    pub(super) fn has_passed_on(&self) -> bool {
        self.up.held.is_empty() || self.up.incomplete && self.up.head_written == 0
    }

    /// Writes frames of `bytes` to the node until they end, the socket is full, or the stage forbids it. Returns the
    /// length of the complete frames that took effect.
    fn transmit(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> usize {
        let mut at = 0;
        self.up.blocked = false;
        while self.stage != Stage::Searching && !(at < bytes.len() && self.turn_exhausted()) {
            if self.up.head_written == 0 {
                if !self.up.resent_partly && !self.flush_own(now, wires) {
                    break;
                }
                if self.stage == Stage::Resending {
                    let is_stopped = !self.resend(now, wires);
                    if self.up.blocked || is_stopped && !self.asks_for_answers() {
                        break;
                    }
                    continue;
                }
                if self.stage != Stage::Flowing || matches!(self.leaving, Leaving::Draining { .. }) {
                    break;
                }
            }
            if self.up.replacement.is_some() {
                at += self.write_replacement(&bytes[at..], now, wires);
                if self.up.blocked {
                    break;
                }
                continue;
            }
            match self.plan(&bytes[at..]) {
                Ok(Plan::Incomplete) => {
                    if self.asks_for_answers() {
                        continue;
                    }
                    self.up.incomplete = true;
                    return at;
                }
                Ok(Plan::Stop) => {
                    if self.asks_for_answers() {
                        continue;
                    }
                    break;
                }
                Ok(Plan::Wait) => {
                    if !self.ledger.awaits_pong() && self.up.own_pings == 0 {
                        self.own_ping();
                        continue;
                    }
                    break;
                }
                Ok(Plan::Skip { len, refusal }) => {
                    self.spend(ALONE_WORK);
                    at += len;
                    if let Some(fault) = refusal {
                        self.refuse(fault, now, wires);
                    }
                }
                Ok(Plan::Replace { len, with }) => {
                    self.spend(if with.starts_with(b"CONNECT") {
                        CONNECT_WORK
                    } else {
                        ALONE_WORK
                    });
                    self.up.replacement = Some(Replacement { len, with });
                    at += self.write_replacement(&bytes[at..], now, wires);
                }
                Ok(Plan::Pass {
                    len,
                    publishes,
                    plain,
                    others,
                }) => {
                    self.spend(1 + (publishes as u32 + ALONE_WORK * others) / 16);
                    at += self.write_frames(&bytes[at..at + len], publishes, plain, now, wires);
                }
                Err(error) => {
                    self.component_fault(&error, now);
                    if self.up.own.is_empty() { break } else { continue }
                }
            }
            if self.up.blocked {
                break;
            }
        }
        self.up.incomplete = false;
        at
    }

    /// Sends `-ERR` in place of the node's answer, in the order of the node's answers.
    fn refuse(&mut self, fault: ClientFault, now: Instant, wires: &mut impl Wires) {
        self.ledger.expect(Expected::OwnError(fault));
        let answers = self.ledger.own_answers();
        self.deliver(&[&answers], now, wires);
        self.notes.push(Note::ComponentError {
            text: fault.text().to_owned(),
            kind: "subscriptions_max",
        });
    }

    /// Writes the sidecar's own frames. Returns whether all were written.
    fn flush_own(&mut self, now: Instant, wires: &mut impl Wires) -> bool {
        if self.up.own.is_empty() {
            return true;
        }
        if self.up.own_pings > 0 {
            self.pinged = now;
        }
        for _ in 0..std::mem::take(&mut self.up.own_pings) {
            let mark = self.mark();
            self.ledger.expect(Expected::OwnPong(mark));
            self.traffic.own_pings += 1;
        }
        while !self.up.own.is_empty() {
            let written = wires.write_node(&[IoSlice::new(&self.up.own)]);
            if written == 0 {
                self.up.blocked = true;
                return false;
            }
            self.traffic.bytes_to_node += written as u64;
            self.up.own.advance(written);
        }
        self.up.own = bytes::BytesMut::new();
        true
    }

    /// Writes `frames`, all complete. Returns the length of the frames that took effect.
    fn write_frames(
        &mut self,
        frames: &[u8],
        publishes: u64,
        plain: bool,
        now: Instant,
        wires: &mut impl Wires,
    ) -> usize {
        let rest = &frames[self.up.head_written..];
        let ping_due = self.doubt.bytes_since_mark() + frames.len() as u64 >= self.policy.confirm_bytes
            && publishes > 0
            && self.up.own.is_empty();
        let parts = [IoSlice::new(rest), IoSlice::new(encode::PING)];
        let written = wires.write_node(&parts[..1 + usize::from(ping_due)]);
        let of_frames = written.min(rest.len());
        self.traffic.bytes_to_node += written as u64;
        self.up.blocked = written < rest.len();
        let done = self.up.head_written + of_frames;
        if plain && done == frames.len() {
            self.up.head_written = 0;
            self.traffic.messages_to_node += publishes;
            self.doubt
                .wrote_dropped(publishes, &self.up.subjects, frames.len(), now);
            self.expect_oks(publishes as u32);
        } else {
            let whole = self.apply_frames(frames, done, now);
            self.up.head_written = done - whole;
            if self.up.blocked {
                return whole;
            }
        }
        let of_ping = written - of_frames;
        if of_ping > 0 {
            // The PING's first bytes were written; its rest goes next.
            let mark = self.mark();
            self.ledger.expect(Expected::OwnPong(mark));
            self.traffic.own_pings += 1;
            self.pinged = now;
            self.up.own.extend_from_slice(&encode::PING[of_ping..]);
        }
        frames.len()
    }

    /// Applies the complete frames within the first `done` bytes of `frames`. Returns the end of the last one.
    fn apply_frames(&mut self, frames: &[u8], done: usize, now: Instant) -> usize {
        let mut whole = 0;
        while whole < done {
            let Ok(Some(span)) = self.up.scanner.next(&frames[whole..]) else {
                break;
            };
            if whole + span.len > done {
                break;
            }
            self.apply(&frames[whole..whole + span.len], &span, now);
            whole += span.len;
        }
        whole
    }

    /// Applies a frame that the node has taken.
    fn apply(&mut self, bytes: &[u8], span: &Span<Verb>, now: Instant) {
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
                self.down.last_slot = None;
                self.expect_oks(1);
            }
            Frame::Ping => {
                let mark = self.mark();
                self.ledger.expect(Expected::ComponentPong(mark));
            }
            Frame::Connect(_) | Frame::Pong => {}
        }
    }

    fn expect_oks(&mut self, count: u32) {
        if self.verbose() {
            self.ledger.expect(Expected::Oks(count));
        }
    }

    /// Writes the replacement of the frame at the head of `bytes`. Applies the frame when the replacement is written
    /// completely. Returns how many of `bytes` are done: none, or the whole frame.
    fn write_replacement(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> usize {
        let Some(replacement) = self.up.replacement.take() else {
            return 0;
        };
        let Replacement { len, with } = &replacement;
        let written = wires.write_node(&[IoSlice::new(&with[self.up.head_written..])]);
        self.traffic.bytes_to_node += written as u64;
        self.up.head_written += written;
        if self.up.head_written < with.len() {
            self.up.blocked = true;
            self.up.replacement = Some(replacement);
            return 0;
        }
        self.up.head_written = 0;
        let frame = &bytes[..*len];
        if with.starts_with(b"CONNECT") {
            self.connected(with, frame, now);
            self.tell_untold_info(now, wires);
        } else {
            self.apply_frames(frame, *len, now);
        }
        *len
    }

    /// Handles a protocol error of the component: no byte after this frame can be trusted. Frames before it are
    /// answered first.
    fn component_fault(&mut self, error: &WireError, now: Instant) {
        let end = End::ComponentProtocol(error.kind());
        self.end_after_answers(end, Some(error.fault()), now + LAST_ANSWERS);
    }
}
