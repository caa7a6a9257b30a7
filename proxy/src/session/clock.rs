//! All actions of a session that depend only on time.
//!
//! Promise S8: keep-alive is hop by hop. The sidecar sends its own PINGs to the component and to the node.
//!
//! Promise S10: without any node the component stays connected for `outage_secs`; then the connection is closed without an
//! `-ERR`.

use std::time::{Duration, Instant};

use standin_wire::{Info, encode};

use super::connection::{Connection, ConnectionStage, Leaving};
use super::plan::Effects;
use super::{EndReason, Session, Wires};
use crate::cause::Cause;

/// Delay of a tick above which the sidecar itself must have been stopped. Silence then proves nothing about the node.
const OWN_STOP: Duration = Duration::from_millis(500);

/// Time from CONNECT to the first PING to the component; up to a fifth is added, as in `nats-server` 2.9 and 2.15.
/// Some old client libraries look at an `-ERR` only when more bytes arrive, such as this PING.
const FIRST_PING: Duration = Duration::from_secs(2);

/// Time for which a session without a node still waits for the answers to its component, when the component sends nothing more.
/// Without this limit, a component that reconnects again and again in an outage would leave one session behind each time.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

impl Session {
    /// Runs all actions that are due. `late` is the delay of the call after the deadline that the session requested.
    pub(crate) fn tick(&mut self, late: Duration, last_known: &Info, now: Instant, wires: &mut impl Wires) {
        if late > OWN_STOP
            && let Some(node) = &mut self.connection
        {
            node.heard = now;
            node.pinged = now;
        }
        self.tick_ending(now, wires);
        self.forget_copies(now);
        self.tick_node(now, wires);
        if self.connection.as_ref().is_some_and(|node| !node.own.is_empty()) {
            self.push_up(now, wires);
        }
        self.tick_outage(last_known, now, wires);
        // Last, because a PING to the component may have waited for what was just passed on.
        self.tick_component(now, wires);
        self.shrink();
    }

    /// Returns when [`tick`](Self::tick) is due if no other event comes before. Unless the session is over, this is
    /// later than the last tick: a deadline that `tick` does not handle would make the timer fire again and again.
    pub(crate) fn deadline(&self) -> Instant {
        let policy = &*self.policy;
        let stalls_at = self.component.outbox_moved + policy.component_stall;
        let mut deadline = match &self.ending {
            Some(ending) => ending.answers_until.unwrap_or(stalls_at),
            None => self.component_ping_due(),
        };
        let mut sooner = |at: Instant| deadline = deadline.min(at);
        match &self.connection {
            None if self.ending.is_some() => {}
            None => {
                if !policy.outage.is_zero() {
                    sooner(self.searching_since + policy.outage);
                }
                if self.only_awaits_answers {
                    sooner(self.searching_since + ANSWERS_WAIT);
                }
                if self.advertised.is_none() {
                    sooner(self.started + policy.info_wait);
                }
            }
            Some(node) => {
                if let Leaving::Draining { until } = node.leaving {
                    sooner(until);
                }
                let copies = self.moving.as_ref().and_then(|moving| moving.copies());
                let copies = copies.filter(|copies| !copies.is_over);
                if let Some(until) = copies.and_then(|copies| copies.until()) {
                    sooner(until);
                }
                if let Some(at) = node.leaves_unsettled_at() {
                    sooner(at);
                }
                if let ConnectionStage::Joining { until } = node.stage {
                    sooner(until);
                } else if self.is_silence_meaningful(node) {
                    sooner(self.probe_due(node));
                    if let Some(since) = self.doubt.unmarked_since()
                        && !node.awaits_pong()
                    {
                        sooner(since + policy.confirm_interval);
                    }
                }
            }
        }
        if !self.component.outbox.is_empty() {
            sooner(stalls_at);
        }
        if let Some(due) = self.first_ping_due() {
            sooner(due);
        }
        deadline
    }

    /// Sends the node a PING at once, because something other than its silence suggests that it is lost. Sends nothing before the
    /// component's CONNECT: a node that wants credentials refuses a component whose first command is a PING.
    pub(crate) fn probe(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.client.is_some()
            && let Some(node) = &mut self.connection
            && node.stage == ConnectionStage::Flowing
        {
            node.probing = true;
            if node.ping_unless_awaited() {
                self.push_up(now, wires);
            }
        }
    }

    /// Returns whether the node's silence means something. It means nothing before CONNECT, or while the sidecar does not
    /// read from the node, for example because the component does not read.
    fn is_silence_meaningful(&self, node: &Connection) -> bool {
        self.client.is_some() && self.has_room_for_component() && !node.starved && !self.interrupted
    }

    /// Records that the outbox is about to shrink. If it was full, the node was not read, so its silence begins now, and its answers
    /// may have waited.
    pub(super) fn outbox_shrinks(&mut self, now: Instant) {
        if !self.has_room_for_component()
            && let Some(node) = &mut self.connection
        {
            node.heard = now;
            node.pinged = now;
        }
    }

    /// Returns when the node is due for a PING, or counts as lost because it has not answered one.
    fn probe_due(&self, node: &Connection) -> Instant {
        let policy = &*self.policy;
        if node.awaits_pong() {
            let patience = policy.probe_interval + policy.probe_timeout;
            if node.verified {
                (node.heard + patience).max(node.pinged + policy.probe_timeout)
            } else {
                // Until the PONG after CONNECT has come, other bytes do not show that the node works: a working server sends this
                // PONG at once, and little before it.
                node.pinged + patience.max(policy.handshake_timeout)
            }
        } else {
            node.heard.max(node.pinged) + policy.probe_interval
        }
    }

