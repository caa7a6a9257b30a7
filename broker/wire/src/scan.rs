//! Finds the next whole frame at the head of a buffer. This is the hot end of the wire: every message passes here.
//!
//! A scanner holds no bytes of the stream, so a caller may cut the stream anywhere and ask again with more. What it does
//! hold is the control line of the last message: publishers repeat their subject and size, subscribers get the same
//! sid again, so most lines are the same as the one before, byte for byte. There are three ways through: the line is the
//! remembered one (4 ns a frame on the machine it was written on), it is a short PUB or MSG as programs write them
//! (18 ns), or it is anything else (25 ns and more). A payload's bytes are not looked at, so its length makes no
//! difference. `cargo bench -p standin-wire --features bench` measures the three as `same`, `varied` and `odd`.

use std::marker::PhantomData;

use memchr::memchr;

use crate::error::WireError;
use crate::limits::FrameLimits;
use crate::line::{shape, size};

/// One side of the protocol: its verbs and their arguments.
pub trait Dialect {
    /// The verbs of this side.
    type Verb: Copy + std::fmt::Debug + PartialEq;

    /// The message without headers, which nearly every frame is.
    const PLAIN: Plain<Self::Verb>;

    /// The verb at the head of `bytes` and where its arguments start; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError::UnknownVerb`] as soon as the bytes fit no verb.
    fn verb(bytes: &[u8]) -> Result<Option<(Self::Verb, usize)>, WireError>;

    /// What the control line announces to follow it. `args` is the line behind the verb, without its end.
    ///
    /// # Errors
    /// [`WireError::Arguments`].
    fn announced(verb: Self::Verb, args: &[u8]) -> Result<Announced, WireError>;
}

/// The shape of a plain message, for the short way through the scanner.
#[derive(Debug)]
pub struct Plain<V> {
    /// The verb as clients and servers write it, and a blank.
    pub head: [u8; 4],
    /// The verb.
    pub verb: V,
    /// How many tokens the line has, with the verb. The last is the size.
    pub tokens: std::ops::RangeInclusive<u32>,
}

/// What follows a control line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// The line is the frame.
    Nothing,
    /// So many bytes and a line end.
    Payload(usize),
}

/// Where a whole frame lies at the head of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<V> {
    /// Its verb.
    pub verb: V,
    /// Length of the control line with its line end, in bytes.
    pub head: usize,
    /// Length of the whole frame with all line ends, in bytes.
    pub len: usize,
    /// The control line is the same, byte for byte, as that of the message before. A hint: `false` says nothing.
    pub repeats: bool,
    /// Where the arguments start: the length of the verb, in bytes.
    args_at: u8,
    /// How many bytes end the control line: 2, or 1 for a bare `\n`.
    end: u8,
}

impl<V> Span<V> {
    /// The arguments on the control line and the payload with its headers, of the frame `bytes`.
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

    /// The arguments on the control line of the frame `bytes`.
    #[inline]
    pub fn args<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.parts(bytes).0
    }
}

/// Control lines up to this many bytes are remembered; longer ones are split each time.
const MEMO_BYTES_MAX: usize = 64;

/// The control line of the last message. Bytes behind the line's end are whatever followed it.
#[derive(Debug, Clone, Copy)]
struct Memo<V> {
    line: [u8; MEMO_BYTES_MAX],
    span: Span<V>,
}

