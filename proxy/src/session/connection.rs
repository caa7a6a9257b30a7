//! The connection to the present node, as one value.
//!
//! Everything that must not outlive the connection is in [`Connection`]: its stage, the answers that the node owes,
//! frames written or read in part, clocks. When the session moves, the value is dropped, so nothing of it reaches the
//! next node. What outlives a node (journal, publishes in doubt, held bytes, the component) is in
//! [`Session`](super::Session).

use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use standin_wire::client::Verb;
use standin_wire::limits::FrameLimits;
use standin_wire::{Info, ServerScanner, Span, encode};

use super::end::EndReason;
use crate::journal::Slot;
use crate::ledger::{Expected, Ledger};
use crate::state_fields::{is_default, time};

/// Longest wait for a node to settle a session that has moved there and is to leave again.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// A node that has answered and kept the session for this long has served it, even without traffic.
const SERVES_AFTER: Duration = Duration::from_millis(250);

/// Progress of the session on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ConnectionStage {
    /// The journal is being replayed. No bytes of the component pass before the node's PONG.
    Joining {
        #[serde(with = "time")]
        until: Instant,
    },
    /// Publishes in doubt and unanswered PINGs are being sent again.
    Resending,
    /// The component's bytes pass.
    Flowing,
}

/// Progress of the change to another node while the present one is still connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Leaving {
    #[default]
    No,
    /// Another node is being dialled.
    Dialling,
    /// The next connection is ready. Nothing more is sent to the old node; the session waits for its last answers.
    Draining {
        #[serde(with = "time")]
        until: Instant,
    },
    /// The next node learns the subscriptions; see [`moving`](super::moving).
    Arriving,
}

/// Whether publishes are held after the loss of a node (promise S10).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hold {
    /// Publishes pass.
    #[default]
    No,
    /// Publishes are held, and the node has not yet answered everything before the first of them.
    Away,
    /// Publishes are held, and the node has answered everything before the first of them.
    Back,
}

/// Bytes that a node gets in place of a frame of the component. Not `Debug`, because they may contain secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct Replacement {
    /// The replaced frame. `None` if the bytes are a CONNECT inserted before the frame.
    pub(super) span: Option<Span<Verb>>,
    #[serde(with = "serde_bytes")]
    pub(super) with: Vec<u8>,
}

impl Replacement {
    /// Returns whether the bytes are a CONNECT.
    pub(super) fn is_connect(&self) -> bool {
        self.span.is_none_or(|span| span.verb == Verb::Connect)
    }

    /// Returns the length of the replaced frame; 0 for an insertion.
    pub(super) fn replaced_bytes(&self) -> usize {
        self.span.map_or(0, |span| span.len)
    }
}

/// The text that a node wants to be signed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Nonce(pub(super) String);

/// What a node that knows MOVE was told about the session's departure, and has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LeaveStep {
    No,
    Told,
    /// It has not answered in time, and gets publishes and PINGs again.
    Overdue,
    /// It was told again, after the frames that it got while it was overdue.
    ToldAgain,
    /// It delivers nothing more.
    Left,
}

/// State of the planned moves from and to a node that knows MOVE.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeMoves {
    /// Run of the node (`server_id`).
    pub(super) run: Box<str>,
    /// The session has come by a planned move, and may not leave with MOVE yet.
    pub(super) is_unsettled: bool,
    /// The session is to leave as soon as it may.
    pub(super) is_wanted_away: bool,
    /// The session leaves to balance the load, and stays if that fails.
    pub(super) is_for_balance: bool,
    pub(super) leave: LeaveStep,
}

impl NodeMoves {
    fn new(info: &Info) -> Self {
        Self {
            run: info.server_id.as_str().into(),
            is_unsettled: false,
            is_wanted_away: false,
            is_for_balance: false,
            leave: LeaveStep::No,
        }
    }
}

/// The connection to one node. Not `Debug`, because the bytes to the node may contain secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct Connection {
    pub(super) stage: ConnectionStage,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) leaving: Leaving,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) hold: Hold,
    /// Answers that the node owes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) ledger: Ledger,
    /// Whether the node has answered a PING sent after the last CONNECT.
    pub(super) verified: bool,
    /// The text that the node wants to be signed. Boxed, because few nodes have one and many sessions are idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nonce: Option<Box<Nonce>>,
    /// Whether the node asks for credentials.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) auth_required: bool,
    /// Whether a part of the node's time for CONNECT has passed in the TLS handshake with the component.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) shortens_login: bool,
    /// Set if the node knows MOVE. Boxed, because an idle session must stay small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moves: Option<Box<NodeMoves>>,
    /// Set after an `-ERR` about the component, after which the node closes the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<EndReason>,
    /// Changes of the journal that the node has acked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) confirmed_changes: u64,
    /// Whether the next PONG is reported. Set when another session has lost the node, or the registry no longer lists it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) probing: bool,
    /// Whether the node has delivered a message or an answer since it took the session.
    pub(super) served: bool,
    /// Time at which the connection was ready.
    #[serde(with = "time")]
    since: Instant,
    /// Time at which the node last sent anything.
    #[serde(with = "time")]
    pub(super) heard: Instant,
    /// Time at which the oldest unanswered PING was sent. If all PINGs are answered, the time of the last one.
    #[serde(with = "time")]
    pub(super) pinged: Instant,

    /// Number of bytes of the first held frame, or of its replacement, that were written to the node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) head_written: usize,
    /// Bytes sent to the node in place of the first held frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replacement: Option<Replacement>,
    /// Whether the first held frame is incomplete.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) incomplete: bool,
    /// The sidecar's own frames. They are sent at the next frame boundary of the component's stream.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) own: BytesMut,
    /// PINGs in `own` without an entry in the ledger yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) own_pings: u16,
    /// Commands at the head of `own`, each of which a `+OK` will answer in verbose mode.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) own_commands: u16,
    /// Whether publishes are being sent again, and the present part of the log was not written completely.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) resent_partly: bool,
    /// Log offset up to which `+OK`s are already expected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) resend_expected: u64,
    /// Whether the node's socket took fewer bytes than offered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) blocked: bool,

    #[serde(skip, default = "scanner")]
    pub(super) scanner: ServerScanner,
    /// The beginning of a frame whose rest has not arrived. It is never sent to the component (promise S1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) partial: BytesMut,
    /// Journal entry of the last message. If the next control line is the same, the entry is not looked up again.
    #[serde(skip)]
    pub(super) last_slot: Option<Slot>,
    /// Whether the node is not read because the shared buffer budget is exhausted.
    #[serde(skip)]
    pub(super) starved: bool,
}

