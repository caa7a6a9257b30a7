//! Node → component: frames are scanned in place. Frames for the component pass unchanged. Frames for the sidecar
//! (PING, PONGs for its own PINGs, answers to a replay, INFO) are cut out.
//!
//! Promise S1: the component only gets complete frames. The beginning of a frame waits for its rest, and is dropped with
//! the connection if the node dies.
//!
//! Promise S9: an `-ERR` about the component reaches it unchanged. An `-ERR` about the node makes the session move to
//! another node.

use std::io::IoSlice;
use std::time::Instant;

use bytes::Buf;
use standin_wire::refusal::{names_too_many_subscriptions, refused_subscription, replaces_ok};
use standin_wire::server::{self, Frame, Verb};
use standin_wire::{Info, Refusal, Span, encode};

use super::connection::{ConnectionStage, Hold};
use super::failover::NodeRefusal;
use super::{EndReason, INFO_WORK, Session, SessionEvent, Wires, refused_chain};
use crate::cause::Cause;
use crate::ledger::Expected;

/// Maximum number of slices in one write. Each slice is a run of frames that pass unchanged.
const RUNS_MAX: usize = 16;

impl Session {
    /// Moves the beginning of an incomplete frame to the head of `buf`; see [`lend_held`](Self::lend_held).
    pub(crate) fn lend_partial(&mut self, buf: &mut [u8]) -> usize {
        let partial = self.connection.as_mut().map(|node| &mut node.partial);
        let Some(partial) = partial.filter(|partial| partial.len() <= buf.len() / 2) else {
            return 0;
        };
        let len = partial.len();
        buf[..len].copy_from_slice(partial);
        partial.clear();
        len
    }

    /// Takes back lent bytes when no bytes were read after them.
    pub(crate) fn give_back_partial(&mut self, lent: &[u8]) {
        if let Some(node) = &mut self.connection {
            node.partial.extend_from_slice(lent);
        }
    }

    /// Processes `bytes` from the node. They begin with the bytes from [`lend_partial`](Self::lend_partial), if any.
    pub(crate) fn node_bytes(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) {
        let Some(node) = &mut self.connection else { return };
        node.heard = now;
        if node.partial.is_empty() {
            let taken = self.receive(bytes, now, wires);
            if let Some(node) = &mut self.connection {
                node.partial.extend_from_slice(&bytes[taken..]);
            }
        } else {
            self.take_partial(bytes, now, wires);
        }
        self.after_messages(now, wires);
        let Some(node) = &self.connection else {
            self.after_loss(now, wires);
            return;
        };
        // A PONG may have released held bytes, and answers to the node are sent at once.
        if node.stage == ConnectionStage::Resending
            || !node.own.is_empty()
            || node.hold != Hold::No
            || (!node.blocked && !node.incomplete && !self.component.held.is_empty())
        {
            self.push_up(now, wires);
        }
    }

    /// Processes the kept bytes of the node, followed by `bytes`.
    pub(super) fn take_partial(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) {
        let Some(node) = &mut self.connection else { return };
        let mut partial = std::mem::take(&mut node.partial);
        partial.extend_from_slice(bytes);
        let taken = self.receive(&partial, now, wires);
        if let Some(node) = &mut self.connection
            && taken < partial.len()
        {
            partial.advance(taken);
            node.partial = partial;
        }
    }

    /// Continues writing when the component's socket takes bytes again.
    pub(crate) fn component_writable(&mut self, now: Instant, wires: &mut impl Wires) {
        self.outbox_shrinks(now);
        while !self.component.outbox.is_empty() {
            let written = wires.write_component(&[IoSlice::new(&self.component.outbox)]);
            if written == 0 {
                return;
            }
            self.component.outbox_moved = now;
            self.component.outbox.advance(written);
        }
        self.component.outbox = bytes::BytesMut::new();
    }

