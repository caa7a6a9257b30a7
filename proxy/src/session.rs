//! The session of one component: a state machine without sockets, tasks or clocks of its own.
//!
//! Each input (bytes, a broken socket, a due timer) is a call with the current time. The session writes its output
//! through [`Wires`] in the same call. [`Session::requests`] returns what the session needs from its shell, which owns
//! the sockets. [`Session::report`] returns the events for the operator together with the end of the session, so the
//! end cannot be handled before its causes are reported. A test can run the whole session with two scripted sockets
//! that take any number of bytes.
//!
//! | file | holds |
//! |---|---|
//! | this one | the state, the queries of the shell, how the session ends |
//! | [`connection`] | the connection to the present node: all state that ends with it |
//! | [`component`] | the connection to the component, and its CONNECT |
//! | [`plan`] | component → node: scan the frames at the head, and decide on each |
//! | [`upward`] | component → node: write the bytes unchanged, apply the frames that were written completely |
//! | [`downward`] | node → component: scan, cut out the frames that are not for the component, pass the rest |
//! | [`failover`] | a node is joined, lost or left; replay; publishes sent again |
//! | [`moving`] | a planned move: the next node learns the subscriptions while the present one delivers |
//! | [`copies`] | such a move between nodes that do not know MOVE |
//! | [`clock`] | everything that happens because time passed |
//! | [`connect`] | CONNECT: as the component sent it, and as nodes get it |
//! | [`info`] | INFO: as nodes send it, and as the component gets it |
//! | [`end`] | the end of the session: its reason and its course |
//! | [`room`] | the memory of the session, and the limits on reads |
//! | [`event`] | the events of a session for the operator and the rest of the sidecar |
//! | [`shell`] | the interface between a session and its shell |
//! | `pipes` | sockets in memory, for tests |
//!
//! *Architecture invariant:* a frame takes effect (in the journal, the ledger, the publishes in doubt) when the node's
//! socket has taken its last byte, never earlier. Until then it is in `held`, byte for byte as the component sent it.

mod clock;
mod component;
mod connect;
mod connection;
mod copies;
mod downward;
mod end;
mod event;
mod failover;
mod info;
mod moving;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod pipes;
mod plan;
mod room;
#[cfg(test)]
mod schedules;
mod shell;
#[cfg(test)]
pub(crate) mod tests;
mod upward;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use standin_registry::{Endpoint, Node};
use standin_wire::client::Verb;
use standin_wire::limits::FrameLimits;
use standin_wire::{ClientFault, Info};

use crate::doubt::{Doubt, Mark};
use crate::error_text::ErrorText;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::ledger::Expected;
use crate::listener_policy::ListenerPolicy;
use crate::policy::Policy;
use crate::state_fields::{is_default, time};
use crate::tally::{publishes, unlimited_scanner};
use component::{Client, Component};
use connection::{Connection, ConnectionStage, Hold, Leaving};
pub(crate) use copies::SETTLING;
use end::Ending;
pub(crate) use moving::ArrivalLines;
use moving::LEAVE_ANSWERS;
use moving::Moving;
use plan::Effects;

pub(crate) use component::ClientLabel;
pub use end::EndReason;
pub(crate) use end::SessionEnd;
pub(crate) use event::SessionEvent;
use failover::NodeRefusal;
pub(crate) use failover::{Failover, LossOrigin};
pub(crate) use info::refused_chain;
pub(crate) use shell::{SessionRequests, Traffic, Wires};

/// Limit in bytes on the sidecar's own frames that wait for the node. Above it the node is not read, because each
/// read could add more.
const OWN_BYTES_MAX: usize = 64 * 1024;

/// Budget of one turn of a session, so that no input of a component or a node delays the other sessions of the
/// thread. One unit is about half a microsecond.
const TURN_WORK: u32 = 2048;
/// Cost in these units of a frame that needs its own decision, of a CONNECT, and of an INFO or `-ERR`.
const SINGLE_FRAME_WORK: u32 = 4;
const CONNECT_WORK: u32 = 40;
const INFO_WORK: u32 = 40;

