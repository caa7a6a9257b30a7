//! Component → node, first half: the decision on the frames at the head of the component's bytes. Most frames pass
//! unchanged, many at once. The exceptions: CONNECT gets credentials and `protocol`; UNSUB with a max gets a lower max
//! after a move; a SUB above the limit is refused; PONG is not passed on. A SUB may have to wait. If the component's listener
//! has permissions, each PUB, HPUB and SUB is checked, and refused if they forbid it.

use standin_wire::client::{self, Frame, Sub, Verb};
use standin_wire::{ClientFault, Connect, Span, Violation, WireError, encode};

use super::connection::{Connection, Replacement};
use super::{EndReason, Session};
use crate::error_text::ErrorText;
use crate::tally::{Tally, whole_publishes};

/// Maximum number of bytes that are planned and written at once. Without it, each write after an outage would first scan
/// all held bytes.
const PLAN_BYTES_MAX: usize = 256 * 1024;

/// Maximum number of frames with an effect of their own that are written at once. Every frame has one, except publishes
/// while no policy is `resend`.
const PLAN_OTHERS_MAX: u32 = 1024;

/// When the ledger has this many entries, nothing more is sent until the node has answered some.
const ANSWERS_OWED_MAX: usize = 65_536;

/// When this many `-ERR`s wait behind answers of the node, no further frame is refused, because each holds a text.
const OWN_ERRORS_MAX: u32 = 256;

/// Decision on the frames at the head of the component's bytes.
pub(super) enum Plan {
    /// Do nothing: the next frame is incomplete.
    Incomplete,
    /// Do nothing now: a publish is next, and publishes wait for their release.
    Held,
    /// Do nothing until a PONG arrives: the limit on publishes in doubt or on the ledger is reached, or a sid is not free.
    Wait,
    /// Drop the first `len` bytes, which are one frame. The component gets an `-ERR` if there is a `refusal`.
    Skip {
        len: usize,
        refusal: Option<ErrorText<'static>>,
    },
    /// Replace the first frame by other bytes, or insert bytes before it.
    Replace(Replacement),
    /// Pass the first `len` bytes, which are complete frames: `publishes` publishes and `others` other frames. Their
    /// effects are in [`Session::effects`].
    Pass { len: usize, publishes: u64, others: u32 },
}

/// Effect of one or more frames, once a node has them.
pub(super) enum Effect<'a> {
    /// Publishes under `drop`.
    Publishes(&'a Publishes),
    /// One frame of another kind, or a publish that may have to be sent again.
    Frame { bytes: &'a [u8], span: &'a Span<Verb> },
}

/// Consecutive publishes under `drop`.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    pub(super) count: u32,
    /// Length of all of them.
    pub(super) bytes: u32,
    pub(super) subjects: Tally,
}

/// Effects of planned frames, found when the frames are scanned. So a frame is not scanned again when it is written.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Frames with effects of their own, each after some publishes.
    frames: Vec<(Publishes, Span<Verb>)>,
    /// Publishes after the last of those frames.
    last: Publishes,
    /// Number of publishes with the same control line as the last one counted in `last.subjects`. It is added there when
    /// a different line follows. To count each publish there would cost a fifth more.
    repeated: u32,
}

impl Effects {
    fn clear(&mut self) {
        self.frames.clear();
        (self.last.count, self.last.bytes, self.repeated) = (0, 0, 0);
        self.last.subjects.clear();
    }

    /// Adds a publish under `drop`.
    #[inline]
    fn publish(&mut self, bytes: &[u8], span: &Span<Verb>) {
        if span.repeats && self.last.count > 0 {
            self.repeated += 1;
        } else {
            let repeated = std::mem::take(&mut self.repeated);
            self.last
                .subjects
                .count_behind(u64::from(repeated), span.args(bytes));
        }
        self.last.count += 1;
        self.last.bytes += span.len as u32;
    }

