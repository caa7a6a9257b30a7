//! Component → node, first half: what becomes of the frames at the head of the component's bytes. Most pass as they are,
//! many at once; only four kinds are touched: CONNECT (credentials, `protocol`), UNSUB with a max after a move, a SUB too
//! many, and PONG, which ends here. A SUB may have to wait.

use std::borrow::Cow;

use standin_wire::client::{self, Frame, Verb};
use standin_wire::{ClientFault, Connect, Span, WireError, encode};

use super::{End, Leaving, Session};

/// Frames that are looked at and written in one go, in bytes: what is held after an outage is not scanned to its end for each
/// write that the socket takes.
const PLAN_BYTES_MAX: usize = 256 * 1024;

/// Frames other than publishes that are written in one go.
const PLAN_OTHERS_MAX: u32 = 1024;

/// Entries of the ledger above which nothing more is sent until the node has answered some.
const ANSWERS_OWED_MAX: usize = 65_536;

/// What to do with the frames at the head of the component's bytes.
pub(super) enum Plan {
    /// Nothing: the next frame is not whole.
    Incomplete,
    /// Nothing now: a publish is next, and publishes are stopped.
    Stop,
    /// Nothing now: the window in doubt, or the ledger, is full until a PONG comes, or a sid is not free before.
    Wait,
    /// The first `len` bytes are one frame that does not go to the node; the component hears why, if there is a why.
    Skip {
        len: usize,
        refusal: Option<ClientFault>,
    },
    /// The first `len` bytes are one frame in whose place the node gets other bytes.
    Replace { len: usize, with: Vec<u8> },
    /// The first `len` bytes are whole frames that pass as they are: `publishes` of them and `others`. If `plain`, there are
    /// no others, and none of the publishes is to be kept.
    Pass {
        len: usize,
        publishes: u64,
        others: u32,
        plain: bool,
    },
}

/// Bits by which sids are told apart within one plan. Sids are mostly numbers that count up.
const SID_BITS: usize = 1024;

/// What the frames already in a plan will do to subscriptions once they are written.
#[derive(Debug)]
struct Planned {
    /// The node has a part of the frame that is looked at.
    begun: bool,
    subs: usize,
    unsubs: bool,
    /// Marks of the sids in UNSUBs. Two sids with one mark cost a write more, nothing else.
    ended: [u64; SID_BITS / 64],
}

impl Default for Planned {
    fn default() -> Self {
        Self {
            begun: false,
            subs: 0,
            unsubs: false,
            ended: [0; SID_BITS / 64],
        }
    }
}

impl Planned {
    /// An UNSUB of `sid` is in the plan.
    fn end(&mut self, sid: &[u8]) {
        let (word, bit) = Self::mark(sid);
        self.ended[word] |= bit;
        self.unsubs = true;
    }

    /// Whether an UNSUB of `sid` may be in the plan.
    fn ends(&self, sid: &[u8]) -> bool {
        let (word, bit) = Self::mark(sid);
        self.unsubs && self.ended[word] & bit != 0
    }

    fn mark(sid: &[u8]) -> (usize, u64) {
        let number = sid.iter().fold(0_usize, |number, byte| {
            number.wrapping_mul(10).wrapping_add(usize::from(*byte))
        });
        (number % SID_BITS / 64, 1 << (number % 64))
    }
}

