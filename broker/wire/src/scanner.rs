//! The scanner: finds the next whole frame at the start of a buffer. Every message passes it, so it is optimised.
//!
//! A scanner does not keep the bytes of an incomplete frame: the caller reads more, and calls again with the same bytes and
//! the new ones. The scanner remembers only the control line of the last message. Most lines equal the one before, because
//! publishers repeat subject and size, and subscribers receive the same subscription id. There are three paths:
//!
//! | path | control line | time for a frame | name in the benchmark |
//! |---|---|---|---|
//! | memo | equal to the last one | 4 ns | `same` |
//! | plain | short PUB or MSG as client libraries and servers write it | 18 ns | `varied` |
//! | general | any other | 25 ns and more | `odd` |
//!
//! The times do not depend on the payload, because its bytes are not read. They were measured on one machine with
//! `cargo bench -p standin-wire --features bench`.

use std::marker::PhantomData;

use memchr::memchr;
use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::limits::FrameLimits;
use crate::line::{shape, size};

/// One side of the protocol, client or server: its verbs and their arguments.
pub trait Dialect {
    /// The verbs that this side sends.
    type Verb: Copy + std::fmt::Debug + PartialEq;

    /// The message without headers, which is the most frequent frame.
    const PLAIN: PlainMessage<Self::Verb>;

    /// Returns the verb at the start of `bytes` and the offset of its arguments, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`WireError::UnknownVerb`] as soon as no verb begins with these bytes.
    fn verb(bytes: &[u8]) -> Result<Option<(Self::Verb, usize)>, WireError>;

    /// Returns the size of the body that follows the control line. `args` is the line after the verb, without its line end.
    ///
    /// # Errors
    /// [`WireError::Arguments`].
    fn body(verb: Self::Verb, args: &[u8]) -> Result<Body, WireError>;
}

/// Form of a message without headers, for the plain path of the scanner.
#[derive(Debug)]
pub struct PlainMessage<V> {
    /// The verb in capitals and a blank, as client libraries and servers write it.
    pub head: [u8; 4],
    /// The verb.
    pub verb: V,
    /// Number of tokens in the control line, including the verb. The last token is the size.
    pub tokens: std::ops::RangeInclusive<u32>,
}

/// The part of a frame that follows the control line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The frame ends with the control line.
    Nothing,
    /// This number of bytes and a line end.
    Payload(usize),
}

/// Position of a frame at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span<V> {
    /// Verb of the frame.
    pub verb: V,
    /// Length of the control line including its line end, in bytes.
    pub head: usize,
    /// Length of the whole frame including all line ends, in bytes.
    pub len: usize,
    /// Whether the control line is known to equal that of the message before. If `false`, it may still be equal.
    pub repeats: bool,
    /// Offset of the arguments, which is the length of the verb, in bytes.
    args_at: u8,
    /// Length of the line end of the control line: 2 bytes, or 1 for `\n` alone.
    end: u8,
}

impl<V> Span<V> {
    /// Returns two parts of the frame `bytes`: the arguments on the control line, and the headers with the payload.
    #[inline]
    pub(crate) fn parts<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let args = &bytes[usize::from(self.args_at)..self.head - usize::from(self.end)];
        let body = if self.len > self.head {
            &bytes[self.head..self.len - 2]
        } else {
            &[]
        };
        (args, body)
    }

    /// Returns the arguments on the control line of the frame `bytes`.
    #[inline]
    pub fn args<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.parts(bytes).0
    }
}

/// Longest control line that is remembered, in bytes.
const MEMO_BYTES_MAX: usize = 64;

/// The control line of the last message. The bytes after its line end have no meaning.
#[derive(Debug, Clone, Copy)]
struct Memo<V> {
    line: [u8; MEMO_BYTES_MAX],
    span: Span<V>,
}