/// Finds whole frames of one direction. See the file's head.
#[derive(Debug)]
pub struct Scanner<D: Dialect> {
    limits: FrameLimits,
    memo: Option<Box<Memo<D::Verb>>>,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Scanner<D> {
    /// A scanner that keeps `limits`.
    #[must_use]
    pub const fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            memo: None,
            dialect: PhantomData,
        }
    }

    /// The limits it keeps.
    #[must_use]
    pub const fn limits(&self) -> FrameLimits {
        self.limits
    }

    /// Keeps other limits from now on (a later INFO may name another `max_payload`).
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
        self.memo = None;
    }

    /// Forgets the last control line, and the memory it took.
    pub fn forget(&mut self) {
        self.memo = None;
    }

    /// Finds the whole frame at the head of `buf`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`WireError`] when the bytes can no longer become a frame within the limits: an unknown verb shows in its first
    /// byte, a payload over the limit on its control line, a line over the limit before it ends.
    // Inlined by force, like its callees, for the same reason (`tests/bench sidecar --only passing`, 16 B).
    #[inline(always)]
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        if let Some(memo) = &self.memo
            && let Some(head) = buf.first_chunk::<MEMO_BYTES_MAX>()
            && memo.is_head_of(head)
        {
            return whole(buf, memo.span);
        }
        if let Some(span) = self.plain(buf) {
            return self.whole_and_remembered(buf, span);
        }
        self.split(buf)
    }

    /// The span of a plain message with a short line; `None` is for [`split`](Self::split) to judge.
    // Inlined by force, as are its two callees: a span handed over in memory costs a fifth of the whole (`scan/*/varied`).
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

    /// How many bytes the frame at the head of `buf` still needs: at least one, and all of them when its control line is there.
    #[must_use]
    pub fn missing(&self, buf: &[u8]) -> usize {
        match self.announced(buf) {
            Ok(Some(span)) => span.len.saturating_sub(buf.len()).max(1),
            Ok(None) | Err(_) => 1,
        }
    }

    /// Splits the control line into its tokens: the long way, for every frame that the short ones do not take.
    fn split(&mut self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        match self.announced(buf)? {
            Some(span) if span.len > span.head => self.whole_and_remembered(buf, span),
            line => Ok(line),
        }
    }

    /// The span of the frame at the head of `buf`, whole or not; `None` while its control line is not there.
    fn announced(&self, buf: &[u8]) -> Result<Option<Span<D::Verb>>, WireError> {
        let line_max = self.limits.line_bytes_max;
        let Some((verb, args_at)) = D::verb(buf)? else {
            return Ok(None);
        };
        // The limit is on the arguments; verb, one blank and line end come on top, as in `nats-server`.
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
        let announced = D::announced(verb, &buf[args_at..head - end])?;
        let mut span = Span {
            verb,
            head,
            len: head,
            repeats: false,
            args_at: args_at as u8,
            end: end as u8,
        };
        let Announced::Payload(size_bytes) = announced else {
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
    fn whole_and_remembered(
        &mut self,
        buf: &[u8],
        span: Span<D::Verb>,
    ) -> Result<Option<Span<D::Verb>>, WireError> {
        let found = whole(buf, span)?;
        // Not before the frame is whole: `repeats` promises that the frame before had the same line.
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
        let mut difference = 0;
        for at in 0..MEMO_BYTES_MAX {
            difference |= (head[at] ^ self.line[at]) & mask[at];
        }
        difference == 0
    }
}

/// Ones for the first `line_bytes` bytes, zeros for the others; `None` for a line too long to be remembered.
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

/// `span` when all of it is in `buf` and its payload ends as it must.
#[inline]
fn whole<V>(buf: &[u8], span: Span<V>) -> Result<Option<Span<V>>, WireError> {
    match buf.get(span.len - 2..span.len) {
        Some(b"\r\n") => Ok(Some(span)),
        Some(_) => Err(WireError::PayloadEnd),
        None => match buf.get(span.len - 2) {
            Some(last) if *last != b'\r' => Err(WireError::PayloadEnd),
            _ => Ok(None),
        },
    }
}

/// The verb of `verbs` (name in capitals, whether a blank must follow, value) at the head of `bytes`.
#[inline]
pub(crate) fn verb<V: Copy>(
    bytes: &[u8],
    verbs: &[(&'static [u8], bool, V)],
) -> Result<Option<(V, usize)>, WireError> {
    let mut may_come = false;
    for (name, needs_blank, verb) in verbs {
        let have = bytes.len().min(name.len());
        if !bytes[..have].eq_ignore_ascii_case(&name[..have]) {
            continue;
        }
        if have < name.len() {
            may_come = true;
            continue;
        }
        match bytes.get(name.len()) {
            None => may_come = true,
            Some(_) if !needs_blank => return Ok(Some((*verb, name.len()))),
            Some(b' ' | b'\t') => return Ok(Some((*verb, name.len()))),
            Some(_) => {}
        }
    }
    if may_come { Ok(None) } else { Err(unknown(bytes)) }
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
    fn arguments_go_up_to_the_line_limit_and_no_further() {
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
            // Without a line end the error comes when not even `\r\n` could make it fit.
            let open = format!("{verb} {}", "a".repeat(101));
            assert_eq!(scan(open.as_bytes()), Ok(None), "{verb}");
            assert_eq!(scan((open + "aa").as_bytes()), too_long, "{verb}");
        }
    }

    #[test]
    fn a_short_line_limit_holds_for_short_messages_too() {
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
    fn payloads_go_up_to_their_limit_which_shows_on_the_line_alone() {
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
    fn a_payload_of_another_length_than_said_is_an_error_as_soon_as_it_shows() {
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
    fn what_a_frame_still_needs_is_known_from_its_control_line_on() {
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
    fn a_repeated_line_is_said_to_repeat_and_another_is_not() {
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
    fn other_limits_hold_for_a_remembered_line() {
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