impl Session {
    /// Looks at the frames at the head of `bytes` and says what to do with as many as can be treated alike.
    pub(super) fn plan(&mut self, bytes: &[u8]) -> Result<Plan, WireError> {
        if self
            .ending
            .as_ref()
            .is_some_and(|ending| matches!(ending.end, End::ComponentProtocol(_)))
        {
            return Ok(Plan::Incomplete);
        }
        if self.ledger.len() >= ANSWERS_OWED_MAX && self.up.head_written == 0 {
            return Ok(Plan::Wait);
        }
        let may_resend = self.policy.may_resend();
        // A node that is being left gets the rest of the frame it has part of, and nothing more.
        let bytes_max = if matches!(self.leaving, Leaving::Draining { .. }) {
            1
        } else {
            PLAN_BYTES_MAX
        };
        let headers = self.takes_headers();
        let (mut len, mut publishes, mut plain) = (0, 0, !may_resend);
        let mut planned = Planned::default();
        self.up.subjects.clear();
        let (mut others, mut counted) = (0, 0);
        let (is_new, is_holding) = (self.client.is_none(), self.is_holding());
        while len < bytes_max && others < PLAN_OTHERS_MAX {
            // Looked at where it is: to copy the span out takes longer than to find it (`tests/bench sidecar`, 16 B).
            let found = self.up.scanner.next(&bytes[len..]);
            let span = match &found {
                Ok(Some(span)) => span,
                Err(_) if len == 0 => return found.map(|_| Plan::Incomplete),
                Ok(None) | Err(_) => break,
            };
            planned.begun = len == 0 && self.up.head_written > 0;
            let publish = span.verb == Verb::Pub || span.verb == Verb::Hpub && headers;
            if !publish || is_new {
                // What needs a decision of its own is decided as the first of a plan, when all before it has had its
                // effect.
                match self.plan_alone(&bytes[len..len + span.len], span, &mut planned) {
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) if len > 0 => break,
                    Ok(Some(plan)) => return Ok(plan),
                    Err(error) => return Err(error),
                }
                plain = false;
                others += 1;
            } else if is_holding {
                if len > 0 {
                    break;
                }
                return Ok(Plan::Stop);
            } else if may_resend && (len > 0 || self.up.head_written == 0) && self.window_full(len, span.len)
            {
                if len > 0 {
                    break;
                }
                return Ok(Plan::Wait);
            }
            if publish {
                // Those that repeat a line are counted when another comes: one by one, each would cost a fifth more.
                if !span.repeats || publishes == 0 {
                    let args = span.args(&bytes[len..len + span.len]);
                    self.up.subjects.count_behind(publishes - counted, args);
                    counted = publishes + 1;
                }
                publishes += 1;
            }
            len += span.len;
        }
        self.up.subjects.count_again(publishes - counted);
        Ok(if len == 0 {
            Plan::Incomplete
        } else {
            Plan::Pass {
                len,
                publishes,
                others,
                plain,
            }
        })
    }

    /// The plan for a frame that does not simply pass; `None` when it does. `before` has the frames that pass before it.
    fn plan_alone(
        &mut self,
        bytes: &[u8],
        span: &Span<Verb>,
        before: &mut Planned,
    ) -> Result<Option<Plan>, WireError> {
        let len = span.len;
        Ok(match client::frame(bytes, span)? {
            // Servers close without a word then, as if they had died; every next node would do the same.
            Frame::Connect(json) if Connect::parse(json).is_err() => {
                return Err(WireError::Arguments {
                    verb: "CONNECT",
                    expected: "CONNECT {json}",
                });
            }
            Frame::Publish(publish) if publish.headers.is_some() && !self.takes_headers() => {
                return Err(WireError::Arguments {
                    verb: "HPUB",
                    expected: "\"headers\":true in CONNECT",
                });
            }
            Frame::Connect(json) => {
                let json = self.merged(json).unwrap_or(Cow::Borrowed(json));
                Some(Plan::Replace {
                    len,
                    with: self.connect_line(&json),
                })
            }
            Frame::Pong => Some(Plan::Skip { len, refusal: None }),
            _ if self.client.is_none() => {
                // A node counts on CONNECT for `protocol`, so one is sent for a component that begins without.
                Some(Plan::Replace {
                    len: 0,
                    with: self.connect_line(b"{}"),
                })
            }
            // First what was planned before it must have its effect; a SUB of which the node has a part must go on.
            Frame::Sub(sub) if before.ends(sub.sid) => Some(Plan::Wait),
            Frame::Sub(sub) if !before.begun && self.journal.may_be_on_its_way(sub.sid) => Some(Plan::Wait),
            Frame::Sub(_) if self.is_full(before.subs) => Some(Plan::Skip {
                len,
                refusal: Some(ClientFault::TooManySubscriptions),
            }),
            Frame::Sub(_) => {
                before.subs += 1;
                None
            }
            Frame::Unsub(unsub) => {
                let for_node = self
                    .journal
                    .has_moved()
                    .then(|| self.journal.unsub_for_node(&unsub));
                before.end(unsub.sid);
                for_node.flatten().map(|unsub| {
                    let mut with = Vec::new();
                    encode::client(&Frame::Unsub(unsub), &mut with);
                    Plan::Replace { len, with }
                })
            }
            _ => None,
        })
    }

    fn takes_headers(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.headers)
    }

    fn is_full(&self, more: usize) -> bool {
        let max = self.policy.subscriptions_max;
        max > 0 && self.journal.len() + more >= max
    }

    /// Whether a publish of `len` bytes is too many behind the window and `planned` bytes. Into an empty window fits any.
    fn window_full(&self, planned: usize, len: usize) -> bool {
        let have = self.doubt.log_bytes() + planned;
        have > 0 && have + len > self.policy.in_doubt_bytes_max
    }
}
