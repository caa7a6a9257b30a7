//! The parts of a control line: blanks, tokens and sizes.

use crate::limits::SIZE_DIGITS_MAX;

/// Returns whether `byte` separates the arguments of a frame without payload. A `\r` inside such a line is a blank, as in
/// `nats-server`.
#[inline]
#[must_use]
pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// Returns whether `byte` separates the arguments of a message. A `\r` inside such a line is part of a token, as in
/// `nats-server`.
#[inline]
const fn is_message_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Splits the arguments `args` of a frame without payload at runs of blanks. Returns the tokens and their number, or `None` if
/// there are more than `N`.
#[inline]
#[must_use]
pub fn tokens<const N: usize>(args: &[u8]) -> Option<([&[u8]; N], usize)> {
    split(args, is_blank)
}

/// Splits the arguments of PUB, HPUB, MSG or HMSG like [`tokens`], but only at spaces and tabs.
#[inline]
#[must_use]
pub fn message_tokens<const N: usize>(args: &[u8]) -> Option<([&[u8]; N], usize)> {
    split(args, is_message_blank)
}

/// The arguments of PUB, HPUB, MSG and HMSG.
pub(crate) struct MessageArgs<'a, const NAMES: usize> {
    /// The tokens before the reply subject: the subject, and for MSG and HMSG the sid.
    pub(crate) names: [&'a [u8]; NAMES],
    pub(crate) reply: Option<&'a [u8]>,
    /// Length of the header block; `None` for PUB and MSG.
    pub(crate) headers: Option<usize>,
    /// Length of headers and payload.
    pub(crate) total: usize,
}

impl<'a, const NAMES: usize> MessageArgs<'a, NAMES> {
    /// Parses the arguments of a message whose line has at most `N` tokens: the names, an optional reply subject, the length of the
    /// headers if the message has any, and the total length. Returns `None` if they are invalid.
    #[inline]
    pub(crate) fn parse<const N: usize>(args: &'a [u8], has_headers: bool) -> Option<Self> {
        let (found, count) = message_tokens::<N>(args)?;
        let sizes = 1 + usize::from(has_headers);
        let reply = match count.checked_sub(NAMES + sizes)? {
            0 => None,
            _ => Some(found[NAMES]),
        };
        let total = size(found[count - 1])?;
        let headers = if has_headers {
            Some(size(found[count - 2])?)
        } else {
            None
        };
        if headers.is_some_and(|headers| headers > total) {
            return None;
        }
        Some(Self {
            names: *found.first_chunk()?,
            reply,
            headers,
            total,
        })
    }

    /// Splits the body of the message into headers and payload.
    #[inline]
    pub(crate) fn split<'b>(&self, body: &'b [u8]) -> (Option<&'b [u8]>, &'b [u8]) {
        match self.headers {
            None => (None, body),
            Some(headers) => {
                let (headers, payload) = body.split_at(headers.min(body.len()));
                (Some(headers), payload)
            }
        }
    }
}

#[inline]
fn split<const N: usize>(args: &[u8], is_blank: impl Fn(u8) -> bool) -> Option<([&[u8]; N], usize)> {
    let mut found: [&[u8]; N] = [&[]; N];
    let mut count = 0;
    let mut at = 0;
    loop {
        while at < args.len() && is_blank(args[at]) {
            at += 1;
        }
        if at == args.len() {
            return Some((found, count));
        }
        let start = at;
        while at < args.len() && !is_blank(args[at]) {
            at += 1;
        }
        if count == N {
            return None;
        }
        found[count] = &args[start..at];
        count += 1;
    }
}

/// Layout of a short control line: the number of tokens, including the verb, and three byte offsets: the start and the end of
/// the last token, and the `\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) tokens: u32,
    pub(crate) last_start: usize,
    pub(crate) last_end: usize,
    pub(crate) newline: usize,
}

