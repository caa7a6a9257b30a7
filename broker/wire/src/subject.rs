//! Subjects and wildcards: <https://docs.nats.io/nats-concepts/subjects>.
//!
//! A subject consists of tokens, separated by dots. In the subject of a subscription, the token `*` matches exactly one token,
//! and `>` as the last token matches one or more. Within a longer token both are ordinary characters, as in `nats-server`.

use thiserror::Error;

/// Returns whether `subject` is valid for a subscription: no empty token, no blank, and the token `>` only at the end.
#[must_use]
pub fn valid_subscription(subject: &[u8]) -> bool {
    let mut ended = false;
    for token in subject.split(|byte| *byte == b'.') {
        if ended
            || token.is_empty()
            || token
                .iter()
                .any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c))
        {
            return false;
        }
        ended = token == b">";
    }
    true
}

/// Returns whether `subject` is valid for a publish: valid for a subscription, and without wildcards.
#[must_use]
pub fn valid_publish(subject: &[u8]) -> bool {
    valid_subscription(subject) && !has_wildcard(subject)
}

/// Returns whether a token of `subject` is `*` or `>`.
#[must_use]
pub fn has_wildcard(subject: &[u8]) -> bool {
    subject
        .split(|byte| *byte == b'.')
        .any(|token| token == b"*" || token == b">")
}

/// Returns whether a subscription to `pattern` receives a message published to `subject`. Both must be valid.
#[must_use]
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut patterns = pattern.split(|byte| *byte == b'.');
    let mut tokens = subject.split(|byte| *byte == b'.');
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(b">"), Some(_)) | (None, None) => return true,
            (Some(b"*"), Some(_)) => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

/// Returns whether `pattern` matches every subject that `subset` matches. Both must be valid.
#[must_use]
pub fn contains(pattern: &[u8], subset: &[u8]) -> bool {
    let mut patterns = pattern.split(|byte| *byte == b'.');
    let mut tokens = subset.split(|byte| *byte == b'.');
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(b">"), Some(_)) | (None, None) => return true,
            (_, Some(b">")) => return false,
            (Some(b"*"), Some(_)) => {}
            (Some(pattern), Some(token)) if pattern == token => {}
            _ => return false,
        }
    }
}

/// Returns whether there is a subject that both patterns match. Both must be valid.
#[must_use]
pub fn overlap(one: &[u8], other: &[u8]) -> bool {
    let mut ones = one.split(|byte| *byte == b'.');
    let mut others = other.split(|byte| *byte == b'.');
    loop {
        match (ones.next(), others.next()) {
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) | (None, None) => return true,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Valid subject of a subscription, for settings that select subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[u8]>);

/// Error for a text that is not a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a subject pattern: write tokens separated by dots, `*` for one token, `>` at the end for all further ones"
)]
pub struct PatternError(String);

impl Pattern {
    /// Creates a pattern.
    ///
    /// # Errors
    /// [`PatternError`] if `text` is not valid for a subscription.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if valid_subscription(text.as_bytes()) {
            Ok(Self(text.as_bytes().into()))
        } else {
            Err(PatternError(text.to_owned()))
        }
    }

    /// Returns whether the pattern matches `subject`.
    #[must_use]
    pub fn matches(&self, subject: &[u8]) -> bool {
        matches(&self.0, subject)
    }

    /// Returns whether the pattern matches every subject that `subset` matches.
    #[must_use]
    pub fn contains(&self, subset: &[u8]) -> bool {
        contains(&self.0, subset)
    }

    /// Returns whether there is a subject that both this pattern and `other` match.
    #[must_use]
    pub fn overlaps(&self, other: &[u8]) -> bool {
        overlap(&self.0, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_non_empty_tokens() {
        for good in [
            "a", "a.b.c", "*", ">", "a.*.c", "a.>", "*.>", "a*b", "a>", ">b", "$SYS.x", "é.ü",
        ] {
            assert!(valid_subscription(good.as_bytes()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a b", "a\tb"] {
            assert!(!valid_subscription(bad.as_bytes()), "{bad}");
        }
        assert!(valid_publish(b"a.b*.c>"));
        assert!(!valid_publish(b"a.*"));
        assert!(!valid_publish(b"a.>"));
    }

    #[test]
    fn wildcards_match_whole_tokens() {
        for (pattern, subject, gets) in [
            ("a.b", "a.b", true),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.>", "a.b.c", true),
            ("a*", "ab", false),
            ("a*", "a*", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), subject.as_bytes()),
                gets,
                "{pattern} {subject}"
            );
        }
    }

    #[test]
    fn patterns_contain_and_overlap_patterns() {
        for (one, other, contains_other, contained_in_other, overlaps) in [
            ("a.b", "a.b", true, true, true),
            ("a.b", "a.c", false, false, false),
            ("a", "a.b", false, false, false),
            ("a.*", "a.b", true, false, true),
            ("a.*", "a.*", true, true, true),
            ("a.>", "a.*", true, false, true),
            (">", "a.>", true, false, true),
            ("*", ">", false, true, true),
            ("a.>", "a", false, false, false),
            ("a.*.c", "a.b.*", false, false, true),
            ("*.b", "a.>", false, false, true),
            ("a.>", "b.>", false, false, false),
            ("*.*", "a.>", false, false, true),
        ] {
            let (first, second) = (one.as_bytes(), other.as_bytes());
            assert_eq!(contains(first, second), contains_other, "{one} {other}");
            assert_eq!(contains(second, first), contained_in_other, "{other} {one}");
            assert_eq!(overlap(first, second), overlaps, "{one} {other}");
            assert_eq!(overlap(second, first), overlaps, "{other} {one}");
        }
    }

    #[test]
    fn the_error_of_a_pattern_names_the_text() {
        assert!(Pattern::new("orders.>").unwrap().matches(b"orders.eu.1"));
        assert!(Pattern::new("a..b").unwrap_err().to_string().contains("`a..b`"));
    }
}
