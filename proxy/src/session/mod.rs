//! One component's session: the state machine of the product, without sockets, tasks or clocks of its own.
//!
//! Events come in as calls with the time they happened at; what is to be written goes out through [`Wires`] in the same
//! call; what the shell must do is asked with [`Session::wants`]; what an operator should hear, and that the session is over,
//! come together from [`Session::report`], so that no end can be acted on before what led to it was told. So all of it runs in a test under a scripted pair of sockets that take as many bytes as the
//! test pleases.
//!
//! | file | holds |
//! |---|---|
//! | this one | the state, the questions of the shell, the ends |
//! | [`plan`] | component → node: scan, and decide what becomes of the frames at the head |
//! | [`upward`] | component → node: write the same bytes on, apply what was written whole |
//! | [`downward`] | node → component: scan, carve out what is not for the component, pass the rest |
//! | [`moving`] | a node comes, goes, or is about to go; replay and sending again |
//! | [`clock`] | everything that happens because time passed |
//! | [`connect`] | CONNECT: as the component says it, and as nodes get it |
//! | [`face`] | what the component sees of the cluster |
//! | [`shell`] | what passes between a session and its shell |
//!
//! *Architecture invariant:* a frame takes effect (journal, ledger, window in doubt) when its last byte was taken by the
//! node's socket, never earlier. What has had no effect is still in `held`, byte for byte as the component sent it.

mod clock;
mod connect;
mod downward;
mod face;
mod moving;
mod plan;
#[cfg(test)]
mod schedules;
mod shell;
#[cfg(test)]
pub(crate) mod tests;
mod upward;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use standin_registry::{Endpoint, Node};
use standin_wire::limits::FrameLimits;
use standin_wire::{ClientFault, Info};

use crate::cause::Cause;
use crate::doubt::{Doubt, InDoubtCount, Mark};
use crate::error_text::ErrorText;
use crate::journal::{Journal, Slot};
use crate::ledger::{Ledger, Owed};
use crate::policy::Policy;
use crate::tally::{Tally, publishes};

pub(crate) use face::{Face, refused_chain};
pub use shell::End;
pub(crate) use shell::{Blame, ClientLabel, Ended, Move, Note, Traffic, Wants, Wires};

/// Frames of the sidecar's own that wait for the node, in bytes, above which the node is not read: it would only ask for more.
const OWN_BYTES_MAX: usize = 64 * 1024;

/// So many bytes are read at least where the beginning or the rest of a frame is: a control line fits, and a busy session gets on.
const LEAST_BYTES: usize = 4096;

/// Work that one turn of a session may do, so that nothing that a component or a node sends holds up the other sessions of
/// the thread. One unit is about half a microsecond.
const TURN_WORK: u32 = 2048;
/// What is spent on a frame that is decided alone, on a CONNECT, and on an INFO or `-ERR`, in these units.
const ALONE_WORK: u32 = 4;
const CONNECT_WORK: u32 = 40;
const NOTED_WORK: u32 = 40;

/// Where the session stands with its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No node.
    Searching,
    /// The journal is being replayed; nothing of the component's passes before the node's PONG.
    Joining { until: Instant },
    /// Publishes in doubt and unanswered PINGs are being sent again.
    Resending,
    /// The component's bytes pass.
    Flowing,
}

/// The way to the next node while the present one is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Another connection is being dialled.
    Dialling,
    /// It is there; nothing more goes to the old node, whose last answers are awaited.
    Draining {
        until: Instant,
    },
}

/// Whether publishes are stopped after a node was lost (promise S10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// They pass.
    No,
    /// Stopped, and the node has not answered all that comes before the first of them.
    Away,
    /// Stopped, and the node has.
    Back,
}

/// How a session ends in order.
#[derive(Debug)]
struct Ending {
    end: End,
    /// The `-ERR` that tells the component what it did wrong.
    fault: Option<ClientFault>,
    /// Until when the node's answers are awaited before that; `None`: they are not, or no longer.
    answers_until: Option<Instant>,
}

/// Bytes that a node gets in place of the component's own.
#[derive(Debug)]
struct Replacement {
    /// Length of the frame they replace; 0: they are put in before it.
    len: usize,
    with: Vec<u8>,
}