/// Finds the frames of one side of the protocol. The documentation of the module describes how.
#[derive(Debug)]
pub struct Scanner<D: Dialect> {
    limits: FrameLimits,
    memo: Option<Box<Memo<D::Verb>>>,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Scanner<D> {
    /// Creates a scanner that enforces `limits`.
    #[must_use]
    pub const fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            memo: None,
            dialect: PhantomData,
        }
    }

    /// Returns the limits.
    #[must_use]
    pub const fn limits(&self) -> FrameLimits {
        self.limits
    }

    /// Changes the limits, for example after an INFO with another `max_payload`.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
        self.memo = None;
    }

    /// Finds the frame at the start of `buf`. Returns `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are not the beginning of a valid frame within the limits. An unknown verb is reported at its
    /// first wrong byte, a payload above the limit at its control line, and a line above the limit before its end.
    // Inlined by force, as are `plain` and `complete_and_remember` (measured: `tests/bench sidecar --only passing`, 16 B).
    #[inline(always)]
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        if let Some(memo) = &self.memo
            && let Some(head) = buf.first_chunk::<MEMO_BYTES_MAX>()
            && memo.is_head_of(head)
        {
            return complete(buf, memo.span);
        }
        if let Some(span) = self.plain(buf) {
            return self.complete_and_remember(buf, span);
        }
        self.general(buf)
    }

    /// Returns the number of complete frames at the start of `buf` that have the same control line, byte for byte, as the last
    /// message. Each is as long as that message. A frame that begins in the last 63 bytes of `buf` is not counted. Counting
    /// a frame takes a third of the time of [`next`](Self::next) (`tests/bench sidecar --only passing`, 16 B).
    #[inline]
    pub fn repeated(&self, buf: &[u8]) -> usize {
        let Some((memo, mask)) = self
            .memo
            .as_deref()
            .and_then(|memo| Some((memo, mask(memo.span.head)?)))
        else {
            return 0;
        };
        let (line, len) = (memo.line, memo.span.len);
        let mut at = 0;
        while let Some(head) = buf.get(at..).and_then(<[u8]>::first_chunk::<MEMO_BYTES_MAX>)
            && buf.get(at + len - 2..at + len) == Some(b"\r\n")
            && is_same_line(head, &line, mask)
        {
            at += len;
        }
        at / len
    }

    /// The plain path. Returns the span of a message without headers that has a short control line; `None` for any other frame,
    /// valid or not.
    // Inlined by force, as is `shape`. Otherwise, a fifth of the time is spent on returning the span through memory
    // (`scan/*/varied`).
    #[inline(always)]
    fn plain(&self, buf: &[u8]) -> Option<Span<D::Verb>> {
        let head = buf.first_chunk::<MEMO_BYTES_MAX>()?;
        if !head.starts_with(&D::PLAIN.head) {
            return None;
        }
        let shape = shape(head)?;
        let size_bytes = size(&head[shape.last_start..shape.last_end])?;
        let fits = D::PLAIN.tokens.contains(&shape.tokens)
            && shape.newline <= self.limits.line_bytes_max
            && size_bytes <= self.limits.payload_bytes_max;
        fits.then(|| Span {
            verb: D::PLAIN.verb,
            head: shape.newline + 1,
            len: shape.newline + 1 + size_bytes + 2,
            repeats: false,
            args_at: 3,
            end: 1 + u8::from(head[shape.newline - 1] == b'\r'),
        })
    }

    /// Returns how many bytes are missing from the frame at the start of `buf`. The number is exact if the control line is
    /// complete, and 1 otherwise.
    #[must_use]
    pub fn missing(&self, buf: &[u8]) -> usize {
        match self.frame_span(buf) {
            Ok(Some(span)) => span.len.saturating_sub(buf.len()).max(1),
            Ok(None) | Err(_) => 1,
        }
    }

    /// The general path: splits the control line into its tokens.
    fn general(&mut self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        match self.frame_span(buf)? {
            Some(span) if span.len > span.head => self.complete_and_remember(buf, span),
            line => Ok(line),
        }
    }

    /// Returns the span of the frame at the start of `buf`, which may still be incomplete; `None` if the control line is
    /// incomplete.
    fn frame_span(&self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        let line_max = self.limits.line_bytes_max;
        let Some((verb, args_at)) = D::verb(buf)? else {
            return Ok(None);
        };
        // The limit is for the arguments, without the verb, one blank and the line end, as in `nats-server`.
        let text_max = args_at + 1 + line_max;
        let within = &buf[..buf.len().min(text_max + 2)];
        let Some(newline) = memchr(b'\n', within) else {
            let full = within.len() == text_max + 2;
            return if full {
                Err(WireError::LineTooLong { max_bytes: line_max })
            } else {
                Ok(None)
            };
        };
        let end = if buf[newline - 1] == b'\r' { 2 } else { 1 };
        let head = newline + 1;
        if head - end > text_max {
            return Err(WireError::LineTooLong { max_bytes: line_max });
        }
        let body = D::body(verb, &buf[args_at..head - end])?;
        let mut span = Span {
            verb,
            head,
            len: head,
            repeats: false,
            args_at: args_at as u8,
            end: end as u8,
        };
        let Body::Payload(size_bytes) = body else {
            return Ok(Some(span));
        };
        let max_bytes = self.limits.payload_bytes_max;
        if size_bytes > max_bytes {
            return Err(WireError::PayloadTooLarge {
                size_bytes,
                max_bytes,
            });
        }
        span.len = head + size_bytes + 2;
        Ok(Some(span))
    }

    #[inline(always)]
    fn complete_and_remember(
        &mut self,
        buf: &[u8],
        span: Span<D::Verb>,
    ) -> Result<Option<Span<D::Verb>>, WireError> {
        let found = complete(buf, span)?;
        // Only a complete frame is remembered, because `repeats` compares with the frame before.
        if found.is_some() {
            self.remember(buf, span);
        }
        Ok(found)
    }

    #[inline]
    fn remember(&mut self, buf: &[u8], span: Span<D::Verb>) {
        let span = Span {
            repeats: true,
            ..span
        };
        if span.head > MEMO_BYTES_MAX {
            self.memo = None;
            return;
        }
        let memo = self.memo.get_or_insert_with(|| {
            Box::new(Memo {
                line: [0; MEMO_BYTES_MAX],
                span,
            })
        });
        memo.span = span;
        match buf.first_chunk() {
            Some(line) => memo.line = *line,
            None => memo.line[..buf.len()].copy_from_slice(buf),
        }
    }
}