    /// Leaves a node that is silent, or draining, for too long. Sends a PING when one is due.
    fn tick_node(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(node) = &mut self.connection
            && node.leaves_unsettled_at().is_some_and(|at| now >= at)
            && node.settled()
        {
            self.leave();
        }
        let Some(node) = &self.connection else { return };
        let is_joining = matches!(node.stage, ConnectionStage::Joining { .. });
        let is_silence_meaningful = !is_joining && self.is_silence_meaningful(node);
        let is_probe_due = now >= self.probe_due(node);
        let cause = match (node.stage, node.leaving) {
            (ConnectionStage::Joining { until }, _) if now >= until => Some(Cause::ProbeTimeout),
            _ if is_silence_meaningful && is_probe_due && node.awaits_pong() => Some(Cause::ProbeTimeout),
            (_, Leaving::Draining { until }) if now >= until => {
                let goes_on = self.wait_no_longer(now, wires);
                (!goes_on).then_some(Cause::LameDuck)
            }
            _ => None,
        };
        if let Some(cause) = cause {
            self.lose(cause, now);
            self.after_loss(now, wires);
            return;
        }
        let unmarked = self.doubt.unmarked_since();
        let confirms = unmarked.is_some_and(|since| now >= since + self.policy.confirm_interval);
        if is_silence_meaningful
            && (confirms || is_probe_due)
            && let Some(node) = &mut self.connection
            && node.ping_unless_awaited()
        {
            node.pinged = now;
        }
    }

    /// Sends a new component the last known INFO, and ends a session that is without a node for too long.
    fn tick_outage(&mut self, last_known: &Info, now: Instant, wires: &mut impl Wires) {
        if self.connection.is_some() || self.ending.is_some() {
            return;
        }
        if self.advertised.is_none() && now >= self.started + self.policy.info_wait {
            self.send_info(last_known, now, wires);
        }
        if self.only_awaits_answers && now >= self.searching_since + ANSWERS_WAIT {
            self.end_now(EndReason::ComponentClosed);
            return;
        }
        // Closes without an `-ERR`, as a dying server does. Most client libraries then reconnect, but give up for
        // good after an `-ERR` that they do not know (promises S9, S10). With a limit of 0, `no_node` ends the
        // session.
        let outage = self.policy.outage;
        if !outage.is_zero() && now >= self.searching_since + outage {
            self.end_now(EndReason::Outage);
        }
    }

    fn component_ping_due(&self) -> Instant {
        let due = self.component.heard.max(self.component.pinged) + self.policy.ping_interval;
        self.first_ping().map_or(due, |first| due.max(first))
    }

    /// Returns the wait from CONNECT to the first PING. It differs between sessions that began together.
    pub(super) fn first_ping_wait(&self) -> Duration {
        let wait = FIRST_PING.min(self.policy.ping_interval);
        wait + wait / 5 * (self.identity.session_id % 64) as u32 / 64
    }

    /// Returns when the first PING is due. Returns `None` during an orderly end, and until everything from the component
    /// is passed on and answered: client libraries take the first frame after their own first PING as its answer.
    fn first_ping_due(&self) -> Option<Instant> {
        let answers =
            |node: &Connection| node.stage == ConnectionStage::Flowing && !node.ledger.owes_component();
        let answered = self.connection.as_ref().is_some_and(answers) && self.owed.is_empty();
        let is_possible = answered && self.ending.is_none() && self.has_passed_on();
        self.first_ping().filter(|_| is_possible)
    }

    fn first_ping(&self) -> Option<Instant> {
        self.client.as_ref().and_then(|client| client.first_ping)
    }

    /// Closes a component that takes no bytes or answers no PINGs for too long. Sends a PING when one is due.
    fn tick_component(&mut self, now: Instant, wires: &mut impl Wires) {
        let stalls_at = self.component.outbox_moved + self.policy.component_stall;
        let is_stalled = !self.component.outbox.is_empty() && now >= stalls_at;
        match (self.ending.is_some(), is_stalled) {
            (true, true) => return self.component_broke(now, wires),
            (false, true) => return self.end_now(EndReason::ComponentSlow),
            (true, false) => return,
            (false, false) => {}
        }
        let is_first = self.first_ping_due().is_some_and(|due| now >= due);
        if is_first || now >= self.component_ping_due() {
            self.component.pinged = now;
            if let Some(client) = &mut self.client {
                client.first_ping = None;
            }
            if self.component.eof {
                return;
            }
            if self.component.pings >= self.policy.ping_max {
                self.end_now(EndReason::ComponentStale);
            } else {
                self.component.pings += 1;
                self.deliver(&[encode::PING], now, wires);
            }
        }
    }

    /// Finishes an orderly end when all bytes of the component were sent and answered, or at its deadline.
    pub(crate) fn tick_ending(&mut self, now: Instant, wires: &mut impl Wires) {
        let Some(until) = self.answers_until() else { return };
        let settled = |node: &Connection| {
            node.stage == ConnectionStage::Flowing && node.own.is_empty() && node.ledger.is_settled()
        };
        let hopeless = self.connection.is_none() && self.has_passed_on();
        if now >= until || hopeless {
            self.finish_answers(now, wires);
        } else if self.connection.as_ref().is_some_and(settled) && self.has_passed_on() {
            if self.doubt.unmarked_since().is_some() {
                self.own_ping();
                self.push_up(now, wires);
            } else {
                self.finish_answers(now, wires);
            }
        }
    }

    /// Frees buffers that an idle session does not need.
    fn shrink(&mut self) {
        if self.component.held.is_empty() {
            self.component.held = bytes::BytesMut::new();
        }
        if let Some(node) = &mut self.connection
            && node.partial.is_empty()
        {
            node.partial = bytes::BytesMut::new();
        }
        self.effects = Effects::default();
        self.doubt.shrink();
    }
}