fn scanner() -> ServerScanner {
    ServerScanner::new(FrameLimits::SERVER)
}

impl Connection {
    /// Creates the state of a new connection whose node has sent `info`.
    pub(super) fn new(info: &Info, stage: ConnectionStage, hold: Hold, now: Instant) -> Self {
        Self {
            stage,
            leaving: Leaving::No,
            hold,
            ledger: Ledger::default(),
            verified: false,
            nonce: (!info.nonce.is_empty()).then(|| Box::new(Nonce(info.nonce.clone()))),
            auth_required: info.auth_required,
            shortens_login: false,
            moves: info.moves.then(|| Box::new(NodeMoves::new(info))),
            refused: None,
            confirmed_changes: 0,
            probing: false,
            served: false,
            since: now,
            heard: now,
            pinged: now,
            head_written: 0,
            replacement: None,
            incomplete: false,
            own: BytesMut::new(),
            own_pings: 0,
            own_commands: 0,
            resent_partly: false,
            resend_expected: 0,
            blocked: false,
            scanner: scanner(),
            partial: BytesMut::new(),
            last_slot: None,
            starved: false,
        }
    }

    /// Returns whether the connection has been ready for `time`.
    pub(super) fn has_lasted(&self, time: Duration, now: Instant) -> bool {
        now >= self.since + time
    }

    /// Returns whether the node has served the session. A node that drops the session right after taking it, or never
    /// answers, has not.
    pub(super) fn has_served(&self, now: Instant) -> bool {
        self.served || self.verified && self.has_lasted(SERVES_AFTER, now)
    }

    /// Adds the PONG of a PING that is sent now.
    pub(super) fn expect_pong(&mut self, expected: Expected, now: Instant) {
        if !self.ledger.awaits_pong() {
            self.pinged = now;
        }
        self.ledger.expect(expected);
    }

    /// Queues a PING of the sidecar's own for the next frame boundary.
    pub(super) fn own_ping(&mut self) {
        self.own.extend_from_slice(encode::PING);
        self.own_pings += 1;
    }

    /// Queues a PING of the sidecar's own unless a PING is queued or unanswered already. Returns whether it did.
    pub(super) fn ping_unless_awaited(&mut self) -> bool {
        let pings = !self.awaits_pong();
        if pings {
            self.own_ping();
        }
        pings
    }

    /// Returns whether a PING of the sidecar's own or of the component is queued or unanswered.
    pub(super) fn awaits_pong(&self) -> bool {
        self.ledger.awaits_pong() || self.own_pings > 0
    }

    /// Returns whether nothing more is sent to the node because the session changes to another one.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.leaving, Leaving::Draining { .. }) && self.leave_step() != LeaveStep::Overdue
    }

    /// Returns the time at which the session leaves a node that has not settled it, if it is to leave.
    pub(super) fn leaves_unsettled_at(&self) -> Option<Instant> {
        let is_wanted_away = self.moves.as_ref().is_some_and(|moves| moves.is_wanted_away);
        is_wanted_away.then(|| self.since + SETTLE_MAX)
    }

    /// Records that the node has settled the session, or has not in time. Returns whether the session is to leave.
    pub(super) fn settled(&mut self) -> bool {
        let Some(moves) = &mut self.moves else {
            return false;
        };
        moves.is_unsettled = false;
        std::mem::take(&mut moves.is_wanted_away)
    }

    /// Gives up the present attempt to move. The session stays if it wanted to balance the load, and otherwise dials again.
    pub(super) fn give_up_move(&mut self) {
        self.leaving = Leaving::Dialling;
        if let Some(moves) = &mut self.moves {
            moves.leave = LeaveStep::No;
            if std::mem::take(&mut moves.is_for_balance) {
                self.leaving = Leaving::No;
            }
        }
    }

    /// Returns what the node was told about the session's departure.
    pub(super) fn leave_step(&self) -> LeaveStep {
        self.moves.as_ref().map_or(LeaveStep::No, |moves| moves.leave)
    }

    /// Returns whether a draining node has answered everything, so that nothing is in doubt.
    pub(super) fn is_drained(&self) -> bool {
        if self.leave_step() != LeaveStep::No {
            return self.leave_step() == LeaveStep::Left;
        }
        self.is_draining()
            && self.head_written == 0
            && self.own.is_empty()
            && self.ledger.is_settled()
            && self.stage == ConnectionStage::Flowing
    }
}
