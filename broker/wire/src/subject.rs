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
    fn the_error_of_a_pattern_names_the_text() {
        assert!(Pattern::new("orders.>").unwrap().matches(b"orders.eu.1"));
        assert!(Pattern::new("a..b").unwrap_err().to_string().contains("`a..b`"));
    }
}