/// Component → node.
#[derive(Debug)]
struct Up {
    scanner: standin_wire::ClientScanner,
    /// The component's bytes from the first frame on that was not written whole.
    held: BytesMut,
    /// Bytes of that frame (or of what replaces it) that the present node has.
    head_written: usize,
    /// What the node gets instead of that frame.
    replacement: Option<Replacement>,
    /// Frames of the sidecar's own. They go out between the component's frames, before the next one.
    own: BytesMut,
    /// PINGs in `own` that stand in no ledger yet.
    own_pings: u32,
    /// Publishes are being sent again, and the node has part of one.
    resent_partly: bool,
    /// The node's socket took less than it was given.
    blocked: bool,
    /// The first frame in `held` is not whole.
    incomplete: bool,
    /// The component sends nothing more.
    eof: bool,
    /// Nor is anything left of it, while there is no node, that anybody but itself would miss.
    only_asks: bool,
    /// The publishes of the frames that are being written.
    subjects: Tally,
}

/// Node → component.
#[derive(Debug)]
struct Down {
    scanner: standin_wire::ServerScanner,
    /// The beginning of a frame whose rest has not come. Never shown to the component (promise S1).
    partial: BytesMut,
    /// Whole frames that the component has not taken.
    outbox: BytesMut,
    /// The component's socket takes nothing any more.
    broke: bool,
    /// See [`Session::set_node_starved`].
    starved: bool,
    /// When the component last took bytes, or the outbox began to fill.
    outbox_moved: Instant,
    /// Journal entry of the last message, for messages that repeat its control line.
    last_slot: Option<Slot>,
}

/// The component as its CONNECT describes it.
#[derive(Debug)]
struct Client {
    /// The argument of CONNECT as the component said it.
    json: Box<str>,
    verbose: bool,
    /// May send HPUB.
    headers: bool,
    /// Takes INFO at any time.
    takes_info: bool,
    signed: bool,
    /// A node has accepted these credentials.
    accepted: bool,
    /// The component has said CONNECT itself.
    said_connect: bool,
    /// When it gets its first PING, whatever it sends; `None` when it has had one.
    first_ping: Option<Instant>,
    /// For people.
    label: ClientLabel,
}