/// The session of one component. Not `Debug`, because the bytes in it may contain secrets. It goes on in the next program;
/// see [`handover`](crate::handover).
#[derive(Serialize, Deserialize)]
pub(crate) struct Session {
    #[serde(skip)]
    policy: Arc<Policy>,
    #[serde(skip)]
    identity: Arc<Identity>,
    component: Component,
    /// `None` before the first CONNECT, which the component sends or the sidecar inserts.
    client: Option<Box<Client>>,
    /// `None` while the session has no node.
    connection: Option<Connection>,
    /// The present node, or the last one.
    node: Option<Arc<Node>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ending: Option<Box<Ending>>,
    journal: Journal,
    #[serde(default, skip_serializing_if = "is_default")]
    doubt: Doubt,
    /// Answers that lost nodes still owed the component, in order.
    #[serde(default, skip_serializing_if = "is_default")]
    owed: VecDeque<Expected>,
    /// The failover to another node. Set from the loss of a node until the next one has taken the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failover: Option<Box<Failover>>,
    /// The present planned move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moving: Option<Box<Moving>>,
    /// Attempts in a row to leave the present node with MOVE that failed.
    #[serde(default, skip_serializing_if = "is_default")]
    failed_moves: u8,
    /// Whether the component sends nothing more, there is no node, and none of the component's remaining frames matters
    /// to other components.
    #[serde(default, skip_serializing_if = "is_default")]
    only_awaits_answers: bool,
    /// CONNECTs written so far, to all nodes.
    connects: u64,
    /// Number of nodes in a row that closed the connection after they got the credentials, which no node has accepted yet.
    #[serde(default, skip_serializing_if = "is_default")]
    closed_unaccepted: u32,
    /// Nodes that refused credentials accepted by another node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused_by: Vec<NodeRefusal>,
    /// The relevant fields of the last INFO sent to the component.
    advertised: Option<info::AdvertisedInfo>,
    /// A later INFO, kept until the component's CONNECT shows whether it accepts later INFOs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending_info: Option<Box<Info>>,
    #[serde(with = "time")]
    started: Instant,
    #[serde(with = "time")]
    searching_since: Instant,
    /// Effects of the frames that are being written.
    #[serde(skip)]
    effects: Effects,
    /// Remaining budget of the present turn.
    #[serde(skip)]
    turn_work: u32,
    /// Whether the turn's budget was exhausted before all input was processed.
    #[serde(default, skip_serializing_if = "is_default")]
    interrupted: bool,
    /// Whether the TLS handshake with the component is not complete.
    #[serde(skip)]
    is_handshaking: bool,
    #[serde(skip)]
    traffic: Traffic,
    #[serde(skip)]
    events: Vec<SessionEvent>,
}

impl Session {
    /// Creates the session of a component that has just connected.
    pub(crate) fn new(policy: Arc<Policy>, identity: Arc<Identity>, now: Instant) -> Self {
        Self {
            component: Component::new(&policy, now),
            policy,
            identity,
            client: None,
            connection: None,
            node: None,
            ending: None,
            journal: Journal::default(),
            doubt: Doubt::default(),
            owed: VecDeque::new(),
            failover: None,
            moving: None,
            failed_moves: 0,
            only_awaits_answers: false,
            connects: 0,
            closed_unaccepted: 0,
            refused_by: Vec::new(),
            advertised: None,
            pending_info: None,
            started: now,
            searching_since: now,
            effects: Effects::default(),
            turn_work: TURN_WORK,
            interrupted: false,
            is_handshaking: false,
            traffic: Traffic::default(),
            events: Vec::new(),
        }
    }

    /// Goes on with a session of the former program. `self` has been read from that program's state.
    pub(crate) fn restored(mut self, policy: Arc<Policy>, identity: Arc<Identity>) -> Self {
        self.journal.index();
        self.identity = identity;
        // Before its limit on control lines was known, the session had that of the former program.
        self.set_policy(policy);
        self.turn_work = TURN_WORK;
        self
    }

    /// Returns what the shell may read and write now.
    pub(crate) fn requests(&self) -> SessionRequests {
        let node = self.connection.as_ref();
        let is_ending = self.ending.is_some();
        let room =
            node.is_some_and(|node| node.incomplete) || self.component.held.len() < self.held_bytes_max();
        let reads_node = |node: &Connection| {
            matches!(node.stage, ConnectionStage::Joining { .. }) || node.own.len() < OWN_BYTES_MAX
        };
        SessionRequests {
            read_component: !self.component.eof && !is_ending && room && !self.interrupted,
            read_node: !self.interrupted && self.has_room_for_component() && node.is_some_and(reads_node),
            write_component: !self.component.outbox.is_empty(),
            write_node: node.is_some_and(|node| node.blocked),
        }
    }

    /// Returns whether the node's connection stays open.
    pub(crate) fn keeps_node(&self) -> bool {
        self.connection.is_some()
    }

    /// Returns whether a node must be dialled: the first one, or another one.
    pub(crate) fn needs_dial(&self) -> bool {
        match &self.connection {
            // An orderly end still waits for a node to take the component's bytes.
            None if self.ending.is_some() => self.answers_until().is_some() && !self.has_passed_on(),
            None => self.end_reason().is_none(),
            Some(node) => node.leaving == Leaving::Dialling,
        }
    }