    /// Adds publishes with the same control line as the last one, each `len` bytes long.
    #[inline]
    fn publish_repeated(&mut self, count: usize, len: usize) {
        self.repeated += count as u32;
        self.last.count += count as u32;
        self.last.bytes += (count * len) as u32;
    }

    /// Adds a frame with an effect of its own.
    fn frame(&mut self, span: Span<Verb>) {
        self.close();
        let before = match self.last.count {
            0 => Publishes::default(),
            _ => std::mem::take(&mut self.last),
        };
        self.frames.push((before, span));
    }

    /// Completes the counts of the last publishes.
    fn close(&mut self) {
        let repeated = std::mem::take(&mut self.repeated);
        self.last.subjects.count_again(u64::from(repeated));
    }

    /// Calls `apply` with the effect of all complete frames in `written`, in their order. `written` begins with the
    /// planned frames and may end within one of them. Returns the length of the complete frames.
    pub(super) fn apply(&self, written: &[u8], mut apply: impl FnMut(Effect<'_>)) -> usize {
        let mut at = 0;
        let frames = self.frames.iter();
        let frames = frames.map(|(publishes, span)| (publishes, Some(span)));
        for (publishes, span) in frames.chain([(&self.last, None)]) {
            // If only a part of these publishes was written, the complete ones are counted anew.
            let is_cut = written.len() - at < publishes.bytes as usize;
            let complete = is_cut.then(|| Publishes::complete_in(&written[at..]));
            let publishes = complete.as_ref().unwrap_or(publishes);
            if publishes.bytes > 0 {
                apply(Effect::Publishes(publishes));
            }
            at += publishes.bytes as usize;
            let Some(span) = span.filter(|_| !is_cut) else {
                break;
            };
            let Some(bytes) = written.get(at..at + span.len) else {
                break;
            };
            apply(Effect::Frame { bytes, span });
            at += span.len;
        }
        at
    }
}

impl Publishes {
    /// Counts the publishes in `bytes` up to the first incomplete one.
    fn complete_in(bytes: &[u8]) -> Self {
        let (subjects, bytes) = whole_publishes(bytes);
        Self {
            count: subjects.total() as u32,
            bytes: bytes as u32,
            subjects,
        }
    }
}

/// Number of bits in [`Planned::ended`]. Most sids are consecutive numbers, so few of them share a bit.
const SID_BITS: usize = 1024;

/// Effects that the frames of a plan have on subscriptions once they are written.
#[derive(Debug, Default)]
struct Planned {
    /// A part of the present frame was written to the node.
    begun: bool,
    subs: usize,
    unsubs: bool,
    /// Bit set of the sids in UNSUBs. Two sids that share a bit cost one more write, nothing else.
    ended: [u64; SID_BITS / 64],
}

impl Planned {
    /// Records that the plan has an UNSUB of `sid`.
    fn end(&mut self, sid: &[u8]) {
        let (word, bit) = Self::bit_of(sid);
        self.ended[word] |= bit;
        self.unsubs = true;
    }

    /// Returns whether the plan may have an UNSUB of `sid`.
    fn ends(&self, sid: &[u8]) -> bool {
        let (word, bit) = Self::bit_of(sid);
        self.unsubs && self.ended[word] & bit != 0
    }