    /// Processes the complete frames at the head of `bytes`. Returns their length.
    fn receive(&mut self, bytes: &[u8], now: Instant, wires: &mut impl Wires) -> usize {
        let mut runs: [&[u8]; RUNS_MAX] = [&[]; RUNS_MAX];
        let mut count = 0;
        let (mut start, mut at) = (0, 0);
        while let Some(node) = &mut self.connection {
            let span = match node.scanner.next(&bytes[at..]) {
                Ok(Some(span)) => span,
                Ok(None) => break,
                Err(error) => {
                    self.report_node_error(error.to_string(), error.kind());
                    self.lose(Cause::Protocol, now);
                    break;
                }
            };
            let frame = &bytes[at..at + span.len];
            if matches!(span.verb, Verb::Msg | Verb::Hmsg) {
                node.served = true;
                self.traffic.messages_to_component += 1;
                // The message is counted for its subscription (promise S4).
                let slot = match node.last_slot {
                    Some(slot) if span.repeats => Some(slot),
                    _ => {
                        let sid = server::message_sid(span.args(frame));
                        let slot = self.journal.slot(sid);
                        if slot.is_none() && self.journal.is_surplus(sid) {
                            node.last_slot = None;
                            runs[count] = &bytes[start..at];
                            at += span.len;
                            self.deliver(&runs[..=count], now, wires);
                            (count, start) = (0, at);
                            continue;
                        }
                        slot
                    }
                };
                if self.moving.is_some()
                    && let Some(slot) = slot
                {
                    // Each message is looked at alone, because its payload counts too.
                    node.last_slot = None;
                    let is_copy = self.is_copy(frame, slot);
                    if is_copy {
                        runs[count] = &bytes[start..at];
                        self.deliver(&runs[..=count], now, wires);
                        (count, start) = (0, at + span.len);
                    } else {
                        self.journal.delivered(slot);
                    }
                    at += span.len;
                    continue;
                }
                node.last_slot = slot.filter(|slot| self.journal.delivered(*slot));
                at += span.len;
                if let Some(slot) = node.last_slot.filter(|slot| !self.journal.has_max(*slot)) {
                    let repeated = node.scanner.repeated(&bytes[at..]);
                    self.journal.delivered_again(slot, repeated as u64);
                    self.traffic.messages_to_component += repeated as u64;
                    at += repeated * span.len;
                }
                continue;
            }
            let Some((passes, then)) = self.decide(frame, &span, now) else {
                break;
            };
            if !passes && start < at {
                runs[count] = &bytes[start..at];
                count += 1;
            }
            at += span.len;
            if !passes {
                start = at;
            }
            if count == RUNS_MAX - 1 || !then.is_empty() {
                runs[count] = &bytes[start..at];
                self.deliver(&runs[..=count], now, wires);
                (count, start) = (0, at);
                self.deliver(&[&then], now, wires);
            }
        }
        runs[count] = &bytes[start..at];
        self.deliver(&runs[..=count], now, wires);
        at
    }

    /// Handles a frame that is not a message. Returns whether the component gets it, and the bytes that the component gets
    /// after it or in its place. Returns `None` if the turn's budget is exhausted. Not inlined, which keeps the loop over
    /// messages small.
    #[inline(never)]
    fn decide(&mut self, bytes: &[u8], span: &Span<Verb>, now: Instant) -> Option<(bool, Vec<u8>)> {
        if self.turn_exhausted() {
            return None;
        }
        self.spend(if matches!(span.verb, Verb::Info | Verb::Err) {
            INFO_WORK
        } else {
            1
        });
        let node = self.connection.as_mut()?;
        Some(match server::frame(bytes, span) {
            Ok(Frame::Ping) => {
                // Before CONNECT, a node that wants credentials refuses everything else, also this answer.
                if self.client.is_some() || !node.auth_required {
                    node.own.extend_from_slice(encode::PONG);
                }
                (false, Vec::new())
            }
            Ok(Frame::Pong) => (self.node_pong(now), self.own_answers()),
            Ok(Frame::Ok) => (node.ledger.ok(), node.ledger.own_answers()),
            Ok(Frame::Err(text)) => (self.node_error(text, now), Vec::new()),
            Ok(Frame::Info(json)) => (false, self.later_info(json, now)),
            Ok(Frame::Move(json)) => {
                self.take_step(json, now);
                (false, Vec::new())
            }
            Ok(Frame::Message(_)) | Err(_) => (true, Vec::new()),
        })
    }

    /// Handles a PONG of the node. Returns whether it belongs to the component.
    fn node_pong(&mut self, now: Instant) -> bool {
        let Some(node) = &mut self.connection else {
            return false;
        };
        let (mark, pass) = match node.ledger.pong() {
            Some(Expected::ComponentPong(mark)) => (mark, true),
            Some(Expected::OwnPong(mark)) => (mark, false),
            _ => return false,
        };
        self.doubt.confirm(mark);
        self.journal.confirm(mark.changes);
        node.confirmed_changes = mark.changes;
        if std::mem::take(&mut node.probing) {
            self.events.push(SessionEvent::Alive);
        }
        if node.verified {
            node.served = true;
        } else if self.client.is_some() && mark.connects == self.connects {
            self.joined(now);
        }
        self.forget_copies(now);
        pass
    }