impl<V> Memo<V> {
    #[inline]
    fn is_head_of(&self, head: &[u8; MEMO_BYTES_MAX]) -> bool {
        let Some(mask) = mask(self.span.head) else {
            return false;
        };
        is_same_line(head, &self.line, mask)
    }
}

/// Returns whether two lines are the same where `mask` has ones.
#[inline]
fn is_same_line(
    one: &[u8; MEMO_BYTES_MAX],
    other: &[u8; MEMO_BYTES_MAX],
    mask: &[u8; MEMO_BYTES_MAX],
) -> bool {
    let mut difference = 0;
    for at in 0..MEMO_BYTES_MAX {
        difference |= (one[at] ^ other[at]) & mask[at];
    }
    difference == 0
}

/// Returns a mask with ones for the first `line_bytes` bytes and zeros for the others; `None` for a line that is too long to
/// be remembered.
#[inline]
fn mask(line_bytes: usize) -> Option<&'static [u8; MEMO_BYTES_MAX]> {
    const EDGE: [u8; 2 * MEMO_BYTES_MAX] = {
        let mut edge = [0; 2 * MEMO_BYTES_MAX];
        let mut at = 0;
        while at < MEMO_BYTES_MAX {
            edge[at] = 0xff;
            at += 1;
        }
        edge
    };
    static BYTES: [u8; 2 * MEMO_BYTES_MAX] = EDGE;
    BYTES
        .get(MEMO_BYTES_MAX.checked_sub(line_bytes)?..)?
        .first_chunk()
}

/// Returns `span` if `buf` contains the whole frame; `None` if more bytes are needed.
///
/// # Errors
/// [`WireError::PayloadEnd`].
#[inline]
fn complete<V>(buf: &[u8], span: Span<V>) -> Result<Option<Span<V>>, WireError> {
    match buf.get(span.len - 2..span.len) {
        Some(b"\r\n") => Ok(Some(span)),
        Some(_) => Err(WireError::PayloadEnd),
        None => match buf.get(span.len - 2) {
            Some(last) if *last != b'\r' => Err(WireError::PayloadEnd),
            _ => Ok(None),
        },
    }
}

