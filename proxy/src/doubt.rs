//! The publishes in doubt: written completely to a node and not yet acked by one of its PONGs.
//!
//! Promise S3: when a node dies, its unacked publishes are counted, and each is dropped or sent again as the setting
//! `publish.in_doubt` (`drop` or `resend`) says for its subject.
//!
//! For publishes under `drop` only counts are kept, by the first token of the subject. Publishes under `resend` are
//! kept completely in a log. Offsets in the log count from the beginning of the session, so they stay valid over any
//! number of moves.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

use crate::state_fields::{is_default, optional_time};
use crate::tally::{Tally, publishes, unlimited_scanner};

/// Limit on the tallies that wait for a PONG. At the limit, further publishes are added to the last tally.
const MARKED_MAX: usize = 64;

/// State of the stream when a PING went out. The PONG acks everything before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Publishes under `drop` written so far.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) dropped: u64,
    /// Offset in the log of publishes under `resend`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) log: u64,
    /// Changes of subscriptions (created or ended) so far.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) changes: u64,
    /// CONNECTs written so far.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) connects: u64,
}

/// Number of publishes in doubt when a node died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InDoubtCount {
    /// Not sent again.
    pub(crate) dropped: u64,
    /// Sent again to the next node.
    pub(crate) resent: u64,
}

impl AddAssign for InDoubtCount {
    fn add_assign(&mut self, more: Self) {
        self.dropped += more.dropped;
        self.resent += more.resent;
    }
}

/// The window of publishes in doubt, with the log of those to be sent again.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Doubt {
    #[serde(default, skip_serializing_if = "is_default")]
    written: Mark,
    #[serde(default, skip_serializing_if = "is_default")]
    confirmed: Mark,
    #[serde(default, skip_serializing_if = "is_default")]
    log: BytesMut,
    /// Offset of the log's first byte.
    #[serde(default, skip_serializing_if = "is_default")]
    log_start: u64,
    /// End offset of the part of the log that was sent to the present node.
    #[serde(default, skip_serializing_if = "is_default")]
    sent: u64,
    /// Bytes of publishes since the last PING.
    #[serde(default, skip_serializing_if = "is_default")]
    bytes_since_mark: u64,
    /// Time at which the oldest publish after the last PING was written.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    unmarked_since: Option<Instant>,
    /// Publishes under `drop` written after the last PING.
    #[serde(default, skip_serializing_if = "is_default")]
    unmarked: Tally,
    /// For each unanswered PING: the value of `written.dropped` when it was sent, and the unacked publishes under `drop`
    /// between the previous PING and it.
    #[serde(default, skip_serializing_if = "is_default")]
    marked: VecDeque<(u64, Tally)>,
}

impl Doubt {
    /// Records publishes written under `drop`: their number, their tally, and their total size in bytes.
    #[inline]
    pub(crate) fn wrote_dropped(&mut self, publishes: u64, subjects: &Tally, bytes: usize, now: Instant) {
        self.written.dropped += publishes;
        self.unmarked.add(subjects);
        self.wrote(bytes, now);
    }

    /// Records one publish written under `drop`. `args` is its control line after the verb.
    pub(crate) fn wrote_one_dropped(&mut self, args: &[u8], bytes: usize, now: Instant) {
        self.written.dropped += 1;
        self.unmarked.count(args);
        self.wrote(bytes, now);
    }

