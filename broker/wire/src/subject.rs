//! Subjects and wildcards: <https://docs.nats.io/nats-concepts/subjects>.
//!
//! A subject is tokens with dots between them. In a subscription the token `*` stands for any one token, and `>` as the
//! last token for one or more. Inside a longer token both are ordinary characters, as in `nats-server`.

use thiserror::Error;

/// Whether `subject` may be subscribed to: no empty token, no blank, `>` as a token only at the end.
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

/// Whether `subject` may be published to: as [`valid_subscription`], and without wildcards.
#[must_use]
pub fn valid_publish(subject: &[u8]) -> bool {
    valid_subscription(subject) && !has_wildcard(subject)
}

/// Whether one of the tokens of `subject` is `*` or `>`.
#[must_use]
pub fn has_wildcard(subject: &[u8]) -> bool {
    subject
        .split(|byte| *byte == b'.')
        .any(|token| token == b"*" || token == b">")
}

/// Whether a subscription to `pattern` gets a message published to `subject`. Both must be valid.
#[must_use]
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut wanted = pattern.split(|byte| *byte == b'.');
    let mut tokens = subject.split(|byte| *byte == b'.');
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(b">"), Some(_)) | (None, None) => return true,
            (Some(b"*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

/// A checked subscription subject, for settings that name subjects by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[u8]>);

/// Why a text is no [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no subject pattern: tokens with dots between them, `*` for one token, `>` at the end for the rest"
)]
pub struct PatternError(String);

impl Pattern {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`PatternError`] when it may not be subscribed to.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if valid_subscription(text.as_bytes()) {
            Ok(Self(text.as_bytes().into()))
        } else {
            Err(PatternError(text.to_owned()))
        }
    }

    /// Whether `subject` is one of those meant.
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
    fn wildcards_stand_for_whole_tokens() {
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
    fn a_pattern_says_what_is_wrong_with_it() {
        assert!(Pattern::new("orders.>").unwrap().matches(b"orders.eu.1"));
        assert!(Pattern::new("a..b").unwrap_err().to_string().contains("`a..b`"));
    }
}