/// A loss whose move is not finished.
#[derive(Debug)]
struct Lost {
    at: Instant,
    /// When the lost node last sent anything.
    heard: Instant,
    from: Arc<Node>,
    cause: Cause,
    in_doubt: InDoubtCount,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Session {
    policy: Arc<Policy>,
    face: Arc<Face>,
    stage: Stage,
    leaving: Leaving,
    ending: Option<Ending>,
    node: Option<Arc<Node>>,
    up: Up,
    down: Down,
    journal: Journal,
    ledger: Ledger,
    doubt: Doubt,
    client: Option<Box<Client>>,
    /// Answers that the last node owed, to be asked of the next.
    owed: VecDeque<Owed>,
    /// Up to which place of the log `+OK`s are already expected.
    resend_expected: u64,
    lost: Option<Box<Lost>>,
    /// CONNECTs written so far, to all nodes.
    connects: u64,
    /// The present node has answered a PING behind the last of them.
    verified: bool,
    /// The present node asks for credentials.
    asks_auth: bool,
    /// Nodes in a row that closed the connection behind credentials that none has accepted yet.
    closed_unaccepted: u32,
    /// Nodes that refused credentials which another had accepted, when, and in which words.
    refused_by: Vec<(Endpoint, Instant, String)>,
    /// Whether publishes are stopped.
    hold: Hold,
    /// Changes of the journal that the present node has confirmed.
    confirmed_changes: u64,
    /// A node said that the component did something after which it closes the connection.
    refused: Option<End>,
    /// What it was told by the INFO that it has.
    info: Option<face::Told>,
    /// A later INFO, while it is not known whether the component takes one.
    untold_info: Option<Box<Info>>,
    started: Instant,
    searching_since: Instant,
    /// The present node has done something for the session since it took it: delivered a message, or answered.
    served: bool,
    /// Since when it is the present node.
    node_since: Instant,
    /// When the node last sent anything.
    node_heard: Instant,
    /// When the last own PING went out.
    pinged: Instant,
    /// When the component last sent anything, and was last sent a PING.
    component_heard: Instant,
    component_pinged: Instant,
    component_pings: u32,
    moves: u64,
    /// Work that the present turn may still do.
    turn_work: u32,
    /// The turn's work was done before all that had come.
    interrupted: bool,
    traffic: Traffic,
    notes: Vec<Note>,
}

impl Session {
    /// A session for a component that has just connected.
    pub(crate) fn new(policy: Arc<Policy>, face: Arc<Face>, now: Instant) -> Self {
        let limits = FrameLimits {
            line_bytes_max: policy.control_line_bytes_max,
            ..FrameLimits::CLIENT
        };
        Self {
            policy,
            face,
            stage: Stage::Searching,
            leaving: Leaving::No,
            ending: None,
            node: None,
            up: Up {
                scanner: standin_wire::ClientScanner::new(limits),
                held: BytesMut::new(),
                head_written: 0,
                replacement: None,
                own: BytesMut::new(),
                own_pings: 0,
                resent_partly: false,
                blocked: false,
                incomplete: false,
                eof: false,
                only_asks: false,
                subjects: Tally::default(),
            },
            down: Down {
                scanner: standin_wire::ServerScanner::new(FrameLimits::SERVER),
                partial: BytesMut::new(),
                outbox: BytesMut::new(),
                broke: false,
                starved: false,
                outbox_moved: now,
                last_slot: None,
            },
            journal: Journal::default(),
            ledger: Ledger::default(),
            doubt: Doubt::default(),
            client: None,
            owed: VecDeque::new(),
            resend_expected: 0,
            lost: None,
            connects: 0,
            verified: false,
            asks_auth: false,
            closed_unaccepted: 0,
            refused_by: Vec::new(),
            hold: Hold::No,
            confirmed_changes: 0,
            refused: None,
            info: None,
            untold_info: None,
            started: now,
            searching_since: now,
            served: false,
            node_since: now,
            node_heard: now,
            pinged: now,
            component_heard: now,
            component_pinged: now,
            component_pings: 0,
            moves: 0,
            turn_work: TURN_WORK,
            interrupted: false,
            traffic: Traffic::default(),
            notes: Vec::new(),
        }
    }

    /// What the shell should do next.
    pub(crate) fn wants(&self) -> Wants {
        let linked = self.stage != Stage::Searching;
        let joining = matches!(self.stage, Stage::Joining { .. });
        let ending = self.ending.is_some();
        let room = self.up.held.len() < self.policy.buffer_bytes || (self.up.incomplete && linked);
        Wants {
            read_component: !self.up.eof && !ending && room && !self.interrupted,
            read_node: linked
                && !self.interrupted
                && self.has_room_for_component()
                && (joining || self.up.own.len() < OWN_BYTES_MAX),
            write_component: !self.down.outbox.is_empty(),
            write_node: linked && self.up.blocked,
            keep_node: linked,
            dial: !linked && (!ending || self.may_still_pass_on()) && self.over().is_none()
                || self.leaving == Leaving::Dialling,
            switch: self.is_drained(),
        }
    }

    /// What happened since the last call, and whether the session is over by it: then the shell closes both sockets in order.
    pub(crate) fn report(&mut self) -> (Vec<Note>, Option<Ended>) {
        let ended = self.over().map(|end| {
            let held = if self.has_passed_on() {
                &[]
            } else {
                &self.up.held[..]
            };
            let mut abandoned = self.doubt.log_tally();
            abandoned.add(&publishes(held));
            Ended {
                end,
                abandoned_bytes: held.len() + self.doubt.log_bytes(),
                abandoned,
            }
        });
        (std::mem::take(&mut self.notes), ended)
    }