/// Returns the verb at the start of `bytes`, and its length; `None` if more bytes are needed. Each entry of `verbs` has the
/// name in capitals, whether a blank must follow it, and the value.
#[inline]
pub(crate) fn verb<V: Copy>(
    bytes: &[u8],
    verbs: &[(&'static [u8], bool, V)],
) -> Result<Option<(V, usize)>, WireError> {
    let mut is_prefix = false;
    for (name, needs_blank, verb) in verbs {
        let have = bytes.len().min(name.len());
        if !bytes[..have].eq_ignore_ascii_case(&name[..have]) {
            continue;
        }
        if have < name.len() {
            is_prefix = true;
            continue;
        }
        match bytes.get(name.len()) {
            None => is_prefix = true,
            Some(_) if !needs_blank => return Ok(Some((*verb, name.len()))),
            Some(b' ' | b'\t') => return Ok(Some((*verb, name.len()))),
            Some(_) => {}
        }
    }
    if is_prefix { Ok(None) } else { Err(unknown(bytes)) }
}

fn unknown(bytes: &[u8]) -> WireError {
    let mut first = [0; 4];
    let have = bytes.len().min(4);
    first[..have].copy_from_slice(&bytes[..have]);
    WireError::UnknownVerb(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientScanner, Verb};

    const LIMITS: FrameLimits = FrameLimits {
        line_bytes_max: 100,
        payload_bytes_max: 10,
    };

    fn scan(bytes: &[u8]) -> Result<Option<Span<Verb>>, WireError> {
        ClientScanner::new(LIMITS).next(bytes)
    }

    #[test]
    fn repeated_counts_the_frames_that_next_finds_one_by_one() {
        let frames = [
            "PUB a 1\r\nx\r\n",
            "PUB a 1\r\ny\r\n",
            "PUB b 1\r\nx\r\n",
            "PUB a 2\r\nxy\r\n",
            "PING\r\n",
        ];
        for seed in 0_u32..2000 {
            // The same frame is picked five times in a row.
            let picks =
                (0..40).map(|at| frames[(seed.wrapping_mul(2_654_435_761) >> (at / 5 * 3)) as usize % 5]);
            let stream: Vec<u8> = picks.flat_map(|frame| frame.bytes()).collect();
            let mut scanner = ClientScanner::new(LIMITS);
            let mut at = 0;
            while let Ok(Some(span)) = scanner.next(&stream[at..]) {
                at += span.len;
                if span.verb != Verb::Pub {
                    continue;
                }
                let repeated = scanner.repeated(&stream[at..]);
                let mut alone = at;
                for _ in 0..repeated {
                    let next = scanner.next(&stream[alone..]).unwrap().unwrap();
                    assert!(next.repeats && next.len == span.len, "seed {seed}");
                    alone += next.len;
                }
                let is_cut = stream.len() - alone < MEMO_BYTES_MAX;
                let next = scanner.next(&stream[alone..]).unwrap();
                assert!(
                    is_cut || next.is_some_and(|next| !next.repeats || next.verb != Verb::Pub),
                    "seed {seed}"
                );
                at = alone + next.map_or(0, |next| next.len);
            }
        }
    }

    #[test]
    fn a_frame_that_repeats_a_line_but_ends_wrongly_or_is_cut_is_not_counted() {
        let mut scanner = ClientScanner::new(LIMITS);
        let frame = b"PUB a 5\r\nhello\r\n";
        assert!(scanner.next(frame).unwrap().is_some());
        let mut stream = frame.repeat(10);
        assert_eq!(
            scanner.repeated(&stream),
            7,
            "frames in the last 63 bytes are not counted"
        );
        stream[3 * frame.len() - 1] = b'x';
        assert_eq!(scanner.repeated(&stream), 2);
        assert_eq!(scanner.repeated(&frame[..10]), 0);
        assert_eq!(ClientScanner::new(LIMITS).repeated(&stream), 0);
    }

    #[test]
    fn the_line_limit_is_the_longest_allowed_length_of_the_arguments() {
        let too_long = Err(WireError::LineTooLong { max_bytes: 100 });
        for verb in ["SUB", "UNSUB", "CONNECT", "PING"] {
            for end in ["\r\n", "\n"] {
                let at_limit = format!("{verb} {}{end}", "a".repeat(98) + " 1");
                assert_eq!(
                    scan(at_limit.as_bytes()).unwrap().unwrap().len,
                    at_limit.len(),
                    "{verb}"
                );
                let over = format!("{verb} {}{end}", "a".repeat(99) + " 1");
                assert_eq!(scan(over.as_bytes()), too_long, "{verb}");
            }
            // Without a line end, the error is reported when the line would be too long even if it ended here.
            let open = format!("{verb} {}", "a".repeat(101));
            assert_eq!(scan(open.as_bytes()), Ok(None), "{verb}");
            assert_eq!(scan((open + "aa").as_bytes()), too_long, "{verb}");
        }
    }

    #[test]
    fn the_plain_path_enforces_a_small_line_limit() {
        let limits = FrameLimits {
            line_bytes_max: 5,
            payload_bytes_max: 100,
        };
        let payload = "x".repeat(99);
        for (line, taken) in [("PUB aa 99", true), ("PUB aaa 99", false)] {
            for end in ["\r\n", "\n"] {
                let found = ClientScanner::new(limits).next(format!("{line}{end}{payload}\r\n").as_bytes());
                assert_eq!(found.is_ok(), taken, "{line}");
            }
        }
    }

    #[test]
    fn a_payload_above_the_limit_is_an_error_at_its_control_line() {
        let found = scan(b"PUB a 10\r\n0123456789\r\n").unwrap().unwrap();
        assert_eq!((found.head, found.len), (10, 22));
        let over = Err(WireError::PayloadTooLarge {
            size_bytes: 11,
            max_bytes: 10,
        });
        assert_eq!(scan(b"PUB a 11\r\n"), over);
        assert_eq!(scan(b"HPUB a 2 11\r\n"), over);
        let long = [b"PUB a 11\r\n".as_slice(), &[b'x'; 80]].concat();
        assert_eq!(scan(&long), over);
    }

    #[test]
    fn a_payload_without_its_line_end_is_an_error_at_the_first_wrong_byte() {
        assert_eq!(scan(b"PUB a 3\r\nabc"), Ok(None));
        assert_eq!(scan(b"PUB a 3\r\nabc\r"), Ok(None));
        for wrong in [
            "PUB a 3\r\nabcd",
            "PUB a 3\r\nabc\rd",
            "PUB a 3\r\nabc\n",
            "PUB a 3\r\nab\r\nPI",
        ] {
            assert_eq!(scan(wrong.as_bytes()), Err(WireError::PayloadEnd), "{wrong:?}");
        }
    }

    #[test]
    fn the_number_of_missing_bytes_is_exact_once_the_control_line_is_complete() {
        for frame in ["PUB a 10\r\n0123456789\r\n", "HPUB a 2 10\n0123456789\r\n"] {
            let line = frame.find('\n').unwrap() + 1;
            for cut in 0..frame.len() {
                let missing = ClientScanner::new(LIMITS).missing(&frame.as_bytes()[..cut]);
                let wanted = if cut < line { 1 } else { frame.len() - cut };
                assert_eq!(missing, wanted, "{:?}", &frame[..cut]);
            }
        }
        assert_eq!(ClientScanner::new(LIMITS).missing(b"SUB a"), 1);
    }

    #[test]
    fn repeats_is_set_for_a_line_equal_to_the_one_before() {
        let mut scanner = ClientScanner::new(LIMITS);
        let long = format!("PUB {} 1\r\nx\r\n", "b".repeat(80));
        let frames = [
            ("PUB a 1\r\nx\r\n", false),
            ("PUB a 1\r\ny\r\n", true),
            ("PING\r\n", false),
            ("PUB a 1\r\ny\r\n", true),
            ("PUB a 2\r\nxy\r\n", false),
            ("PUB a 1\r\nx\r\n", false),
            (&long, false),
            (&long, false),
            ("PUB a 1\r\nx\r\n", false),
            ("PUB a 1\r\nx\r\n", true),
        ];
        let stream: String =
            frames.iter().map(|(frame, _)| *frame).collect::<String>() + &"PING\r\n".repeat(20);
        let mut at = 0;
        for (frame, repeats) in frames {
            let span = scanner.next(&stream.as_bytes()[at..]).unwrap().unwrap();
            assert_eq!((span.len, span.repeats), (frame.len(), repeats), "{frame:?}");
            at += span.len;
        }
    }

    #[test]
    fn changed_limits_apply_to_a_remembered_line() {
        let bytes = [b"PUB a 10\r\n0123456789\r\n".as_slice(), &[b'\n'; 64]].concat();
        let mut scanner = ClientScanner::new(LIMITS);
        assert!(scanner.next(&bytes).is_ok());
        assert!(scanner.next(&bytes).unwrap().unwrap().repeats);
        scanner.set_limits(FrameLimits {
            payload_bytes_max: 9,
            ..LIMITS
        });
        assert_eq!(scanner.next(&bytes).unwrap_err().kind(), "payload_too_large");
    }
}
