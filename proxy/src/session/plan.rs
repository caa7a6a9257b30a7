//! Component → node, first half: the decision on the frames at the head of the component's bytes. Most frames pass
//! unchanged, many at once. Four kinds are handled: CONNECT (credentials, `protocol`), UNSUB with a max after a move,
//! a SUB above the limit, and PONG, which is not passed on. A SUB may have to wait.

use std::borrow::Cow;

use standin_wire::client::{self, Frame, Verb};
use standin_wire::{ClientFault, Connect, Span, WireError, encode};

use super::{End, Leaving, Session};

/// Bytes of frames that are planned and written at once. So held bytes after an outage are not scanned to their end
/// for each write.
const PLAN_BYTES_MAX: usize = 256 * 1024;

/// Frames other than publishes that are written at once.
const PLAN_OTHERS_MAX: u32 = 1024;

/// Entries in the ledger above which nothing more is sent until the node has answered some.
const ANSWERS_OWED_MAX: usize = 65_536;

/// Decision on the frames at the head of the component's bytes.
pub(super) enum Plan {
    /// Do nothing: the next frame is incomplete.
    Incomplete,
    /// Do nothing now: a publish is next, and publishes are held.
    Stop,
    /// Do nothing now: the window in doubt or the ledger is full until a PONG arrives, or a sid is not free before.
    Wait,
    /// Drop the first `len` bytes, which are one frame. The component gets an `-ERR` if there is a fault.
    Skip {
        len: usize,
        refusal: Option<ClientFault>,
    },
    /// Replace the first `len` bytes, which are one frame, by other bytes.
    Replace { len: usize, with: Vec<u8> },
    /// Pass the first `len` bytes, which are complete frames: `publishes` publishes and `others` other frames. If
    /// `plain`, there are no others, and no publish goes to the log.
    Pass {
        len: usize,
        publishes: u64,
        others: u32,
        plain: bool,
    },
}

/// Bits that distinguish sids within one plan. Sids are mostly numbers that count up.
const SID_BITS: usize = 1024;

/// Effects of the frames already in a plan on subscriptions, once they are written.
#[derive(Debug)]
struct Planned {
    /// The node has a part of the present frame.
    begun: bool,
    subs: usize,
    unsubs: bool,
    /// Set of marks of the sids in UNSUBs. Two sids with the same mark cost one more write, nothing else.
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
    /// Records that the plan has an UNSUB of `sid`.
    fn end(&mut self, sid: &[u8]) {
        let (word, bit) = Self::mark(sid);
        self.ended[word] |= bit;
        self.unsubs = true;
    }

    /// Returns whether the plan may have an UNSUB of `sid`.
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
    /// Scans the frames at the head of `bytes`. Returns the decision for as many of them as can be treated alike.
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
        // A node that is being left gets the rest of a frame that it has in part, and nothing more.
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
            // Scanned in place: copying the span takes longer than finding it (`tests/bench sidecar`, 16 B).
            let found = self.up.scanner.next(&bytes[len..]);
            let span = match &found {
                Ok(Some(span)) => span,
                Err(_) if len == 0 => return found.map(|_| Plan::Incomplete),
                Ok(None) | Err(_) => break,
            };
            planned.begun = len == 0 && self.up.head_written > 0;
            let publish = span.verb == Verb::Pub || span.verb == Verb::Hpub && headers;
            if !publish || is_new {
                // A frame that needs its own decision must be the first of a plan, so that all frames before it have
                // taken effect.
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

    /// Returns the plan for a frame that does not simply pass; `None` if it does. `before` describes the frames that
    /// pass before it.
    fn plan_alone(
        &mut self,
        bytes: &[u8],
        span: &Span<Verb>,
        before: &mut Planned,
    ) -> Result<Option<Plan>, WireError> {
        let len = span.len;
        Ok(match client::frame(bytes, span)? {
            // Servers then close without an `-ERR`, as if they had died. Every next node would do the same.
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
                // Nodes expect CONNECT for `protocol`, so one is sent for a component that begins without it.
                Some(Plan::Replace {
                    len: 0,
                    with: self.connect_line(b"{}"),
                })
            }
            // The UNSUB planned before must take effect first. A SUB that the node has in part must continue.
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

    /// Returns whether a publish of `len` bytes exceeds the window after `planned` bytes. An empty window accepts any
    /// publish.
    fn window_full(&self, planned: usize, len: usize) -> bool {
        let have = self.doubt.log_bytes() + planned;
        have > 0 && have + len > self.policy.in_doubt_bytes_max
    }
}