    /// Why the session is over, if it is.
    fn over(&self) -> Option<End> {
        if let Some(ending) = &self.ending {
            let delivered = self.down.outbox.is_empty() || ending.end == End::ComponentSlow;
            return (ending.answers_until.is_none() && delivered).then_some(ending.end);
        }
        let passed_on = self.has_passed_on() && self.up.own.is_empty() && self.doubt.log_bytes() == 0;
        // A component that has closed only its sending side still reads.
        let owes = self.ledger.owes_component() || !self.owed.is_empty();
        let answered = self.down.broke || !owes && self.down.outbox.is_empty();
        let passed_on = passed_on && answered;
        let new = self.up.held.is_empty() && self.client.is_none();
        let end = if self.down.broke {
            End::ComponentBroke
        } else {
            End::ComponentClosed
        };
        (self.up.eof && (passed_on || new)).then_some(end)
    }

    /// The component's socket broke: it gets nothing more, but what it had sent is passed on as after an orderly close.
    pub(crate) fn component_broke(&mut self, now: Instant, wires: &mut impl Wires) {
        self.down.broke = true;
        self.down.outbox.clear();
        self.component_eof(now, wires);
    }

    /// The sidecar stops: what the component has sent goes to the node, the node's answers come back, then both
    /// connections are closed.
    pub(crate) fn shut_down(&mut self, now: Instant, patience: Duration, wires: &mut impl Wires) {
        if self.ending.is_none() {
            self.hold = Hold::No;
            self.end_after_answers(End::Shutdown, None, now + patience);
            self.push_up(now, wires);
        }
    }

    /// Other settings from now on.
    pub(crate) fn set_policy(&mut self, policy: Arc<Policy>) {
        let limits = self.up.scanner.limits();
        self.up.scanner.set_limits(FrameLimits {
            line_bytes_max: policy.control_line_bytes_max,
            ..limits
        });
        self.policy = policy;
    }

    /// Whether what waits for the component is below the session's own limit.
    fn has_room_for_component(&self) -> bool {
        self.down.outbox.len() < self.policy.component_pending_bytes_max
    }

    /// Whether the node is read; if not, its silence means nothing.
    fn hears_node(&self) -> bool {
        self.has_room_for_component() && !self.down.starved
    }

    /// The node is not read now, for want of room in the buffers of all sessions.
    pub(crate) const fn set_node_starved(&mut self, starved: bool) {
        self.down.starved = starved;
    }

    /// Whether an orderly end still waits for a node that takes what the component has sent.
    fn may_still_pass_on(&self) -> bool {
        self.ending
            .as_ref()
            .is_some_and(|ending| ending.answers_until.is_some())
            && !self.has_passed_on()
    }

    /// How many bytes of the component may be read even when all sessions' buffers together are full. The rest of a frame
    /// always may, because it lets the frame go; and a session that keeps nothing may go on, a little at a time.
    pub(crate) fn least_component_bytes(&self) -> usize {
        if self.up.incomplete {
            self.up.scanner.missing(&self.up.held).max(LEAST_BYTES)
        } else if self.buffered_bytes() == 0 {
            LEAST_BYTES
        } else {
            0
        }
    }

    /// As [`least_component_bytes`](Self::least_component_bytes), of the node.
    pub(crate) fn least_node_bytes(&self) -> usize {
        if !self.down.outbox.is_empty() {
            0
        } else if self.down.partial.is_empty() {
            LEAST_BYTES
        } else {
            self.down.scanner.missing(&self.down.partial).max(LEAST_BYTES)
        }
    }

    /// How many bytes may be read of the component at once, so that no more are kept than `buffer_bytes`. The rest of a frame
    /// whose beginning the node waits for may always come.
    pub(crate) fn read_bytes_max(&self) -> usize {
        if self.up.incomplete && self.stage != Stage::Searching {
            return usize::MAX;
        }
        self.policy.buffer_bytes.saturating_sub(self.up.held.len()).max(1)
    }

    /// Whether an orderly end has begun.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The node in use.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// Live subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        self.journal.len()
    }