    /// Records one publish written under `resend`.
    pub(crate) fn wrote_logged(&mut self, frame: &[u8], now: Instant) {
        self.log.extend_from_slice(frame);
        self.written.log += frame.len() as u64;
        self.sent = self.written.log;
        self.wrote(frame.len(), now);
    }

    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.bytes_since_mark += bytes as u64;
        self.unmarked_since.get_or_insert(now);
    }

    /// Returns `dropped` and `log` of the mark for a PING that is sent now. The other fields are 0.
    pub(crate) fn mark(&mut self) -> Mark {
        self.bytes_since_mark = 0;
        self.unmarked_since = None;
        if !self.unmarked.is_empty() {
            let subjects = std::mem::take(&mut self.unmarked);
            let is_full = self.marked.len() >= MARKED_MAX;
            match self.marked.back_mut().filter(|_| is_full) {
                Some((dropped, last)) => {
                    *dropped = self.written.dropped;
                    last.add(&subjects);
                }
                None => self.marked.push_back((self.written.dropped, subjects)),
            }
        }
        Mark {
            dropped: self.written.dropped,
            log: self.sent,
            ..Mark::default()
        }
    }

    /// Returns the bytes of publishes written since the last PING.
    pub(crate) fn bytes_since_mark(&self) -> u64 {
        self.bytes_since_mark
    }

    /// Returns the time at which the oldest publish since the last PING was written.
    pub(crate) fn unmarked_since(&self) -> Option<Instant> {
        self.unmarked_since
    }

    /// Records the PONG of the PING with `mark`: everything before it is acked.
    pub(crate) fn confirm(&mut self, mark: Mark) {
        self.confirmed.dropped = self.confirmed.dropped.max(mark.dropped);
        while let Some((dropped, _)) = self.marked.front()
            && *dropped <= mark.dropped
            && let Some((_, mut subjects)) = self.marked.pop_front()
        {
            if self.unmarked.is_empty() {
                // The memory is reused for the next count.
                subjects.clear();
                self.unmarked = subjects;
            }
        }
        // The PONG may ack only a part of a tally of several PINGs. Which of its subjects were acked is not known.
        if let Some((dropped, subjects)) = self.marked.front_mut() {
            subjects.lower_to(*dropped - self.confirmed.dropped);
        }
        if mark.log > self.confirmed.log {
            self.confirmed.log = mark.log;
            self.log.advance((mark.log - self.log_start) as usize);
            self.log_start = mark.log;
            if self.log.is_empty() {
                self.log = BytesMut::new();
            }
        }
    }

    /// Returns the number of publishes under `drop` now in doubt.
    pub(crate) fn dropped_count(&self) -> u64 {
        self.written.dropped - self.confirmed.dropped
    }

    /// Returns the bytes kept in the log.
    pub(crate) fn log_bytes(&self) -> usize {
        self.log.len()
    }

    /// Records the loss of the node. Returns the count of publishes in doubt, and the subjects of those under `drop`,
    /// which are removed. Those under `resend` stay for [`unsent`](Self::unsent). The cost grows with the length of the log.
    pub(crate) fn node_lost(&mut self) -> (InDoubtCount, Tally) {
        let count = InDoubtCount {
            dropped: self.dropped_count(),
            resent: self.frames_between(self.log_start, self.sent),
        };
        let mut subjects = std::mem::take(&mut self.unmarked);
        self.marked
            .drain(..)
            .for_each(|(_, marked)| subjects.add(&marked));
        self.confirmed.dropped = self.written.dropped;
        self.sent = self.log_start;
        self.bytes_since_mark = 0;
        self.unmarked_since = None;
        (count, subjects)
    }

    /// Frees memory that an idle session does not need.
    pub(crate) fn shrink(&mut self) {
        if self.unmarked.is_empty() {
            self.unmarked = Tally::default();
        }
        if self.marked.is_empty() {
            self.marked = VecDeque::new();
        }
    }

    /// Returns a tally of the publishes in the log.
    pub(crate) fn log_tally(&self) -> Tally {
        publishes(&self.log)
    }

    /// Returns the part of the log not yet sent to the present node, at most up to offset `until`.
    pub(crate) fn unsent(&self, until: u64) -> &[u8] {
        let from = (self.sent - self.log_start) as usize;
        let to = until.clamp(self.sent, self.written.log) - self.log_start;
        &self.log[from..to as usize]
    }

    /// Returns the end offset of the next part to be sent: the fewest whole publishes with at least `bytes` bytes, but
    /// nothing beyond `until`. `bytes` is not 0. `until` and the offset sent so far must be ends of publishes.
    pub(crate) fn part_end(&self, until: u64, bytes: u64) -> u64 {
        let unsent = self.unsent(until);
        let mut scanner = unlimited_scanner();
        let mut len = 0;
        while (len as u64) < bytes
            && let Ok(Some(span)) = scanner.next(&unsent[len..])
        {
            len += span.len;
        }
        // An incomplete publish here would be a bug. Sending everything at once is then better than never sending it.
        self.sent + if len == 0 { unsent.len() } else { len } as u64
    }

    /// Returns the number of publishes in the log between two offsets, without those already acked.
    pub(crate) fn frames_between(&self, from: u64, to: u64) -> u64 {
        let index = |offset: u64| (offset.clamp(self.log_start, self.written.log) - self.log_start) as usize;
        publishes(&self.log[index(from)..index(to)]).total()
    }

    /// Returns the end offset of the log.
    pub(crate) fn log_end(&self) -> u64 {
        self.written.log
    }

    /// Records that the present node took `bytes` of the log.
    pub(crate) fn sent_again(&mut self, bytes: usize, now: Instant) {
        self.sent += bytes as u64;
        self.wrote(bytes, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"PUB a 1\r\nx\r\n";

    fn wrote_dropped(doubt: &mut Doubt, subjects: &str, now: Instant) {
        let mut tally = Tally::default();
        let subjects = subjects.split(' ');
        subjects.for_each(|subject| tally.count(subject.as_bytes()));
        doubt.wrote_dropped(tally.total(), &tally, 10, now);
    }

    #[test]
    fn s3_subjects_in_doubt_are_known_with_any_number_of_unanswered_pings() {
        let now = Instant::now();
        for acked in [10, 500] {
            let mut doubt = Doubt::default();
            let marks: Vec<Mark> = (0..1000)
                .map(|_| {
                    wrote_dropped(&mut doubt, "a.b", now);
                    doubt.mark()
                })
                .collect();
            assert!(doubt.marked.len() <= MARKED_MAX);
            doubt.confirm(marks[acked - 1]);
            let left = 1000 - acked as u64;
            let (in_doubt, subjects) = doubt.node_lost();
            assert_eq!((in_doubt.dropped, subjects.total()), (left, left));
        }
    }

    #[test]
    fn s3_a_pong_acks_the_publishes_before_its_ping() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        wrote_dropped(&mut doubt, "a.1 a.2 b", now);
        doubt.wrote_logged(FRAME, now);
        let mark = doubt.mark();
        wrote_dropped(&mut doubt, "c.1 a.3", now);
        doubt.wrote_logged(FRAME, now);
        doubt.confirm(mark);
        let (in_doubt, subjects) = doubt.node_lost();
        assert_eq!((in_doubt.dropped, in_doubt.resent), (2, 1));
        assert_eq!(subjects.to_string(), "a=1 c=1");
        assert_eq!(doubt.unsent(doubt.log_end()), FRAME);
        assert_eq!(doubt.node_lost(), Default::default());
    }

    #[test]
    fn s3_only_publishes_sent_completely_to_the_second_node_are_in_doubt_again() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        doubt.wrote_logged(FRAME, now);
        doubt.wrote_logged(FRAME, now);
        assert_eq!(doubt.node_lost().0.resent, 2);
        doubt.sent_again(FRAME.len() + 3, now);
        assert_eq!(doubt.node_lost().0.resent, 1);
        assert_eq!(doubt.unsent(doubt.log_end()), [FRAME, FRAME].concat());
    }

    #[test]
    fn s3_a_mark_stays_valid_over_a_move() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        doubt.wrote_logged(FRAME, now);
        let mark = doubt.mark();
        doubt.wrote_logged(FRAME, now);
        doubt.node_lost();
        assert_eq!(doubt.unsent(mark.log), FRAME);
        doubt.sent_again(FRAME.len(), now);
        let again = doubt.mark();
        assert_eq!(again.log, mark.log);
        doubt.confirm(again);
        assert_eq!(doubt.unsent(doubt.log_end()), FRAME);
    }
}
