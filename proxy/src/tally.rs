//! Counts of messages by the first token of their subject, for the log line about lost messages.
//!
//! The number of different tokens is bounded, so that a component cannot make a log line or a buffer grow.

use std::fmt;

use serde::{Deserialize, Serialize};
use standin_wire::ClientScanner;
use standin_wire::client::Verb;
use standin_wire::limits::{FrameLimits, PAYLOAD_BYTES_MAX};

/// Maximum number of distinct first tokens that have a count of their own. All further tokens share one count.
const TOKENS_MAX: usize = 16;
/// Maximum number of bytes kept of a token. Tokens that differ only after these bytes share one count.
const TOKEN_BYTES: usize = 16;

/// The beginning of a subject's first token, padded with zeros.
type Token = [u8; TOKEN_BYTES];

/// Counts of messages by the first token of their subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    counts: Vec<(Token, u64)>,
    others: u64,
    /// Index in `counts` of the token counted last.
    last: usize,
}

impl Tally {
    /// Counts one message. `args` is the control line without its verb, so it begins with the subject.
    pub(crate) fn count(&mut self, args: &[u8]) {
        self.add_token(first_token(args), 1);
    }

    /// Counts `times` more messages with the same subject as the message counted last.
    pub(crate) fn count_again(&mut self, times: u64) {
        match self.counts.get_mut(self.last) {
            Some((_, count)) => *count += times,
            None => self.others += times,
        }
    }

    /// Counts `repeats` more messages with the same subject as the message counted last, then one message with `args`.
    /// Not inlined, because inlining slows down the calling loop (`tests/bench sidecar`, 16 B).
    #[inline(never)]
    pub(crate) fn count_behind(&mut self, repeats: u64, args: &[u8]) {
        self.count_again(repeats);
        self.count(args);
    }

    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        for (token, count) in &other.counts {
            self.add_token(*token, *count);
        }
        self.others += other.others;
    }

    /// Returns the number of messages counted.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum::<u64>() + self.others
    }

    /// Returns whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.others == 0
    }

    /// Lowers the counts, beginning with the first, so that at most `total` messages are counted.
    pub(crate) fn lower_to(&mut self, total: u64) {
        let mut surplus = self.total().saturating_sub(total);
        let counts = self.counts.iter_mut().map(|(_, count)| count);
        for count in counts.chain([&mut self.others]) {
            let cut = surplus.min(*count);
            *count -= cut;
            surplus -= cut;
        }
        self.counts.retain(|(_, count)| *count > 0);
    }

    /// Resets all counts and keeps the memory for the next use.
    pub(crate) fn clear(&mut self) {
        self.counts.clear();
        self.others = 0;
    }

    fn add_token(&mut self, token: Token, count: u64) {
        let known = self.counts.iter().position(|(known, _)| *known == token);
        self.last = known.unwrap_or(self.counts.len());
        match self.counts.get_mut(self.last) {
            Some((_, known)) => *known += count,
            None if self.last < TOKENS_MAX => self.counts.push((token, count)),
            None => self.others += count,
        }
    }
}

fn first_token(args: &[u8]) -> Token {
    let subject = args.trim_ascii_start();
    let mut token = [0; TOKEN_BYTES];
    for (kept, byte) in token.iter_mut().zip(subject) {
        if matches!(byte, b'.' | b' ' | b'\t') {
            break;
        }
        *kept = *byte;
    }
    token
}

/// Counts the publishes in `frames`, up to the first incomplete frame.
pub(crate) fn publishes(frames: &[u8]) -> Tally {
    whole_publishes(frames).0
}

/// Counts the publishes in `frames`, up to the first incomplete frame. Also returns the length of the complete frames.
pub(crate) fn whole_publishes(frames: &[u8]) -> (Tally, usize) {
    let mut scanner = unlimited_scanner();
    let (mut tally, mut at) = (Tally::default(), 0);
    while let Ok(Some(span)) = scanner.next(&frames[at..]) {
        if matches!(span.verb, Verb::Pub | Verb::Hpub) {
            tally.count(span.args(&frames[at..at + span.len]));
        }
        at += span.len;
    }
    (tally, at)
}

/// Returns a scanner with the largest possible limits. It finds a frame that was already checked even if the configured
/// limits have been lowered since.
pub(crate) fn unlimited_scanner() -> ClientScanner {
    ClientScanner::new(FrameLimits {
        // Larger than any value that `session.control_line_bytes_max` may have.
        line_bytes_max: PAYLOAD_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    })
}

/// Writes the counts as `router=12 health=3 others=1`, the highest count first and `others` last.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<&(Token, u64)> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut separator = "";
        for (token, count) in counts {
            let end = token.iter().position(|byte| *byte == 0).unwrap_or(TOKEN_BYTES);
            write!(formatter, "{separator}{}={count}", token[..end].escape_ascii())?;
            separator = " ";
        }
        if self.others > 0 {
            write!(formatter, "{separator}others={}", self.others)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(subjects: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for subject in subjects {
            tally.count(format!("{subject} 5").as_bytes());
        }
        tally
    }

    #[test]
    fn messages_are_counted_by_the_first_token_of_their_subject() {
        let mut tally = tally(&["a.b", "b", "a", "a.c.d"]);
        tally.count_again(1);
        tally.count(b"  b\treply 1");
        assert_eq!(tally.to_string(), "a=4 b=2");
        assert_eq!(tally.total(), 6);
        let before = tally.clone();
        tally.add(&before);
        assert_eq!(tally.to_string(), "a=8 b=4");
        tally.lower_to(3);
        assert_eq!(tally.to_string(), "b=3");
        tally.clear();
        assert!(tally.is_empty());
    }

    #[test]
    fn the_number_and_the_length_of_tokens_are_bounded() {
        let subjects: Vec<String> = (0..100).map(|number| format!("s{number}.x")).collect();
        let mut tally = tally(&subjects.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(tally.total(), 100);
        assert!(tally.to_string().ends_with(" others=84"), "{tally}");
        tally.count_again(1);
        assert_eq!(tally.total(), 101);
        let shown = |subject| self::tally(&[subject]).to_string();
        assert_eq!(shown("0123456789abcdefgh"), "0123456789abcdef=1");
        assert_eq!(shown("a\x1b[0m"), "a\\x1b[0m=1", "control characters are escaped");
    }
}