    /// Returns the word of the set in which the sid has its bit, and this bit.
    fn bit_of(sid: &[u8]) -> (usize, u64) {
        let number = sid.iter().fold(0_usize, |number, byte| {
            number.wrapping_mul(10).wrapping_add(usize::from(*byte))
        });
        (number % SID_BITS / 64, 1 << (number % 64))
    }
}

/// Returns whether the first frame in `bytes` may be CONNECT, or a PONG, which is not passed on.
fn may_begin_connect(bytes: &[u8]) -> bool {
    match bytes {
        [] | [b'C' | b'c' | b'P' | b'p'] => true,
        [first, second, ..] => first.eq_ignore_ascii_case(&b'C') || second.eq_ignore_ascii_case(&b'O'),
        [_] => false,
    }
}

impl Session {
    /// Scans the frames at the head of `bytes`. Returns the decision for as many of them as can be treated alike.
    pub(super) fn plan(&mut self, bytes: &[u8]) -> Result<Plan, WireError> {
        let reason = self.ending.as_ref().map(|ending| ending.reason);
        if matches!(reason, Some(EndReason::ComponentProtocol(_))) {
            return Ok(Plan::Incomplete);
        }
        let answers_owed =
            |node: &Connection| node.ledger.len() >= ANSWERS_OWED_MAX && node.head_written == 0;
        if self.connection.as_ref().is_some_and(answers_owed) {
            return Ok(Plan::Wait);
        }
        let may_resend = self.policy.may_resend();
        let node = self.connection.as_ref();
        let is_draining = node.is_some_and(Connection::is_draining);
        let begun = node.is_some_and(|node| node.head_written > 0);
        let is_auth_required = node.is_some_and(|node| node.auth_required);
        // A node that the session leaves gets the rest of a frame that was partly written, and nothing more.
        let bytes_max = if is_draining { 1 } else { PLAN_BYTES_MAX };
        let headers = self.takes_headers();
        let (mut len, mut publishes, mut others) = (0, 0, 0);
        let mut planned = Planned::default();
        self.effects.clear();
        let (is_new, is_holding) = (self.client.is_none(), self.is_holding());
        let checks_publishes = is_new || self.listener().permissions.is_some();
        while len < bytes_max && others < PLAN_OTHERS_MAX {
            // The span is borrowed: copying it takes longer than finding it (`tests/bench sidecar`, 16 B).
            let found = self.component.scanner.next(&bytes[len..]);
            let span = match &found {
                Ok(Some(span)) => span,
                Err(_) if len == 0 => return found.map(|_| Plan::Incomplete),
                // As in nats-server, the node decides at once about a component that must log in and begins with another
                // command. Its frame, which may have a payload, is not kept until it is complete.
                Ok(None) if is_new && len == 0 && is_auth_required && !may_begin_connect(bytes) => {
                    let with = self.connect_line(b"{}");
                    return Ok(Plan::Replace(Replacement { span: None, with }));
                }
                Ok(None) | Err(_) => break,
            };
            planned.begun = len == 0 && begun;
            let frame = &bytes[len..len + span.len];
            let publish = span.verb == Verb::Pub || span.verb == Verb::Hpub && headers;
            // A frame that needs its own decision must be the first of a plan, so that all frames before it have taken
            // effect.
            if !publish && !planned.begun && self.waits_for_move(span.verb) {
                if len > 0 {
                    break;
                }
                return Ok(Plan::Held);
            }
            if !publish || checks_publishes {
                match self.plan_alone(frame, span, &mut planned) {
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) if len > 0 => break,
                    Ok(Some(plan)) => return Ok(plan),
                    Err(error) => return Err(error),
                }
            }
            if publish && is_holding {
                if len > 0 {
                    break;
                }
                return Ok(Plan::Held);
            } else if publish && may_resend && (len > 0 || !begun) && self.window_full(len, span.len) {
                if len > 0 {
                    break;
                }
                return Ok(Plan::Wait);
            }
            publishes += u64::from(publish);
            len += span.len;
            if publish && !may_resend {
                self.effects.publish(frame, span);
                let rest = bytes.get(len..bytes.len().min(bytes_max));
                let repeated = self.component.scanner.repeated(rest.unwrap_or_default());
                self.effects.publish_repeated(repeated, span.len);
                publishes += repeated as u64;
                len += repeated * span.len;
            } else {
                self.effects.frame(*span);
                others += 1;
            }
        }
        self.effects.close();
        Ok(if len == 0 {
            Plan::Incomplete
        } else {
            Plan::Pass {
                len,
                publishes,
                others,
            }
        })
    }