    /// Bytes kept in memory for later, all buffers together.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.up.held.len()
            + self.up.own.len()
            + self.down.partial.len()
            + self.down.outbox.len()
            + self.doubt.log_bytes()
    }

    /// Publishes in doubt now that would not be sent again.
    pub(crate) fn in_doubt(&self) -> u64 {
        self.doubt.dropped_count()
    }

    /// Since when the session has no node; `None` while it has one.
    pub(crate) fn searching_since(&self) -> Option<Instant> {
        (self.stage == Stage::Searching).then_some(self.searching_since)
    }

    /// Whether publishes are stopped until [`release`](Self::release).
    pub(crate) fn is_holding(&self) -> bool {
        self.hold != Hold::No
    }

    /// Whether the component has said anything that no node has answered yet, or has said CONNECT.
    pub(crate) fn has_spoken(&self) -> bool {
        self.client.is_some() || !self.up.held.is_empty()
    }

    /// The nodes that refused credentials which another had accepted.
    pub(crate) fn refused_by(&self) -> Vec<Endpoint> {
        self.refused_by.iter().map(|(node, ..)| node.clone()).collect()
    }

    /// Finished moves.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// One word for where the session stands.
    pub(crate) fn state(&self) -> &'static str {
        match self.stage {
            _ if self.ending.is_some() => "ending",
            Stage::Searching => "searching",
            Stage::Joining { .. } => "joining",
            Stage::Resending | Stage::Flowing if self.is_holding() => "settling",
            Stage::Resending => "resending",
            Stage::Flowing if self.leaving != Leaving::No => "leaving",
            Stage::Flowing if self.client.is_none() => "new",
            Stage::Flowing => "flowing",
        }
    }

    /// What the component calls itself; `None` before its CONNECT.
    pub(crate) fn client_label(&self) -> Option<&ClientLabel> {
        self.client.as_ref().map(|client| &client.label)
    }

    /// A new turn of the session: goes on with what the last one left.
    pub(crate) fn begin_turn(&mut self, now: Instant, wires: &mut impl Wires) {
        self.turn_work = TURN_WORK;
        if std::mem::take(&mut self.interrupted) {
            self.take_partial(&[], now, wires);
            self.push_up(now, wires);
        }
    }

    /// Whether the turn is over before all was done that could be done now.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Takes `work` from what the turn may still do. When nothing is left, the caller stops at the next frame.
    fn spend(&mut self, work: u32) {
        self.turn_work = self.turn_work.saturating_sub(work);
    }

    /// Whether the turn's work is done; then the session asks for another turn.
    fn turn_exhausted(&mut self) -> bool {
        self.interrupted |= self.turn_work == 0;
        self.turn_work == 0
    }

    /// What passed since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// How far the stream has come, for a PING that goes out now.
    fn mark(&mut self) -> Mark {
        Mark {
            changes: self.journal.changes(),
            connects: self.connects,
            ..self.doubt.mark()
        }
    }

    fn verbose(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.verbose)
    }

    /// Starts the orderly end: `fault` is sent as `-ERR` as soon as the node has given its last answers, or at `until`.
    fn end_after_answers(&mut self, end: End, fault: Option<ClientFault>, until: Instant) {
        self.ending = Some(Ending {
            end,
            fault,
            answers_until: Some(until),
        });
        self.own_ping();
    }

    /// Ends now, with `text` as `-ERR` behind what the component has not read yet.
    fn end_now(&mut self, end: End, text: Option<ErrorText<'_>>, now: Instant, wires: &mut impl Wires) {
        self.ending = Some(Ending {
            end,
            fault: None,
            answers_until: None,
        });
        if let Some(text) = text {
            let kind = if let End::ComponentProtocol(kind) = end {
                kind
            } else {
                end.as_str()
            };
            self.tell_error(kind, text, now, wires);
        }
    }

    /// Sends an `-ERR`.
    fn tell_error(&mut self, kind: &'static str, text: ErrorText<'_>, now: Instant, wires: &mut impl Wires) {
        let mut line = Vec::new();
        text.encode(&mut line);
        self.deliver(&[&line], now, wires);
        self.notes.push(Note::ComponentError {
            text: text.as_str().to_owned(),
            kind,
        });
    }

    /// The node's last answers are there, or will not come.
    fn finish_answers(&mut self, now: Instant, wires: &mut impl Wires) {
        let Some(ending) = &mut self.ending else { return };
        if ending.answers_until.take().is_some() {
            let (end, fault) = (ending.end, ending.fault.take());
            self.end_now(end, fault.map(ErrorText::Fault), now, wires);
        }
    }
}