    /// Handles an `-ERR` of the node (promise S9). Returns whether the component gets it unchanged.
    fn node_error(&mut self, text: &[u8], now: Instant) -> bool {
        let refusal = Refusal::of(text);
        self.report_node_error(String::from_utf8_lossy(text).into_owned(), refusal.kind());
        let is_new = self.connection.as_ref().is_some_and(|node| !node.verified);
        let is_accepted = self.client.as_ref().is_some_and(|client| client.accepted);
        let is_held = self.holds_credentials();
        let (mut about_node, mut end) = (None, None);
        match refusal {
            Refusal::Server => about_node = Some("server"),
            // The sidecar has the CONNECT, so the component did not cause the delay.
            Refusal::AuthorizationTimeout if self.client.is_some() => about_node = Some("server"),
            // The component was in its TLS handshake for a part of the node's time for CONNECT. The next node begins anew.
            Refusal::AuthorizationTimeout if self.shortens_login() => about_node = Some("authorization"),
            Refusal::Authorization if is_new && is_accepted || is_held => {
                if let Some(node) = &self.node {
                    let text = String::from_utf8_lossy(text).into_owned();
                    if is_held {
                        self.events.push(SessionEvent::HeldRefused { text: text.clone() });
                    }
                    self.refused_by.push(NodeRefusal {
                        node: node.client.clone(),
                        at: now,
                        text,
                    });
                }
                about_node = Some("authorization");
            }
            Refusal::Authorization | Refusal::AuthorizationTimeout => end = Some(EndReason::Unauthorized),
            Refusal::Client => end = Some(EndReason::Refused),
            // An unknown `-ERR` that leaves the connection open is most likely the answer to a command.
            Refusal::Command | Refusal::Subscription | Refusal::Unknown => {
                self.refused_command(text, refusal);
            }
        }
        if let Some(node) = &mut self.connection {
            node.refused = end.or(node.refused);
        }
        if let Some(kind) = about_node {
            self.lose(Cause::NodeError(kind), now);
        }
        about_node.is_none()
    }

    /// Returns whether nodes get credentials of the sidecar instead of the component's.
    pub(crate) fn holds_credentials(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_held)
    }

    /// Returns whether a part of the node's time for CONNECT has passed in the TLS handshake with the component.
    fn shortens_login(&self) -> bool {
        self.connection.as_ref().is_some_and(|node| node.shortens_login)
    }

    pub(super) fn report_node_error(&mut self, text: String, kind: &'static str) {
        self.events.push(SessionEvent::NodeError { text, kind });
    }

    /// Handles an `-ERR` that answers a command. If it replaces the `+OK`, no `+OK` is expected for the command. A refused
    /// SUB leaves the journal.
    fn refused_command(&mut self, text: &[u8], refusal: Refusal) {
        if self.verbose()
            && replaces_ok(text)
            && let Some(node) = &mut self.connection
        {
            node.ledger.ok();
        }
        if names_too_many_subscriptions(text) {
            self.journal.refuse_newest();
            self.forget_last_slot();
        } else if refusal == Refusal::Subscription
            && let Some((subject, queue)) = refused_subscription(text)
        {
            // The whole journal may be searched.
            self.spend(u32::try_from(self.journal.len() / 64).unwrap_or(u32::MAX));
            self.journal.refuse(subject, queue);
            self.forget_last_slot();
        }
    }

    /// Forgets the subscription of the last message, because it may have ended. The next message is looked up by its sid.
    pub(super) fn forget_last_slot(&mut self) {
        if let Some(node) = &mut self.connection {
            node.last_slot = None;
        }
    }

    /// Returns the sidecar's own answers that are due now.
    pub(super) fn own_answers(&mut self) -> Vec<u8> {
        let node = self.connection.as_mut();
        node.map_or_else(Vec::new, |node| node.ledger.own_answers())
    }

    /// Handles a later INFO of the node. Returns the INFO line for the component; see
    /// [`info_for_component`](Self::info_for_component).
    fn later_info(&mut self, json: &[u8], now: Instant) -> Vec<u8> {
        let Ok(info) = Info::parse(json) else {
            return Vec::new();
        };
        if let Some(reason) = refused_chain(&self.identity.mark, &info.sidecars) {
            self.report_node_error(reason.to_owned(), "loop");
            self.lose(Cause::NodeError("loop"), now);
            return Vec::new();
        }
        self.apply_info(&info);
        self.info_for_component(&info)
    }

    /// Sends `parts`, complete frames, to the component: straight to its socket, or after the bytes that already wait
    /// for it.
    pub(super) fn deliver(&mut self, parts: &[&[u8]], now: Instant, wires: &mut impl Wires) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len == 0 || self.component.broke {
            return;
        }
        self.traffic.bytes_to_component += len as u64;
        let mut written = 0;
        if self.component.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); RUNS_MAX];
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            written = wires.write_component(&slices[..parts.len()]);
            self.component.outbox_moved = now;
        }
        for part in parts {
            let skip = written.min(part.len());
            self.component.outbox.extend_from_slice(&part[skip..]);
            written -= skip;
        }
    }
}