    /// Returns whether the node that the session leaves is drained. The session can then move to the node dialled meanwhile.
    pub(crate) fn can_switch(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_drained)
    }

    /// Returns the events since the last call. Also returns the end if the session is over; the shell then closes both
    /// sockets.
    pub(crate) fn report(&mut self) -> (Vec<SessionEvent>, Option<SessionEnd>) {
        let ended = self.end_reason().map(|reason| {
            let held = if self.has_passed_on() {
                &[]
            } else {
                &self.component.held[..]
            };
            let mut abandoned = self.doubt.log_tally();
            abandoned.add(&publishes(held));
            SessionEnd {
                reason,
                abandoned_bytes: held.len() + self.doubt.log_bytes(),
                abandoned,
            }
        });
        (std::mem::take(&mut self.events), ended)
    }

    /// Returns the reason for the end of the session, if it is over.
    fn end_reason(&self) -> Option<EndReason> {
        if let Some(ending) = &self.ending {
            let drops_outbox = matches!(ending.reason, EndReason::ComponentSlow | EndReason::Evicted);
            let delivered = self.component.outbox.is_empty() || drops_outbox;
            return (ending.answers_until.is_none() && delivered).then_some(ending.reason);
        }
        let node = self.connection.as_ref();
        let passed_on = self.has_passed_on()
            && node.is_none_or(|node| node.own.is_empty())
            && self.doubt.log_bytes() == 0;
        // A component that has closed only its sending side still reads.
        let owes = node.is_some_and(|node| node.ledger.owes_component()) || !self.owed.is_empty();
        let answered = self.component.broke || !owes && self.component.outbox.is_empty();
        let passed_on = passed_on && answered;
        let new = self.component.held.is_empty() && self.client.is_none();
        let end = if self.component.broke {
            EndReason::ComponentBroke
        } else {
            EndReason::ComponentClosed
        };
        (self.component.eof && (passed_on || new)).then_some(end)
    }

    /// Records that the component's socket broke. The component gets nothing more, but its earlier bytes are passed
    /// on as after an orderly close.
    pub(crate) fn component_broke(&mut self, now: Instant, wires: &mut impl Wires) {
        self.component.broke = true;
        self.outbox_shrinks(now);
        self.component.outbox.clear();
        self.component_eof(now, wires);
    }

    /// Starts the end of the session because the sidecar stops. The component's bytes go to the node, the node's
    /// answers come back, then both connections are closed.
    pub(crate) fn shut_down(&mut self, now: Instant, timeout: Duration, wires: &mut impl Wires) {
        if self.ending.is_none() {
            if let Some(node) = &mut self.connection {
                node.hold = Hold::No;
            }
            self.end_after_answers(EndReason::Shutdown, None, now + timeout);
            self.push_up(now, wires);
        }
    }

    /// Ends the session because its component has sent no command and its place is needed for another one.
    pub(crate) fn evict(&mut self) {
        if self.ending.is_none() {
            self.end_now(EndReason::Evicted);
        }
    }

    /// Records that the TLS handshake with the component has begun or ended.
    pub(crate) fn set_handshaking(&mut self, is_handshaking: bool) {
        self.is_handshaking = is_handshaking;
        if let Some(node) = &mut self.connection {
            node.shortens_login |= is_handshaking;
        }
    }

    /// Replaces the settings.
    pub(crate) fn set_policy(&mut self, policy: Arc<Policy>) {
        let limits = self.component.scanner.limits();
        self.component.scanner.set_limits(FrameLimits {
            line_bytes_max: policy.control_line_bytes_max,
            ..limits
        });
        self.policy = policy;
    }

    /// Returns the settings.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the settings of the component's listener.
    pub(crate) fn listener(&self) -> &ListenerPolicy {
        // A reload keeps the number of listeners.
        &self.policy.listeners[self.identity.listener]
    }

    /// Returns the deadline for the node's last answers, if an orderly end waits for them.
    fn answers_until(&self) -> Option<Instant> {
        self.ending.as_ref()?.answers_until
    }

    /// Returns whether an orderly end has begun.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Replaces the node by an equal one.
    pub(crate) fn share_node(&mut self, shared: impl FnOnce(&Arc<Node>) -> Arc<Node>) {
        self.node = self.node.as_ref().map(shared);
    }

    /// Returns the present node, or the last one.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// Returns the number of live subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        self.journal.len()
    }

    /// Returns the number of publishes now in doubt that would not be sent again.
    pub(crate) fn in_doubt(&self) -> u64 {
        self.doubt.dropped_count()
    }

    /// Returns the time since which the session has no node; `None` while it has one.
    pub(crate) fn searching_since(&self) -> Option<Instant> {
        self.connection.is_none().then_some(self.searching_since)
    }

    /// Returns whether publishes are held until [`release`](Self::release).
    pub(crate) fn is_holding(&self) -> bool {
        self.connection.as_ref().is_some_and(|node| node.hold != Hold::No)
    }

    /// Returns whether the component has sent CONNECT, or another command that makes the sidecar send one.
    pub(crate) fn has_sent_command(&self) -> bool {
        let first = || unlimited_scanner().next(&self.component.held);
        self.client.is_some() || matches!(first(), Ok(Some(frame)) if frame.verb != Verb::Pong)
    }

    /// Returns the nodes that refused credentials accepted by another node.
    pub(crate) fn refused_by(&self) -> Vec<Endpoint> {
        let nodes = self.refused_by.iter().map(|refusal| &refusal.node);
        nodes.cloned().collect()
    }

    /// Returns one word for the state of the session.
    pub(crate) fn state(&self) -> &'static str {
        if self.ending.is_some() {
            return "ending";
        }
        let Some(node) = &self.connection else {
            return "searching";
        };
        match node.stage {
            ConnectionStage::Joining { .. } => "joining",
            ConnectionStage::Resending | ConnectionStage::Flowing if node.hold != Hold::No => "settling",
            ConnectionStage::Resending => "resending",
            ConnectionStage::Flowing if node.leaving != Leaving::No => "leaving",
            ConnectionStage::Flowing if self.client.is_none() => "new",
            ConnectionStage::Flowing => "flowing",
        }
    }

    /// Returns the name, language and version from the CONNECT; `None` before it.
    pub(crate) fn client_label(&self) -> Option<&ClientLabel> {
        self.client.as_ref().map(|client| &client.label)
    }

    /// Begins a new turn and continues with the input that the last turn left.
    pub(crate) fn begin_turn(&mut self, now: Instant, wires: &mut impl Wires) {
        self.turn_work = TURN_WORK;
        if std::mem::take(&mut self.interrupted) {
            // Input of the node may be left from the last turn, so the node does not count as silent.
            if let Some(node) = &mut self.connection {
                node.heard = now;
            }
            self.take_partial(&[], now, wires);
            self.push_up(now, wires);
        }
    }

    /// Returns whether the turn ended before all available input was processed.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Takes `work` from the turn's budget. When the budget is exhausted, the caller stops at the next frame.
    fn spend(&mut self, work: u32) {
        self.turn_work = self.turn_work.saturating_sub(work);
    }

    /// Returns whether the turn's budget is exhausted; the session then requests another turn.
    fn turn_exhausted(&mut self) -> bool {
        self.interrupted |= self.turn_work == 0;
        self.turn_work == 0
    }

    /// Returns the traffic since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Returns the mark for a PING that is sent now.
    fn mark(&mut self) -> Mark {
        Mark {
            changes: self.journal.changes(),
            connects: self.connects,
            ..self.doubt.mark()
        }
    }

    /// Returns whether the component wants a `+OK` for each command. This is the default before CONNECT.
    fn verbose(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.verbose)
    }

    /// Starts the orderly end. A `fault` of the component is sent as `-ERR` once the node has sent its last answers, or at
    /// `until`.
    fn end_after_answers(&mut self, reason: EndReason, fault: Option<ClientFault>, until: Instant) {
        self.ending = Some(Box::new(Ending {
            reason,
            fault,
            answers_until: Some(until),
        }));
        self.own_ping();
    }

    /// Ends the session as soon as the component's socket has taken the bytes that wait for it, or at once if
    /// the component is too slow.
    fn end_now(&mut self, reason: EndReason) {
        self.ending = Some(Box::new(Ending {
            reason,
            fault: None,
            answers_until: None,
        }));
    }

    /// Sends an `-ERR` to the component.
    fn send_error(&mut self, kind: &'static str, text: ErrorText<'_>, now: Instant, wires: &mut impl Wires) {
        let mut line = Vec::new();
        text.encode(&mut line);
        self.deliver(&[&line], now, wires);
        self.events.push(SessionEvent::ComponentError {
            text: text.as_str().to_owned(),
            kind,
        });
    }

    /// Ends the wait for the node's last answers, and sends the `-ERR` that comes after them.
    fn finish_answers(&mut self, now: Instant, wires: &mut impl Wires) {
        let Some(ending) = &mut self.ending else { return };
        ending.answers_until = None;
        if let Some(fault) = ending.fault.take() {
            let kind = ending.reason.fault_kind();
            self.send_error(kind, ErrorText::Fault(fault), now, wires);
        }
    }
}
