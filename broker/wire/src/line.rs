//! The control line: blanks, tokens and sizes, the same for every verb.

use crate::limits::SIZE_DIGITS_MAX;

/// Whether `byte` separates tokens. `\r` inside a line counts as a blank, as in `nats-server`.
#[inline]
#[must_use]
pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// Splits `args` (a control line behind its verb) at runs of blanks into at most `N` tokens.
///
/// Returns the tokens and how many there are; `None` when there are more than `N`.
#[inline]
#[must_use]
pub fn tokens<const N: usize>(args: &[u8]) -> Option<([&[u8]; N], usize)> {
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

/// A size in bytes, or a count: one to nine decimal digits.
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

/// `line` without blanks at both ends.
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
    fn sizes_have_one_to_nine_digits() {
        assert_eq!(size(b"0"), Some(0));
        assert_eq!(size(b"000000012"), Some(12));
        assert_eq!(size(b"999999999"), Some(999_999_999));
        for bad in [b"".as_slice(), b"-1", b"+1", b"1x", b"1234567890"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn trim_takes_blanks_off_both_ends() {
        assert_eq!(trim(b" \t'a b'\r"), b"'a b'");
        assert_eq!(trim(b"  "), b"");
    }
}