    /// Returns whether the permissions of the component's listener forbid a publish to `subject`.
    fn forbids_publish(&self, subject: &[u8]) -> bool {
        let permissions = self.listener().permissions.as_ref();
        permissions.is_some_and(|permissions| !permissions.publish.allows_subject(subject))
    }

    /// Returns whether the permissions of the component's listener forbid a subscription. One that would receive messages with
    /// denied subjects beside others is forbidden too, so that messages from the node need no check.
    fn forbids_sub(&self, sub: &Sub<'_>) -> bool {
        self.listener().permissions.as_ref().is_some_and(|permissions| {
            let rules = &permissions.subscribe;
            !rules.allows_subscription(sub.subject, sub.queue) || rules.deny_overlaps(sub.subject)
        })
    }

    /// Returns the plan for a forbidden frame of `len` bytes. It waits while the component does not read the `-ERR`s for
    /// earlier ones.
    fn refusal(&self, len: usize, violation: Violation<'_>) -> Plan {
        let node = self.connection.as_ref();
        let has_many = node.is_some_and(|node| node.ledger.own_errors() >= OWN_ERRORS_MAX);
        if has_many || !self.has_room_for_component() {
            return Plan::Wait;
        }
        Plan::Skip {
            len,
            refusal: Some(ErrorText::Violation(violation.to_string().into())),
        }
    }

    /// Returns the plan for this frame if it cannot pass unchanged, otherwise `None`. `before` describes the frames that
    /// pass before it.
    fn plan_alone(
        &mut self,
        bytes: &[u8],
        span: &Span<Verb>,
        before: &mut Planned,
    ) -> Result<Option<Plan>, WireError> {
        let len = span.len;
        let replace = |span, with| Some(Plan::Replace(Replacement { span, with }));
        Ok(match client::frame(bytes, span)? {
            // On an invalid CONNECT, a server closes without an `-ERR`, as if it had died. Every next node would do the same.
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
                let json = self.merged(json);
                replace(Some(*span), self.connect_line(&json))
            }
            Frame::Pong => Some(Plan::Skip { len, refusal: None }),
            // Only the sidecar itself moves a session.
            Frame::Move(_) => return Err(WireError::UnknownVerb(*b"MOVE")),
            _ if self.client.is_none() => {
                // A node learns `protocol` from CONNECT only, so one is sent even if the component has sent none.
                replace(None, self.connect_line(b"{}"))
            }
            // A frame that was partly written must be completed.
            Frame::Publish(publish) if !before.begun && self.forbids_publish(publish.subject) => {
                Some(self.refusal(len, Violation::Publish(publish.subject)))
            }
            Frame::Sub(sub) if !before.begun && self.forbids_sub(&sub) => {
                let violation = Violation::Subscription(sub.subject, sub.queue);
                Some(self.refusal(len, violation))
            }
            // An earlier UNSUB of the same sid must take effect first. But a SUB that was partly written must be completed.
            Frame::Sub(sub) if before.ends(sub.sid) => Some(Plan::Wait),
            Frame::Sub(sub) if !before.begun && self.journal.may_be_in_flight(sub.sid) => Some(Plan::Wait),
            Frame::Sub(_) if self.is_full(before.subs) => Some(Plan::Skip {
                len,
                refusal: Some(ErrorText::Fault(ClientFault::TooManySubscriptions)),
            }),
            Frame::Sub(_) => {
                before.subs += 1;
                None
            }
            Frame::Unsub(unsub) => {
                before.end(unsub.sid);
                self.journal.unsub_for_node(&unsub).and_then(|unsub| {
                    let mut with = Vec::new();
                    encode::client(&Frame::Unsub(unsub), &mut with);
                    replace(Some(*span), with)
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

    /// Returns whether a publish of `len` bytes, after `planned` bytes, would exceed the limit on bytes in doubt. If nothing
    /// is in doubt, any publish is accepted.
    fn window_full(&self, planned: usize, len: usize) -> bool {
        let have = self.doubt.log_bytes() + planned;
        have > 0 && have + len > self.policy.in_doubt_bytes_max
    }
}
