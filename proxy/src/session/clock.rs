//! All actions of a session that depend only on time.

use std::time::{Duration, Instant};

use standin_wire::{Info, encode};

use super::{End, Leaving, Session, Stage, Wires};
use crate::cause::Cause;
use crate::tally::Tally;

/// Delay of a tick above which the sidecar itself must have been stopped. Silence then proves nothing about the node.
const OWN_STOP: Duration = Duration::from_millis(500);

/// Time from CONNECT to the first PING to the component; up to a fifth is added, as in `nats-server` 2.9 and 2.15.
/// Some old client libraries look at an `-ERR` only when more bytes arrive.
const FIRST_PING: Duration = Duration::from_secs(2);

/// Time for which a component that sends nothing more is kept without a node only for its answers. Without this
/// limit, a component that reconnects again and again in an outage would leave a session each time.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

impl Session {
    /// Runs all actions that are due. `late` is the delay of the call after the deadline that the session requested.
    pub(crate) fn tick(&mut self, late: Duration, last_known: &Info, now: Instant, wires: &mut impl Wires) {
        if late > OWN_STOP {
            self.node_heard = now;
            self.pinged = now;
        }
        self.tick_ending(now, wires);
        self.tick_node(now, wires);
        self.tick_outage(last_known, now, wires);
        self.tick_component(now, wires);
        if !self.up.own.is_empty() {
            self.push_up(now, wires);
        }
        self.shrink();
    }

    /// Returns when [`tick`](Self::tick) is due if no other event comes before.
    pub(crate) fn deadline(&self) -> Instant {
        let policy = &*self.policy;
        let mut deadline = self.component_ping_due();
        let mut sooner = |at: Instant| deadline = deadline.min(at);
        if let Some(until) = self.ending.as_ref().and_then(|ending| ending.answers_until) {
            sooner(until);
        }
        if let Leaving::Draining { until } = self.leaving {
            sooner(until);
        }
        match self.stage {
            Stage::Searching => {
                if !policy.outage.is_zero() {
                    sooner(self.searching_since + policy.outage);
                }
                if self.up.only_asks && self.ending.is_none() {
                    sooner(self.searching_since + ANSWERS_WAIT);
                }
                if self.info.is_none() {
                    sooner(self.started + policy.info_wait);
                }
            }
            Stage::Joining { until } => sooner(until),
            Stage::Resending | Stage::Flowing => {
                if self.listens() {
                    sooner(self.probe_due());
                }
                if let Some(since) = self.doubt.unmarked_since()
                    && !self.ledger.awaits_pong()
                {
                    sooner(since + policy.confirm_interval);
                }
            }
        }
        if !self.down.outbox.is_empty() {
            sooner(self.down.outbox_moved + policy.component_stall);
        }
        if let Some(due) = self.first_ping_due() {
            sooner(due);
        }
        deadline
    }

    /// Sends the node a PING at once, because something other than its silence suggests that it is gone.
    pub(crate) fn probe(&mut self, now: Instant, wires: &mut impl Wires) {
        self.probing = self.stage == Stage::Flowing;
        if self.probing && !self.ledger.awaits_pong() {
            self.own_ping();
            self.push_up(now, wires);
        }
    }

    /// Returns whether the node's silence means something. It means nothing while the node is not read because the
    /// component does not read.
    fn listens(&self) -> bool {
        self.client.is_some() && self.hears_node() && !self.interrupted
    }

    /// Returns when the node is due for a PING, or counts as lost because it has not answered one.
    fn probe_due(&self) -> Instant {
        let policy = &*self.policy;
        if self.ledger.awaits_pong() || self.up.own_pings > 0 {
            let silent = self.node_heard + policy.probe_interval + policy.probe_timeout;
            silent.max(self.pinged + policy.probe_timeout)
        } else {
            self.node_heard.max(self.pinged) + policy.probe_interval
        }
    }

    fn tick_node(&mut self, now: Instant, wires: &mut impl Wires) {
        match self.stage {
            Stage::Searching => return,
            Stage::Joining { until } if now >= until => self.lose(Cause::ProbeTimeout, now),
            Stage::Joining { .. } => {}
            Stage::Resending | Stage::Flowing if self.listens() => {
                let awaits = self.ledger.awaits_pong() || self.up.own_pings > 0;
                let unmarked = self.doubt.unmarked_since();
                let confirm = unmarked.is_some_and(|since| now >= since + self.policy.confirm_interval);
                if awaits && now >= self.probe_due() {
                    self.lose(Cause::ProbeTimeout, now);
                } else if !awaits && (confirm || now >= self.probe_due()) {
                    self.own_ping();
                    self.pinged = now;
                }
            }
            Stage::Resending | Stage::Flowing => {}
        }
        if let Leaving::Draining { until } = self.leaving
            && now >= until
        {
            self.lose(Cause::LameDuck, now);
        }
        if self.stage == Stage::Searching {
            self.after_loss(now, wires);
        }
    }