/// Returns the shape of the message line at the start of `bytes`, with the same tokens as [`message_tokens`]. Returns `None` if
/// the line does not end within these bytes or is empty.
///
/// Each step processes eight bytes, and branches only on whether one of them is `\n`. A frame takes two thirds of the time that
/// it takes with [`message_tokens`] (`scan/*/varied` and `odd` in the benchmark).
#[inline(always)]
pub(crate) fn shape(bytes: &[u8; 64]) -> Option<Shape> {
    let mut blanks = 0;
    for (at, chunk) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        blanks |= packed(marked(word, b' ') | marked(word, b'\t')) << (8 * at);
        let newlines = marked(word, b'\n');
        if newlines == 0 {
            continue;
        }
        let newline = 8 * at + newlines.trailing_zeros() as usize / 8;
        let text = newline - usize::from(newline > 0 && bytes[newline - 1] == b'\r');
        let tokens = !blanks & ((1 << text) - 1);
        let starts = tokens & !(tokens << 1);
        return Some(Shape {
            tokens: starts.count_ones(),
            last_start: starts.checked_ilog2()? as usize,
            last_end: tokens.checked_ilog2()? as usize + 1,
            newline,
        });
    }
    None
}

/// Returns `0x80` for each byte of `word` that equals `byte`, and zero for the others.
#[inline]
const fn marked(word: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let difference = word ^ u64::from_ne_bytes([byte; 8]);
    !(((difference & LOW) + LOW) | difference | LOW)
}

/// Packs the bytes of `marks`, each `0x80` or zero, into one bit each. The first byte becomes the lowest bit.
#[inline]
const fn packed(marks: u64) -> u64 {
    (marks >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Parses a size or a count of one to nine decimal digits.
#[inline]
#[must_use]
pub fn size(token: &[u8]) -> Option<usize> {
    if token.is_empty() || token.len() > SIZE_DIGITS_MAX {
        return None;
    }
    let mut value = 0;
    for &digit in token {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + usize::from(digit - b'0');
    }
    Some(value)
}

/// Returns `line` without blanks at both ends.
#[must_use]
pub fn trim(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_blank(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && is_blank(*last)
    {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_spaces_and_tabs_separate_tokens() {
        let (found, count) = tokens::<3>(b" \tfoo \t 12\t").unwrap();
        assert_eq!((&found[..count]), &[b"foo".as_slice(), b"12"]);
        assert!(tokens::<1>(b"a b").is_none());
        assert_eq!(tokens::<1>(b"  \t").unwrap().1, 0);
    }

    #[test]
    fn the_shape_of_a_line_agrees_with_its_tokens() {
        for line in [
            "PUB a 1\r\n",
            "PUB a 1\n",
            "PUB  a\t b \t 12 \r\n",
            "\n",
            "\r\n",
            " \t\r\n",
            "a\r\n",
            "a\r \r\n",
            "PUB a\rb 1\r\r\n",
            "PUB aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 12\r\n",
            "\u{8a}\u{a0} \n",
        ] {
            let mut head = [b'x'; 64];
            head[..line.len()].copy_from_slice(line.as_bytes());
            let text = line.strip_suffix('\n').unwrap();
            let text = text.strip_suffix('\r').unwrap_or(text).as_bytes();
            let (found, count) = message_tokens::<8>(text).unwrap();
            let shape = shape(&head);
            assert_eq!(shape.map_or(0, |shape| shape.tokens as usize), count, "{line:?}");
            if let Some(shape) = shape {
                assert_eq!(shape.newline + 1, line.len(), "{line:?}");
                assert_eq!(
                    &head[shape.last_start..shape.last_end],
                    found[count - 1],
                    "{line:?}"
                );
            }
        }
        assert_eq!(shape(&[b'x'; 64]), None);
    }

    #[test]
    fn sizes_have_one_to_nine_digits() {
        assert_eq!(size(b"0"), Some(0));
        assert_eq!(size(b"000000012"), Some(12));
        assert_eq!(size(b"999999999"), Some(999_999_999));
        for bad in [b"".as_slice(), b"-1", b"+1", b"1x", b"1234567890"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn trim_removes_blanks_at_both_ends() {
        assert_eq!(trim(b" \t'a b'\r"), b"'a b'");
        assert_eq!(trim(b"  "), b"");
    }
}