    fn tick_outage(&mut self, last_known: &Info, now: Instant, wires: &mut impl Wires) {
        if self.stage != Stage::Searching || self.ending.is_some() {
            return;
        }
        if self.info.is_none() && now >= self.started + self.policy.info_wait {
            self.greet(last_known, now, wires);
        }
        if self.up.only_asks && now >= self.searching_since + ANSWERS_WAIT {
            self.end_now(End::ComponentClosed, None, now, wires);
            return;
        }
        // Closes without an `-ERR`, as a dying server does. Most client libraries then reconnect, but give up for
        // good after an `-ERR` that they do not know (promises S9, S10). With a limit of 0, `no_node` ends the
        // session.
        let outage = self.policy.outage;
        if !outage.is_zero() && now >= self.searching_since + outage {
            self.end_now(End::Outage, None, now, wires);
        }
    }

    fn component_ping_due(&self) -> Instant {
        let due = self.component_heard.max(self.component_pinged) + self.policy.ping_interval;
        self.first_ping().map_or(due, |first| due.max(first))
    }

    /// Returns the wait from CONNECT to the first PING. It differs between sessions that began together.
    pub(super) fn first_ping_wait(&self) -> Duration {
        let wait = FIRST_PING.min(self.policy.ping_interval);
        wait + wait / 5 * (self.face.session_id % 64) as u32 / 64
    }

    /// Returns when the first PING is due. Returns `None` until everything from the component is passed on and
    /// answered: client libraries take the first frame after their own first PING as its answer.
    fn first_ping_due(&self) -> Option<Instant> {
        let answered = self.stage == Stage::Flowing && !self.ledger.owes_component() && self.owed.is_empty();
        self.first_ping().filter(|_| answered && self.has_passed_on())
    }

    fn first_ping(&self) -> Option<Instant> {
        self.client.as_ref().and_then(|client| client.first_ping)
    }

    fn tick_component(&mut self, now: Instant, wires: &mut impl Wires) {
        if self.ending.is_some() {
            if !self.down.outbox.is_empty() && now >= self.down.outbox_moved + self.policy.component_stall {
                self.component_broke(now, wires);
            }
            return;
        }
        if !self.down.outbox.is_empty() && now >= self.down.outbox_moved + self.policy.component_stall {
            self.end_now(End::ComponentSlow, None, now, wires);
            return;
        }
        let is_first = self.first_ping_due().is_some_and(|due| now >= due);
        if is_first || now >= self.component_ping_due() {
            self.component_pinged = now;
            if let Some(client) = &mut self.client {
                client.first_ping = None;
            }
            if self.up.eof {
                return;
            }
            if self.component_pings >= self.policy.ping_max {
                self.end_now(End::ComponentStale, None, now, wires);
            } else {
                self.component_pings += 1;
                self.deliver(&[encode::PING], now, wires);
            }
        }
    }

    /// Finishes an orderly end when all bytes of the component were sent and answered, or at its deadline.
    pub(crate) fn tick_ending(&mut self, now: Instant, wires: &mut impl Wires) {
        let Some(until) = self.ending.as_ref().and_then(|ending| ending.answers_until) else {
            return;
        };
        let sent = self.stage == Stage::Flowing && self.up.own.is_empty() && self.has_passed_on();
        let hopeless = self.stage == Stage::Searching && self.has_passed_on();
        if now >= until || hopeless {
            self.finish_answers(now, wires);
        } else if sent && self.ledger.is_settled() {
            if self.doubt.unmarked_since().is_some() {
                self.own_ping();
                self.push_up(now, wires);
            } else {
                self.finish_answers(now, wires);
            }
        }
    }

    /// Frees buffers and the remembered control line of an idle session.
    fn shrink(&mut self) {
        if self.up.held.is_empty() && self.up.held.capacity() > 0 {
            self.up.held = bytes::BytesMut::new();
        }
        if self.down.partial.is_empty() && self.down.partial.capacity() > 0 {
            self.down.partial = bytes::BytesMut::new();
        }
        self.up.subjects = Tally::default();
        self.doubt.shrink();
    }
}
